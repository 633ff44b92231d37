//! What the server reports after a stop, and the exit code that follows from it.
//!
//! The numbers come from the gate's tally, the verdict from the Supervisor's decisions.

use crate::decisions::{admission::Tally, ids::WorkerId, stop::StopReason, supervisor::Verdict};
use std::time::Duration;

/// The report of a stopped server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// What stopped it first.
    pub reason: StopReason,
    /// Connections that were alive at the stop, or taken in by it, and acknowledged.
    pub acknowledged: usize,
    /// Connections that were alive at the stop, or taken in by it, and had to be ended by force.
    pub forced: usize,
    /// Connections that crashed, ever.
    pub crashed: usize,
    /// Of those acknowledged, connections that their clients reset during the stop.
    pub reset: usize,
    /// Of those acknowledged, connections whose services failed during the stop.
    pub failed: usize,
    /// Bytes that came too late to be answered, of all connections that the stop ended.
    pub discarded: u64,
    /// The bytes of all connections that the server ever had.
    pub total: TotalBytes,
    /// Whether supervision gave up: too many restarts, or a Worker that panicked.
    pub gave_up: bool,
    /// Workers that did not answer, or whose threads did not end: they were left behind.
    pub stuck: Vec<WorkerId>,
    /// From the stop to the last acknowledgement.
    pub elapsed: Duration,
}

/// What a server has received, echoed and discarded in its life, without the bytes of its health checks. So the sums over all
/// servers can be compared with what their clients have sent and verified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TotalBytes {
    /// Bytes that services have read.
    pub received: u64,
    /// Bytes that services have written and the system has taken.
    pub echoed: u64,
    /// Bytes that came after the service was done.
    pub discarded: u64,
}

impl Report {
    pub(crate) fn new(tally: Tally, total: TotalBytes, verdict: Verdict, elapsed: Duration) -> Self {
        let Tally { acknowledged, forced, crashed, reset, failed, discarded } = tally;
        let Verdict { reason, gave_up, stuck } = verdict;
        Self { reason, acknowledged, forced, crashed, reset, failed, discarded, total, gave_up, stuck, elapsed }
    }

    /// What a program should exit with: 0, or 1 if supervision gave up, or 3 if a connection had to be forced or a Worker or
    /// its thread was stuck.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self { gave_up: true, .. } => 1,
            Self { forced: 1.., .. } => 3,
            Self { stuck, .. } if !stuck.is_empty() => 3,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_follows_the_table() {
        for (expected, gave_up, forced, stuck) in [
            (0, false, 0, vec![]),
            (1, true, 0, vec![]),
            (1, true, 1, vec![WorkerId(1)]),
            (3, false, 1, vec![]),
            (3, false, 0, vec![WorkerId(1)]),
        ] {
            let (reason, elapsed) = (StopReason::Sigterm, Duration::ZERO);
            let tally = Tally { forced, ..Tally::default() };
            let report = Report::new(tally, TotalBytes::default(), Verdict { reason, gave_up, stuck }, elapsed);
            assert_eq!(report.exit_code(), expected, "{report:?}");
        }
    }
}
