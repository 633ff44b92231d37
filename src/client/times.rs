//! Many times in little memory: a histogram of nanoseconds to three digits, with its extremes exact.
//!
//! Pure. The histogram does not grow, neither with the number of times nor with the longest one: at a stop no memory may be left.
//! Two of them add up without a loss.

use hdrhistogram::Histogram;
use std::{mem, time::Duration};

/// The longest time that is told from a longer one; no setting allows a run that is longer.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Times of one kind, such as round trips.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Times {
    /// Nanoseconds.
    histogram: Histogram<u64>,
    /// The shortest and the longest, exact. The histogram would give only the edges of their buckets.
    extremes: Option<(Duration, Duration)>,
}

impl Default for Times {
    /// None, to three digits.
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST.as_nanos() as u64, 3);
        Self { histogram: histogram.expect("the bounds are within its range"), extremes: None }
    }
}

impl Times {
    /// None, to two digits, in memory that grows with the longest of them: there are many intervals in a timeline.
    pub fn coarse() -> Self {
        Self { histogram: Histogram::new(2).expect("two digits are within its range"), extremes: None }
    }

    pub fn record(&mut self, time: Duration) {
        let (min, max) = self.extremes.unwrap_or((time, time));
        self.extremes = Some((min.min(time), max.max(time)));
        let nanos = u64::try_from(time.min(LONGEST).as_nanos()).unwrap_or(u64::MAX);
        // A coarse one grows as needed.
        let _ = self.histogram.record(nanos);
    }

    /// Adds those of `other`.
    pub fn add(&mut self, other: &Self) {
        self.extremes = match (self.extremes, other.extremes) {
            (Some((min, max)), Some((least, most))) => Some((min.min(least), max.max(most))),
            (one, another) => one.or(another),
        };
        // As in `record`.
        let _ = self.histogram.add(&other.histogram);
    }

    /// The shortest and the longest.
    pub fn extremes(&self) -> Option<(Duration, Duration)> {
        self.extremes
    }

    /// The time that this share of them does not exceed; 0.99 gives p99.
    pub fn at(&self, share: f64) -> Option<Duration> {
        let (min, max) = self.extremes?;
        Some(Duration::from_nanos(self.histogram.value_at_quantile(share)).clamp(min, max))
    }

    /// Takes all of them away, in nanoseconds. None are left.
    pub fn take(&mut self) -> Histogram<u64> {
        let empty = Self::coarse();
        mem::replace(self, empty).histogram
    }

    /// All of them, in nanoseconds.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(nanos: &[u64]) -> Times {
        let mut times = Times::default();
        nanos.iter().for_each(|&nanos| times.record(Duration::from_nanos(nanos)));
        times
    }

    const HOUR: u64 = 3_600_000_000_000;

    proptest! {
        #[test]
        fn percentiles_are_in_order_between_extremes_that_are_exact(nanos in prop::collection::vec(0..HOUR, 1..50)) {
            let times = of(&nanos);
            let (min, max) = times.extremes().unwrap();
            let exact = (nanos.iter().min(), nanos.iter().max());
            prop_assert_eq!((min.as_nanos() as u64, max.as_nanos() as u64), (*exact.0.unwrap(), *exact.1.unwrap()));
            let at = [0.0, 0.5, 0.99, 0.999_99].map(|share| times.at(share).unwrap());
            prop_assert!(at.is_sorted() && min <= at[0] && at[3] <= max);
            prop_assert_eq!(times.histogram().len(), nanos.len() as u64);
        }

        #[test]
        fn the_sum_of_two_is_the_whole(
            one in prop::collection::vec(0..HOUR, 0..50), other in prop::collection::vec(0..HOUR, 0..50),
        ) {
            let mut sum = of(&one);
            sum.add(&of(&other));
            prop_assert_eq!(sum, of(&[one, other].concat()));
        }
    }

    #[test]
    fn without_a_time_there_is_no_percentile() {
        assert_eq!((Times::default().at(0.5), Times::coarse().extremes()), (None, None));
    }
}
