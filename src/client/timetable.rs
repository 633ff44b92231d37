//! When each message is due, if there is a rate.
//!
//! Pure: a formula of the message's number alone. Nothing that a server does can move it.

use crate::client::tally;
use std::time::Duration;

/// A part of the run with a rate of its own.
#[derive(Debug, Clone, Copy)]
struct Step {
    from: Duration,
    /// Messages of all connections before it.
    before: u64,
    /// Messages a second, over all connections.
    rate: f64,
}

impl Step {
    /// When the message is due that has `index` others before it.
    fn due(&self, index: u64) -> Duration {
        self.from + Duration::from_nanos(((index - self.before) as f64 / self.rate * 1e9) as u64)
    }
}

/// When each message of each connection is due, from T0 on.
#[derive(Debug, Clone)]
pub(crate) struct Timetable {
    steps: Vec<Step>,
    end: Option<Duration>,
    connections: u64,
}

impl Timetable {
    /// The steps share the duration evenly. Without a duration there is no end, and only the first step is used. `None` if
    /// there is no rate.
    pub fn new(rates: &[f64], duration: Duration, connections: usize) -> Option<Self> {
        let end = Some(duration).filter(|duration| !duration.is_zero());
        let rates = if end.is_some() { rates } else { &rates[..rates.len().min(1)] };
        let mut steps: Vec<Step> = Vec::with_capacity(rates.len());
        for (n, &rate) in (0..).zip(rates) {
            let from = duration * n / rates.len() as u32;
            let before = steps.last().map_or(0, |step| first_due_at(step, from));
            steps.push(Step { from, before, rate });
        }
        (!steps.is_empty()).then_some(Self { steps, end, connections: connections as u64 })
    }

    /// When the `n`th message of a connection is due, both counted from 1. `None` if the run ends before.
    pub fn due(&self, n: u64, connection: usize) -> Option<Duration> {
        let index = (n - 1) * self.connections + connection as u64 - 1;
        let begun = self.steps.partition_point(|step| step.before <= index);
        let due = self.steps[begun - 1].due(index);
        self.end.is_none_or(|end| due < end).then_some(due)
    }

    /// When a further message would be due, if each connection sends so many, or all of them until the end; 0 is no end by
    /// count. `None`: it has no end.
    pub fn length(&self, messages: u64) -> Option<Duration> {
        let counted = if messages == 0 { None } else { self.due(messages + 1, 1) };
        counted.or(self.end)
    }

    /// The steps, with nothing measured yet.
    pub fn steps(&self) -> Vec<tally::Step> {
        self.steps.iter().map(|step| tally::Step::new(step.from, step.rate)).collect()
    }
}

/// The first message that a step would have due at `end` or later. The product alone may be off by one.
fn first_due_at(step: &Step, end: Duration) -> u64 {
    let mut index = step.before + ((end - step.from).as_secs_f64() * step.rate) as u64;
    while index > step.before && step.due(index - 1) >= end {
        index -= 1;
    }
    while step.due(index) < end {
        index += 1;
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn messages_are_due_at_even_intervals_and_the_connections_take_turns() {
        let timetable = Timetable::new(&[1000.0], ms(6), 4).unwrap();
        let due = |connection| (1..=3).map(|n| timetable.due(n, connection)).collect::<Vec<_>>();
        assert_eq!(due(1), [Some(ms(0)), Some(ms(4)), None]);
        assert_eq!(due(2), [Some(ms(1)), Some(ms(5)), None]);
        assert_eq!(due(4), [Some(ms(3)), None, None]);
    }

    #[test]
    fn steps_share_the_duration_evenly() {
        let timetable = Timetable::new(&[500.0, 1000.0], ms(20), 1).unwrap();
        let due: Vec<_> = (1..).map_while(|n| timetable.due(n, 1)).map(|due| due.as_millis()).collect();
        assert_eq!(due, [0, 2, 4, 6, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]);
    }

    #[test]
    fn without_a_rate_there_is_no_timetable_and_without_a_duration_no_end() {
        assert!(Timetable::new(&[], ms(20), 1).is_none());
        let timetable = Timetable::new(&[0.5, 7.0], Duration::ZERO, 1).unwrap();
        assert_eq!(timetable.due(1_000_001, 1), Some(Duration::from_secs(2_000_000)));
        assert_eq!(timetable.steps().len(), 1);
        assert_eq!((timetable.length(0), timetable.length(3)), (None, Some(Duration::from_secs(6))));
    }

    #[test]
    fn a_timetable_ends_with_the_duration_or_the_count_whichever_is_first() {
        let timetable = Timetable::new(&[1000.0], ms(6), 2).unwrap();
        assert_eq!([0, 2, 3, 9].map(|messages| timetable.length(messages)), [6, 4, 6, 6].map(|end| Some(ms(end))));
    }

    proptest! {
        #[test]
        fn the_messages_of_all_connections_follow_each_other_and_each_step_has_as_many_as_its_rate_says(
            rates in prop::collection::vec(0.5..5_000.0, 1..5), millis in 1..500u64, connections in 1..70usize,
        ) {
            let timetable = Timetable::new(&rates, ms(millis), connections).unwrap();
            let turns = (1..).flat_map(|n| (1..=connections).map(move |connection| (n, connection)));
            let due: Vec<_> = turns.map_while(|(n, connection)| timetable.due(n, connection)).collect();
            prop_assert!(due.is_sorted());
            prop_assert_eq!(due[0], Duration::ZERO);
            let length = ms(millis) / rates.len() as u32;
            for (step, rate) in timetable.steps().iter().zip(&rates) {
                let end = step.from + length;
                let within = due.iter().filter(|due| (step.from..end).contains(&**due)).count() as f64;
                prop_assert!((within - rate * length.as_secs_f64()).abs() <= 1.0, "{within} at {rate}/s");
            }
        }
    }
}
