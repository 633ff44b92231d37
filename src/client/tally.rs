//! What a run has measured, as plain numbers. Connections add to it, and the report reads it.
//!
//! Pure: all times are given as they are since T0. What came before T0 counts as at T0.

use crate::client::{
    outage::Outages,
    report::{Bytes, Connections, LostBy},
    timeline::Timeline,
    times::Times,
};
use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

/// Why an echo was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The echo, or a part of it, did not come within `timeout`.
    Timeout,
    /// The server ended the connection first.
    Closed,
    /// The connection failed.
    Reset,
    /// The message could not be sent within `timeout`.
    Unsent,
    /// A message before it on its connection had failed.
    Abandoned,
}

impl Lost {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Unsent => "unsent",
            Self::Abandoned => "abandoned",
        }
    }
}

impl LostBy {
    fn of(&mut self, reason: Lost) -> &mut u64 {
        match reason {
            Lost::Timeout => &mut self.timeout,
            Lost::Closed => &mut self.closed,
            Lost::Reset => &mut self.reset,
            Lost::Unsent => &mut self.unsent,
            Lost::Abandoned => &mut self.abandoned,
        }
    }
}

/// Why a try to connect failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotConnected {
    /// The server's machine said no.
    Refused,
    /// No answer came, or no way led there.
    Unanswered,
    /// It never got out of this machine. That says nothing about the server.
    Local,
}

/// What one address of the server did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Served {
    pub connections: u64,
    pub verified: u64,
}

/// A part of the run that has a rate of its own.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    pub from: Duration,
    /// Messages a second, over all connections.
    pub rate: f64,
    pub verified: u64,
    pub wrong: u64,
    pub lost: u64,
    pub response: Times,
}

impl Step {
    pub fn new(from: Duration, rate: f64) -> Self {
        Self { from, rate, verified: 0, wrong: 0, lost: 0, response: Times::default() }
    }

    pub fn due(&self) -> u64 {
        self.verified + self.wrong + self.lost
    }
}

/// How much of its machine the client itself had.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Usage {
    /// The share of one processor that the client's thread used.
    pub cpu: f64,
    /// How long the control group kept it from the processor.
    pub throttled: Duration,
    /// What casts doubt on the figures, a sentence each.
    pub notes: Vec<String>,
}

/// The times of one echo.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Moments {
    /// By the timetable; without a rate, when its message was sent.
    pub due: Duration,
    /// The first byte of its message, for the last time if that was sent again.
    pub sent: Duration,
    /// Its last byte.
    pub back: Duration,
}

/// All that a run has measured.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Tally {
    pub verified: u64,
    pub wrong: u64,
    pub lost: u64,
    /// Messages that were out, or due, when the client was stopped. No other count holds them.
    pub given_up: u64,
    /// How often a message was sent again.
    pub resent: u64,
    pub bytes: Bytes,
    pub lost_by: LostBy,
    /// From due to the last byte back. Only with a rate.
    pub response: Times,
    /// From the first byte sent to the last byte back.
    pub round_trip: Times,
    /// From when a message was due and had room to its first byte sent: the client's own fault. Only with a rate.
    pub late: Times,
    /// How long each connection took to be made.
    pub connect: Times,
    pub connections: Connections,
    pub servers: BTreeMap<SocketAddr, Served>,
    /// Empty without a rate.
    pub steps: Vec<Step>,
    pub timeline: Timeline,
    pub outages: Outages,
    pub usage: Usage,
    /// Messages that were due before this are counted but not timed.
    pub warmup: Duration,
    /// Tries to connect that never got out of this machine.
    pub local_failures: u64,
    /// How many connections are open now.
    pub open: u64,
}

impl Tally {
    /// Without `steps` there is no rate.
    pub fn new(steps: Vec<Step>, warmup: Duration) -> Self {
        Self { steps, warmup, ..Self::default() }
    }

    /// Messages whose outcome is known.
    pub fn due(&self) -> u64 {
        self.verified + self.wrong + self.lost
    }

    /// With a rate, a message that was due then goes out for the first time, so late.
    pub fn sent(&mut self, due: Duration, late: Duration) {
        if due >= self.warmup {
            self.late.record(late);
        }
    }

    /// The round trip is given, because it may have begun before T0.
    pub fn verified(&mut self, &Moments { due, sent, back }: &Moments, round_trip: Duration) {
        self.verified += 1;
        self.outages.verified(sent, back);
        let timed = due >= self.warmup;
        let response = back.saturating_sub(due);
        let row = self.timeline.row(due);
        row.verified += 1;
        if timed {
            self.round_trip.record(round_trip);
            row.times.record(if self.steps.is_empty() { round_trip } else { response });
        }
        if let Some(step) = step(&mut self.steps, due) {
            step.verified += 1;
            if timed {
                self.response.record(response);
                step.response.record(response);
            }
        }
    }

    pub fn wrong(&mut self, due: Duration) {
        self.wrong += 1;
        self.timeline.row(due).wrong += 1;
        if let Some(step) = step(&mut self.steps, due) {
            step.wrong += 1;
        }
    }

    /// A verified echo is wrong after all. Its times stay, because it took them.
    pub fn take_back(&mut self, due: Duration) {
        self.wrong(due);
        self.verified -= 1;
        self.timeline.row(due).verified -= 1;
        if let Some(step) = step(&mut self.steps, due) {
            step.verified -= 1;
        }
    }

    /// `begun` is when the attempt began; `None` if this machine kept the message from going out. That says nothing about the
    /// server.
    pub fn lost(&mut self, due: Duration, begun: Option<Duration>, reason: Lost) {
        self.lost += 1;
        *self.lost_by.of(reason) += 1;
        if let Some(begun) = begun {
            self.outages.failed(begun, reason.as_str());
        }
        self.timeline.row(due).lost += 1;
        if let Some(step) = step(&mut self.steps, due) {
            step.lost += 1;
        }
    }

    pub fn connected(&mut self, server: SocketAddr, took: Duration, at: Duration) {
        self.connections.made += 1;
        self.servers.entry(server).or_default().connections += 1;
        self.connect.record(took);
        self.open += 1;
        self.timeline.connections(at, self.open);
    }

    /// A try that began at `begun` has failed, `why` at the last address.
    pub fn not_connected(&mut self, begun: Duration, why: NotConnected) {
        self.passed_over(why);
        match why {
            NotConnected::Refused => self.outages.failed(begun, "refused"),
            NotConnected::Unanswered => self.outages.failed(begun, "unanswered"),
            NotConnected::Local => {}
        }
    }

    /// One of several addresses has failed. Alone this is no outage: the try goes on with the next address.
    pub fn passed_over(&mut self, why: NotConnected) {
        *match why {
            NotConnected::Refused => &mut self.connections.refused,
            NotConnected::Unanswered => &mut self.connections.unanswered,
            NotConnected::Local => &mut self.local_failures,
        } += 1;
    }

    /// A connection has ended, over which `verified` echoes came.
    pub fn closed(&mut self, server: SocketAddr, verified: u64, at: Duration) {
        self.servers.entry(server).or_default().verified += verified;
        self.open -= 1;
        self.timeline.connections(at, self.open);
    }

    /// The run is over.
    pub fn finish(&mut self, at: Duration, usage: Usage) {
        self.outages.finish(at);
        self.timeline.finish(at);
        self.usage = usage;
    }
}

/// The step in which a message was due.
fn step(steps: &mut [Step], due: Duration) -> Option<&mut Step> {
    let begun = steps.partition_point(|step| step.from <= due);
    steps[..begun].last_mut()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn each_outcome_counts_in_its_step_and_its_second_and_only_what_is_verified_and_warm_is_timed() {
        let steps = vec![Step::new(ms(0), 1.0), Step::new(ms(1000), 2.0)];
        let mut tally = Tally::new(steps, ms(500));
        for (due, late, sent, back) in [(499, 0, 499, 900), (600, 10, 660, 700), (1000, 1, 1001, 1004)] {
            tally.sent(ms(due), ms(late));
            tally.verified(&Moments { due: ms(due), sent: ms(sent), back: ms(back) }, ms(back - sent));
        }
        tally.wrong(ms(1500));
        tally.lost(ms(1999), Some(ms(1999)), Lost::Unsent);
        assert_eq!((tally.due(), tally.verified, tally.wrong, tally.lost, tally.lost_by.unsent), (5, 3, 1, 1, 1));
        assert_eq!([0, 1].map(|step| (tally.steps[step].due(), tally.steps[step].verified)), [(2, 2), (3, 1)]);
        assert_eq!(tally.timeline.rows.iter().map(|row| row.due()).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(tally.response.extremes(), Some((ms(4), ms(100))));
        assert_eq!(tally.round_trip.extremes(), Some((ms(3), ms(40))));
        assert_eq!(tally.late.extremes(), Some((ms(1), ms(10))));
        assert_eq!(tally.steps[1].response.histogram().len(), 1);
    }

    #[test]
    fn without_a_rate_there_is_no_response_and_the_timeline_has_round_trips() {
        let mut tally = Tally::default();
        tally.verified(&Moments { back: ms(9), ..Moments::default() }, ms(7));
        assert_eq!((tally.response.histogram().len(), tally.round_trip.histogram().len()), (0, 1));
        assert_eq!(tally.timeline.rows[0].times.extremes(), Some((ms(7), ms(7))));
    }

    #[test]
    fn an_echo_that_is_taken_back_is_wrong_instead_everywhere() {
        let mut tally = Tally::new(vec![Step::new(ms(0), 1.0)], ms(0));
        tally.verified(&Moments { back: ms(1), ..Moments::default() }, ms(1));
        tally.take_back(ms(0));
        assert_eq!((tally.due(), tally.verified, tally.wrong), (1, 0, 1));
        assert_eq!((tally.steps[0].verified, tally.steps[0].wrong), (0, 1));
        assert_eq!((tally.timeline.rows[0].verified, tally.timeline.rows[0].wrong), (0, 1));
    }

    #[test]
    fn a_connect_that_never_left_this_machine_is_no_outage() {
        let mut tally = Tally::default();
        tally.not_connected(ms(1), NotConnected::Local);
        tally.finish(ms(2), Usage::default());
        assert_eq!((tally.outages.count, tally.local_failures), (0, 1));
        tally.not_connected(ms(3), NotConnected::Refused);
        tally.not_connected(ms(4), NotConnected::Unanswered);
        tally.finish(ms(5), Usage::default());
        assert_eq!((tally.outages.count, tally.connections.refused, tally.connections.unanswered), (1, 1, 1));
    }

    #[test]
    fn an_address_that_is_passed_over_counts_and_is_no_outage() {
        let mut tally = Tally::default();
        for why in [NotConnected::Refused, NotConnected::Unanswered, NotConnected::Local] {
            tally.passed_over(why);
        }
        tally.finish(ms(2), Usage::default());
        assert_eq!((tally.connections.refused, tally.connections.unanswered, tally.local_failures), (1, 1, 1));
        assert_eq!(tally.outages.count, 0);
    }
}
