//! How long something took, many times over: a histogram, and the figures that people read from it.
//!
//! Relies on a histogram of fixed precision: its size does not grow with the number of times, and two of them add up bucket by
//! bucket. So the figures of many clients come from one histogram, and no percentile is ever an average.

use base64::prelude::{BASE64_STANDARD, Engine};
use hdrhistogram::{
    Histogram,
    serialization::{Deserializer as Reader, Serializer as _, V2DeflateSerializer},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::{borrow::Cow, fmt, time::Duration};

/// Times in nanoseconds, to three digits. In JSON it is an HdrHistogram V2 in base64, which other programs read too.
///
/// While it has counted nothing it holds no histogram, and so no memory.
#[derive(Clone, PartialEq, Default)]
pub struct Hdr(Option<Histogram<u64>>);

impl Hdr {
    /// To one digit: little memory, for the many rows of a timeline.
    pub(crate) fn coarse() -> Self {
        Self(Some(Histogram::new(1).expect("one digit is within its range")))
    }

    /// Counts one time.
    pub fn record(&mut self, time: Duration) {
        self.record_n(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), 1);
    }

    /// Counts a time of so many nanoseconds `n` times.
    pub(crate) fn record_n(&mut self, nanos: u64, n: u64) {
        // The histogram grows as needed. It fails only for a time that no memory could count.
        let _ = self.0.get_or_insert_with(empty).record_n(nanos, n);
    }

    /// Adds what another one has counted.
    pub fn add(&mut self, other: &Self) {
        if let Some(other) = &other.0 {
            self.0.get_or_insert_with(empty).add(other).expect("it grows as needed");
        }
    }

    /// How many times it has counted.
    pub fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, Histogram::len)
    }

    /// The time, in nanoseconds, that this share of all, 0 to 1, does not exceed; 0 if there is none.
    pub fn at(&self, share: f64) -> u64 {
        self.0.as_ref().map_or(0, |histogram| histogram.value_at_quantile(share))
    }

    fn mean(&self) -> f64 {
        self.0.as_ref().map_or(0.0, Histogram::mean)
    }

    pub(crate) fn histogram(&self) -> Cow<'_, Histogram<u64>> {
        self.0.as_ref().map_or_else(|| Cow::Owned(empty()), Cow::Borrowed)
    }

    /// Its buckets that are not empty: the longest time of each in nanoseconds, and how many there are.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0
            .iter()
            .flat_map(Histogram::iter_recorded)
            .map(|bucket| (bucket.value_iterated_to(), bucket.count_since_last_iteration()))
    }

    /// As HdrHistogram V2 in base64.
    pub(crate) fn to_base64(&self) -> String {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(&*self.histogram(), &mut bytes).expect("a vector takes all bytes");
        BASE64_STANDARD.encode(bytes)
    }

    fn from_base64(text: &str) -> Result<Self, String> {
        let bytes = BASE64_STANDARD.decode(text).map_err(|error| error.to_string())?;
        let mut histogram: Histogram<u64> =
            Reader::new().deserialize(&mut &*bytes).map_err(|error| error.to_string())?;
        histogram.auto(true);
        Ok(Self(Some(histogram).filter(|histogram| !histogram.is_empty())))
    }
}

impl From<Histogram<u64>> for Hdr {
    fn from(nanos: Histogram<u64>) -> Self {
        Self(Some(nanos).filter(|nanos| !nanos.is_empty()))
    }
}

/// To three digits.
fn empty() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are within its range")
}

impl fmt::Debug for Hdr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hdr({} times)", self.count())
    }
}

impl Serialize for Hdr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_base64())
    }
}

impl<'de> Deserialize<'de> for Hdr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let problem = |problem| D::Error::custom(format!("not an HdrHistogram V2 in base64: {problem}"));
        Self::from_base64(&String::deserialize(deserializer)?).map_err(problem)
    }
}

/// The figures of a histogram, in microseconds; `None` where nothing was counted. The extremes are exact, and the others are
/// right to three digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Times {
    /// How many times were counted.
    pub count: u64,
    /// The shortest.
    pub min_us: Option<u64>,
    /// The mean.
    pub mean_us: Option<u64>,
    /// Half of them took no longer.
    pub p50_us: Option<u64>,
    /// 90 of 100 took no longer.
    pub p90_us: Option<u64>,
    /// 99 of 100 took no longer.
    pub p99_us: Option<u64>,
    /// 999 of 1,000 took no longer.
    pub p99_9_us: Option<u64>,
    /// 9,999 of 10,000 took no longer.
    pub p99_99_us: Option<u64>,
    /// 99,999 of 100,000 took no longer.
    pub p99_999_us: Option<u64>,
    /// The longest.
    pub max_us: Option<u64>,
}

impl Times {
    /// The figures of `hdr`, whose shortest and longest time are known exactly.
    pub(crate) fn of(hdr: &Hdr, extremes: Option<(Duration, Duration)>) -> Self {
        let micros = |time: Duration| time.as_micros() as u64;
        Self::within(hdr, extremes.map(|(min, max)| (micros(min), micros(max))))
    }

    /// As `of`, in microseconds.
    pub(crate) fn within(hdr: &Hdr, extremes: Option<(u64, u64)>) -> Self {
        let Some((min, max)) = extremes.filter(|_| hdr.count() > 0) else { return Self::default() };
        // A bucket's edge may lie outside.
        let at = |share| Some((hdr.at(share) / 1_000).clamp(min, max));
        Self {
            count: hdr.count(),
            min_us: Some(min),
            mean_us: Some(((hdr.mean() / 1e3).round() as u64).clamp(min, max)),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            p99_99_us: at(0.9999),
            p99_999_us: at(0.99999),
            max_us: Some(max),
        }
    }

    pub(crate) fn extremes(&self) -> Option<(u64, u64)> {
        self.min_us.zip(self.max_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hdr(nanos: &[u64]) -> Hdr {
        let mut hdr = Hdr::default();
        nanos.iter().for_each(|&nanos| hdr.record(Duration::from_nanos(nanos)));
        hdr
    }

    fn times(nanos: &[u64]) -> Times {
        let extremes = nanos.iter().min().zip(nanos.iter().max());
        Times::of(&hdr(nanos), extremes.map(|(&min, &max)| (Duration::from_nanos(min), Duration::from_nanos(max))))
    }

    #[test]
    fn without_a_time_there_is_no_figure() {
        assert_eq!(times(&[]), Times::default());
    }

    #[test]
    fn the_figures_are_those_of_the_times_in_order() {
        let nanos: Vec<_> = (1..=1_000).map(|n| n * 1_000_000).collect();
        let times = times(&nanos);
        assert_eq!((times.count, times.min_us, times.max_us), (1_000, Some(1_000), Some(1_000_000)));
        for (figure, expected) in [
            (times.mean_us, 500_500),
            (times.p50_us, 500_000),
            (times.p90_us, 900_000),
            (times.p99_us, 990_000),
            (times.p99_9_us, 999_000),
            (times.p99_999_us, 1_000_000),
        ] {
            let figure = figure.unwrap();
            assert!(figure.abs_diff(expected) * 1_000 <= expected, "{figure} for {expected}");
        }
    }

    #[test]
    fn its_text_is_what_other_programs_of_hdrhistogram_begin_with() {
        assert!(hdr(&[40_000]).to_base64().starts_with("HISTFAAA"), "{}", hdr(&[40_000]).to_base64());
    }

    #[test]
    fn a_text_that_is_no_histogram_is_refused() {
        for bad in ["", "!", "HISTFAAA", "aGFsbG8="] {
            let error = serde_json::from_value::<Hdr>(bad.into()).unwrap_err().to_string();
            assert!(error.starts_with("not an HdrHistogram V2 in base64: "), "{bad}: {error}");
        }
    }

    proptest! {
        #[test]
        fn figures_are_in_order_and_the_extremes_are_exact(
            nanos in prop::collection::vec(0..Duration::from_secs(3600).as_nanos() as u64, 1..50),
        ) {
            let t = times(&nanos);
            let figures =
                [t.min_us, t.p50_us, t.p90_us, t.p99_us, t.p99_9_us, t.p99_99_us, t.p99_999_us, t.max_us];
            prop_assert!(figures.is_sorted() && t.min_us <= t.mean_us && t.mean_us <= t.max_us, "{t:?}");
            let exact = (nanos.iter().min().map(|nanos| nanos / 1_000), nanos.iter().max().map(|nanos| nanos / 1_000));
            prop_assert_eq!((t.min_us, t.max_us), exact);
        }

        #[test]
        fn a_histogram_is_read_as_it_was_written_and_still_grows(nanos in prop::collection::vec(0..1_u64 << 40, 0..50)) {
            let written = hdr(&nanos);
            let mut read: Hdr = serde_json::from_value(serde_json::to_value(&written).unwrap()).unwrap();
            prop_assert!(read.buckets().eq(written.buckets()));
            read.record_n(1 << 50, 1);
            prop_assert_eq!(read.count(), written.count() + 1);
        }
    }
}
