//! Many times in little memory: a histogram of nanoseconds to three digits, with its extremes exact.
//!
//! Pure. The histogram grows with the longest time, not with the number of times. Two of them add up without a loss.

use hdrhistogram::Histogram;
use std::time::Duration;

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
        Self::to_digits(3)
    }
}

impl Times {
    fn to_digits(digits: u8) -> Self {
        Self { histogram: Histogram::new(digits).expect("it is a number of digits within its range"), extremes: None }
    }

    /// None, to two digits: a tenth of the memory, for the many intervals of a timeline.
    pub fn coarse() -> Self {
        Self::to_digits(2)
    }

    pub fn record(&mut self, time: Duration) {
        let (min, max) = self.extremes.unwrap_or((time, time));
        self.extremes = Some((min.min(time), max.max(time)));
        // The histogram grows as needed. It fails only for a time that no memory could count.
        let _ = self.histogram.record(time.as_nanos() as u64);
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
