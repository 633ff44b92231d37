//! The metrics of the process itself, as every Prometheus client names them. Relies on `/proc`; what cannot be read there is
//! left out.

use crate::admin::samples::Samples;
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};
use rlimit::Resource;
use rustix::param::{clock_ticks_per_second, page_size};
use std::{fmt, fs};

#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut samples = Samples(encoder);
        if let Some([cpu, started, virtual_memory, resident]) = status() {
            samples.counter("process_cpu_seconds_total", "Processor time used, user and system", [([], cpu)])?;
            samples.gauge("process_start_time_seconds", "Start of the process since the epoch", [([], started)])?;
            samples.gauge("process_virtual_memory_bytes", "Virtual memory", [([], virtual_memory)])?;
            samples.gauge("process_resident_memory_bytes", "Resident memory", [([], resident)])?;
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // One of them is the directory itself.
            let open = open.count().saturating_sub(1);
            samples.gauge("process_open_fds", "Open file descriptors", [([], open as f64)])?;
        }
        if let Ok(most) = Resource::NOFILE.get_soft() {
            samples.gauge("process_max_fds", "The soft limit of file descriptors", [([], most as f64)])?;
        }
        Ok(())
    }
}

/// Processor time and start in seconds, virtual and resident memory in bytes.
fn status() -> Option<[f64; 4]> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the program's name, which may have blanks of its own, comes the third field.
    let fields: Vec<f64> =
        stat.rsplit_once(')')?.1.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
    let field = |number: usize| fields.get(number - 3).copied();
    let booted = fs::read_to_string("/proc/stat").ok()?;
    let booted: f64 = booted.lines().find_map(|line| line.strip_prefix("btime "))?.parse().ok()?;
    let ticks = clock_ticks_per_second() as f64;
    Some([(field(14)? + field(15)?) / ticks, booted + field(22)? / ticks, field(23)?, field(24)? * page_size() as f64])
}
