//! What the client itself took of its machine, and whether that casts doubt on its figures.
//!
//! Relies on all of a client's connections being on the thread that asks.

use crate::client::tally::{Tally, Usage};
use rustix::time::{ClockId, clock_gettime};
use std::{
    fs,
    time::{Duration, Instant},
};

/// Above this share of a processor the client may have been the slower of the two.
const BUSY: f64 = 0.9;
/// Messages that leave later than this, by one in a hundred, make figures of their own.
const LATE: Duration = Duration::from_millis(1);

/// Measures from its start on.
pub(crate) struct Meter {
    started: Instant,
    processor: Duration,
    throttled: Duration,
}

impl Meter {
    pub fn start() -> Self {
        Self { started: Instant::now(), processor: processor(), throttled: throttled() }
    }

    pub fn read(&self, tally: &Tally) -> Usage {
        let used = processor().saturating_sub(self.processor);
        let cpu = used.as_secs_f64() / self.started.elapsed().as_secs_f64().max(f64::EPSILON);
        let throttled = throttled().saturating_sub(self.throttled);
        Usage { cpu, throttled, notes: notes(cpu, throttled, tally) }
    }
}

fn notes(cpu: f64, throttled: Duration, tally: &Tally) -> Vec<String> {
    let late = tally.late.at(0.99).unwrap_or_default();
    let local = tally.local_failures;
    let notes = [
        (cpu > BUSY, format!("the client itself used {:.0} % of a processor", cpu * 100.0)),
        (late > LATE, format!("the client itself sent late: p99 {:.1} ms", late.as_secs_f64() * 1e3)),
        (
            !throttled.is_zero(),
            format!("its control group kept the client from running for {} ms", throttled.as_millis()),
        ),
        (local > 0, format!("{local} connects never left this machine: no port, descriptor or memory was free")),
    ];
    notes.into_iter().filter(|(applies, _)| *applies).map(|(_, note)| note).collect()
}

/// The time that this thread was on a processor.
fn processor() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// How long the control group has kept its processes from a processor; zero where it does not tell.
fn throttled() -> Duration {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let stat = |path: &str| fs::read_to_string(format!("/sys/fs/cgroup{path}/cpu.stat")).ok();
    let group = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    parse(&stat(group).or_else(|| stat("")).unwrap_or_default())
}

fn parse(stat: &str) -> Duration {
    let micros = stat.lines().find_map(|line| line.strip_prefix("throttled_usec ")?.parse().ok());
    Duration::from_micros(micros.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_works_has_used_its_processor() {
        let meter = Meter::start();
        while processor() == meter.processor {}
        assert!(meter.read(&Tally::default()).cpu > 0.0);
    }

    #[test]
    fn the_throttled_time_is_read_where_it_is_told() {
        assert_eq!(parse("nr_periods 9\nnr_throttled 3\nthrottled_usec 1500\n"), Duration::from_micros(1500));
        assert_eq!(parse("usage_usec 1\n"), Duration::ZERO);
    }

    #[test]
    fn a_note_tells_of_each_way_in_which_the_client_was_the_bottleneck() {
        let mut tally = Tally::default();
        assert!(notes(0.5, Duration::ZERO, &tally).is_empty());
        tally.late.record(Duration::from_millis(7));
        tally.local_failures = 2;
        assert_eq!(
            notes(0.97, Duration::from_millis(30), &tally),
            [
                "the client itself used 97 % of a processor",
                "the client itself sent late: p99 7.0 ms",
                "its control group kept the client from running for 30 ms",
                "2 connects never left this machine: no port, descriptor or memory was free",
            ]
        );
    }
}
