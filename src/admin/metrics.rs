//! The metrics, made from the counters at each scrape. No Worker is asked, so the numbers of a stuck one are there too.
//!
//! The text is Prometheus's own, not OpenMetrics: a counter's family is named as its samples are, with `_total`. No label
//! names a peer or a connection, whose number has no bound.

use crate::{
    admin::{in_force::InForce, process::Process, samples::Samples},
    server::watch::{
        Watch,
        counters::{Counts, WAIT_BOUNDS},
        tree::{AcceptorPhase, Phase, State},
    },
};
use hyper::body::Bytes;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, text::encode},
    metrics::MetricType,
    registry::Registry,
};
use std::{
    fmt,
    time::{Duration, SystemTime},
};

pub(super) fn registry(watch: Watch, in_force: InForce) -> Registry {
    let mut registry = Registry::default();
    registry.sub_registry_with_prefix("echo_server").register_collector(Box::new(Server { watch, in_force }));
    registry.register_collector(Box::new(Process));
    registry
}

pub(super) fn text(registry: &Registry) -> Bytes {
    let mut text = String::new();
    encode(&mut text, registry).expect("a string takes all that is written");
    text.into()
}

#[derive(Debug)]
struct Server {
    watch: Watch,
    in_force: InForce,
}

impl Collector for Server {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut samples = Samples(encoder);
        let (counts, taken, loaded) = (self.watch.counts(), self.watch.occupancy(), self.in_force.loaded());
        let workers = || (1..).map(|worker: u64| worker.to_string()).zip(&counts);
        let one = |n: u64| [([], n)];

        samples.gauge("build_info", "The version", [([("version", env!("CARGO_PKG_VERSION").into())], 1_u64)])?;
        let phase = self.watch.phase();
        let phases = Phase::ALL.map(|other| ([("phase", other.as_str().to_owned())], u64::from(other == phase)));
        samples.gauge("phase", "1 for the phase that the server is in", phases)?;
        let open = workers().flat_map(|(worker, counts)| {
            State::ALL.map(|state| {
                ([("worker", worker.clone()), ("state", state.as_str().into())], counts.open[state as usize])
            })
        });
        samples.gauge("connections", "Open connections", open)?;
        samples.gauge("max_connections", "Slots", one(taken.max_connections as u64))?;
        samples.gauge("max_pending", "Places in the queue", one(taken.max_pending as u64))?;
        let by_worker =
            |count: fn(&Counts) -> u64| workers().map(move |(worker, counts)| ([("worker", worker)], count(counts)));
        samples.counter("connections_accepted_total", "Connections accepted", by_worker(|counts| counts.accepted))?;
        let closed = workers().flat_map(|(worker, counts)| {
            counts.closed.map(|(reason, n)| ([("worker", worker.clone()), ("reason", reason.as_str().into())], n))
        });
        samples.counter("connections_closed_total", "Connections that have ended", closed)?;
        samples.counter(
            "received_bytes_total",
            "Bytes that services have read",
            by_worker(|counts| counts.received),
        )?;
        samples.counter("sent_bytes_total", "Bytes that services have written", by_worker(|counts| counts.echoed))?;
        samples.counter(
            "discarded_bytes_total",
            "Bytes that came too late for a service",
            by_worker(|counts| counts.discarded),
        )?;
        waits(&mut samples, &counts)?;
        let acceptors = (1..).zip(self.watch.acceptors());
        let accepting = acceptors.map(|(worker, acceptor): (u64, _)| {
            ([("worker", worker.to_string())], u64::from(acceptor.state == AcceptorPhase::Accepting))
        });
        samples.gauge("accepting", "1 if the Worker's Acceptor accepts", accepting)?;
        samples.counter(
            "acceptor_restarts_total",
            "Restarts of the Worker's Acceptor",
            by_worker(|counts| counts.restarts),
        )?;
        samples.gauge(
            "out_of_descriptors",
            "1 while accepting pauses for want of descriptors",
            one(taken.out_of_descriptors.into()),
        )?;
        samples.gauge(
            "config_last_reload_successful",
            "1 if the settings could be read when they were read last",
            one(loaded.successful.into()),
        )?;
        let at = loaded.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        samples.gauge(
            "config_last_reload_success_timestamp_seconds",
            "When the settings were last read successfully",
            [([], at)],
        )?;
        samples.gauge("watchers", "Watchers of the events", one(self.watch.watchers() as u64))
    }
}

/// How long clients have waited, over all Workers.
fn waits(Samples(encoder): &mut Samples<'_>, counts: &[Counts]) -> fmt::Result {
    let bounds = WAIT_BOUNDS.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
    let buckets: Vec<_> =
        bounds.enumerate().map(|(i, bound)| (bound, counts.iter().map(|counts| counts.waits[i]).sum())).collect();
    let sum = counts.iter().map(|counts| counts.waited).sum::<Duration>().as_secs_f64();
    let all = buckets.iter().map(|(_, n)| n).sum();
    let help = "How long clients have waited for their slots";
    let mut metric = encoder.encode_descriptor("wait_seconds", help, None, MetricType::Histogram)?;
    metric.encode_histogram::<NoLabelSet>(sum, all, &buckets, None)
}
