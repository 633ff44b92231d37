//! How far a run is, for a person who waits for it.
//!
//! Pure: it is read from the tally, at a time since T0.

use crate::client::tally::Tally;
use std::{fmt, time::Duration};

/// How far a run is. Displayed, it is a line of a terminal.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Progress {
    /// For how long it has sent.
    pub elapsed: Duration,
    /// Echoes verified a second, since the last time that progress was told.
    pub rate: f64,
    /// Echoes that were right.
    pub verified: u64,
    /// Echoes that did not come.
    pub lost: u64,
    /// The response time, or without a rate the round trip, that 99 of 100 did not exceed; `None` if no echo has come.
    pub p99: Option<Duration>,
    /// How long it goes on; `None` if the run has no `duration`.
    pub left: Option<Duration>,
}

impl Progress {
    /// A run of `duration`, zero for no end, at `elapsed`, after it was at `before`.
    pub(crate) fn new(tally: &Tally, elapsed: Duration, duration: Duration, before: &Self) -> Self {
        let since = elapsed.saturating_sub(before.elapsed).as_secs_f64().max(f64::EPSILON);
        Self {
            elapsed,
            rate: tally.verified.saturating_sub(before.verified) as f64 / since,
            verified: tally.verified,
            lost: tally.lost,
            p99: tally.response.at(0.99).or(tally.round_trip.at(0.99)),
            left: (!duration.is_zero()).then(|| duration.saturating_sub(elapsed)),
        }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { elapsed, rate, verified, lost, p99, left } = self;
        write!(f, "{} s  {rate:.1}/s  verified {verified}  lost {lost}", elapsed.as_secs())?;
        if let Some(p99) = p99 {
            write!(f, "  p99 {:.2} ms", p99.as_secs_f64() * 1e3)?;
        }
        left.map_or(Ok(()), |left| write!(f, "  {} s left", left.as_secs_f64().ceil()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tally::Moments;

    #[test]
    fn the_rate_is_that_since_the_last_time() {
        let (mut tally, second) = (Tally::default(), Duration::from_secs(1));
        let mut verify = |n| (0..n).for_each(|_| tally.verified(&Moments::default(), second / 500));
        verify(10);
        let first = Progress::new(&tally, 2 * second, 10 * second, &Progress::default());
        assert_eq!(first.to_string(), "2 s  5.0/s  verified 10  lost 0  p99 2.00 ms  8 s left");
        let mut verify = |n| (0..n).for_each(|_| tally.verified(&Moments::default(), second / 500));
        verify(100);
        let next = Progress::new(&tally, 3 * second, Duration::ZERO, &first);
        assert_eq!(next.to_string(), "3 s  100.0/s  verified 110  lost 0  p99 2.00 ms");
        let nothing = Progress::new(&Tally::default(), 2 * second, second, &Progress::default());
        assert_eq!(nothing.to_string(), "2 s  0.0/s  verified 0  lost 0  0 s left");
    }
}
