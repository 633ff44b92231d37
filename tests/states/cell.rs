//! The table: every state of a client × every state of its connection × how the client goes × what happens then.
//!
//! Which cells there are, and how the connection of each must end, follows from the rules alone. How a cell is played is in
//! `play`.

use std::{fmt, time::Duration};
use supervised_echo::{CloseReason, CloseReason::*, Settings};

/// A client that is owed bytes and has acknowledged nothing for this long counts as gone. This is the bound of "A slot
/// always comes back".
pub const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// How exact that is.
pub const MARGIN: Duration = Duration::from_secs(10);
/// How long a paused reader pauses. The kernel probes its closed window ever more rarely: the probe after 50 s comes 50 s
/// later, so that between them the last acknowledgement of a reader in good health is older than `UNACKNOWLEDGED`.
pub const PAUSE: Duration = Duration::from_secs(100);
/// How long anything may take that has an event of its own, on a busy machine.
pub const PROMPT: Duration = Duration::from_secs(5);
/// The idle timeout where it is to elapse.
pub const IDLE: Duration = Duration::from_millis(700);
/// `linger` where nothing else ends the connection.
const LINGER: Duration = Duration::from_millis(700);
/// The deadline of a stop that is to reach it.
pub const DEADLINE: Duration = Duration::from_secs(2);
const NEVER: Duration = Duration::from_secs(3600);

/// How much a client has sent, in terms of where its echo has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sent {
    Nothing,
    /// Its kernel has room for all of the echo.
    Little,
    /// Its kernel has not, but the server's kernel has for the rest.
    Some,
    /// Neither has: the server is blocked in writing, and bytes that it has not read lie in its kernel.
    Much,
    /// The server's kernel has no room for those either: the rest, and a FIN, are still in the client's.
    TooMuch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    All,
    Nothing,
    Slowly,
}

/// How the client goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goes {
    Stays,
    /// It closes with `SO_LINGER` 0.
    Resets,
    /// Its process dies. The kernel closes the socket: with a reset if there are bytes that it has not read, else with FIN.
    IsKilled,
    /// Not one packet of it comes any more.
    Vanishes,
}

/// Where its connection stands when it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Not accepted.
    Backlog,
    /// Accepted, without a slot.
    Waiting,
    Serving,
    /// Serving with an idle timeout that runs.
    Timed,
    /// A stop has been ordered, and the service still has something to write.
    Draining,
    /// The server's FIN is sent, because the client has ended its input.
    ClosingByClient,
    /// The server's FIN is sent, because of a stop.
    ClosingByStop,
    /// The server's FIN is sent, because of the idle timeout.
    ClosingByIdle,
}

/// What happens then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Nothing,
    /// `Handle::stop`, also when a stop is under way.
    Stop,
    /// A stop that reaches its deadline.
    Abort,
    /// The time passes in which an idle timeout may elapse.
    Idle,
    /// The client does nothing for far longer than a client may that is owed bytes and does not acknowledge.
    Pause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    pub place: Place,
    pub sent: Sent,
    pub reads: Reads,
    pub half_closed: bool,
    pub goes: Goes,
    pub event: Event,
}

/// How a connection must end.
#[derive(Debug)]
pub struct Expected {
    /// One of these is its close reason: more than one only where a stop crosses the client's own FIN.
    pub reasons: Vec<CloseReason>,
    pub within: Duration,
    /// Whether a client that stays sees a clean end, if it can see that.
    pub clean: Option<bool>,
}

impl Cell {
    pub fn all() -> impl Iterator<Item = Self> {
        use Place::*;
        let mut cells = Vec::new();
        for place in [Backlog, Waiting, Serving, Timed, Draining, ClosingByClient, ClosingByStop, ClosingByIdle] {
            for sent in [Sent::Nothing, Sent::Little, Sent::Some, Sent::Much, Sent::TooMuch] {
                for reads in [Reads::All, Reads::Nothing, Reads::Slowly] {
                    for half_closed in [false, true] {
                        for goes in [Goes::Stays, Goes::Resets, Goes::IsKilled, Goes::Vanishes] {
                            for event in [Event::Nothing, Event::Stop, Event::Abort, Event::Idle, Event::Pause] {
                                cells.push(Self { place, sent, reads, half_closed, goes, event });
                            }
                        }
                    }
                }
            }
        }
        cells.into_iter()
    }

    /// Why there is no such cell, if there is none.
    pub fn possible(&self) -> Result<(), &'static str> {
        use Place::*;
        let no = |why| Err(why);
        // What the client has done.
        match (self.sent, self.reads) {
            (Sent::Nothing, Reads::Nothing | Reads::Slowly) => return no("there is nothing to read"),
            (Sent::Little, Reads::Slowly) => return no("one read takes it all"),
            (Sent::Some | Sent::Much | Sent::TooMuch, Reads::All) => {
                return no("the echo does not pile up where all is read: that is the state after little");
            }
            _ => {}
        }
        // Where its connection can stand then.
        match self.place {
            Backlog | Waiting if self.sent > Sent::Nothing && self.reads != Reads::Nothing => {
                return no("nothing is echoed to a client without a slot");
            }
            Backlog | Waiting if matches!(self.sent, Sent::Some | Sent::Much) => {
                return no("without an echo there is only what the server's kernel takes and what it does not");
            }
            Serving | Timed if self.half_closed && self.sent < Sent::Much => {
                return no("the service has read the FIN and is done: the lingering close has begun");
            }
            Draining if self.sent < Sent::Much => {
                return no("everything due is written at once: the lingering close has begun");
            }
            ClosingByClient if !self.half_closed => return no("the client has not ended its input"),
            ClosingByClient | ClosingByStop | ClosingByIdle if self.sent >= Sent::Much => {
                return no("the service has still something to write");
            }
            ClosingByIdle if self.reads == Reads::Slowly => return no("as long as bytes move nothing is idle"),
            _ => {}
        }
        if self.ends_by_itself() && (self.goes, self.event) != (Goes::Stays, Event::Nothing) {
            return no("the connection has ended by itself before");
        }
        // How the client can go.
        if self.goes == Goes::Vanishes {
            if self.reads == Reads::Slowly {
                return no("one that vanishes reads no more: it is the same as one that reads nothing");
            }
            if self.sent == Sent::TooMuch {
                return no("its kernel would still send: it would not be silent");
            }
            let served_on = matches!(self.place, Backlog | Waiting | Serving | Timed) && !self.half_closed;
            if self.event == Event::Nothing && !self.is_owed() && served_on {
                return no("nothing is sent to it, so only keep-alive finds it, after 90 s");
            }
        }
        // What can happen then.
        match self.event {
            Event::Idle if self.place == Serving => no("no idle timeout is set: see the place with one"),
            Event::Pause if self.goes != Goes::Stays => no("it has gone"),
            Event::Pause if self.reads == Reads::Slowly => no("it does not pause"),
            Event::Pause if self.place == ClosingByIdle => no("it is the idle timeout that bounds its pauses"),
            _ => Ok(()),
        }
    }

    /// The connection does not stay in its state: everything is delivered, and the client has ended its input.
    pub fn ends_by_itself(&self) -> bool {
        use Place::*;
        self.half_closed
            && match self.place {
                Waiting => self.sent == Sent::Nothing,
                ClosingByClient | ClosingByStop | ClosingByIdle => self.sent <= Sent::Little,
                Backlog | Serving | Timed | Draining => false,
            }
    }

    /// Its client ends its input only when the connection has come to its place: before, that would have brought it to another.
    pub fn half_closes_late(&self) -> bool {
        self.half_closed && matches!(self.place, Place::ClosingByStop | Place::ClosingByIdle)
    }

    /// The client has said nothing and ended its input, and the server has not accepted it.
    fn has_only_ended(&self) -> bool {
        self.place == Place::Backlog && self.sent == Sent::Nothing && self.half_closed
    }

    /// A stop finds no more to do than to deliver: the client has ended its input, and its kernel has room for the echo.
    fn ends_at_a_stop(&self) -> bool {
        self.half_closed && !self.has_slot() && self.sent <= Sent::Little
    }

    pub fn has_slot(&self) -> bool {
        !matches!(self.place, Place::Backlog | Place::Waiting)
    }

    /// Whether the client's kernel lacks bytes that the server sends sooner or later, without any event.
    fn is_owed(&self) -> bool {
        self.sent >= if self.has_slot() { Sent::Some } else { Sent::Little }
    }

    /// Whether bytes lie unread in the client's kernel.
    fn leaves_unread(&self) -> bool {
        self.has_slot() && self.reads != Reads::All && self.sent > Sent::Nothing
    }

    /// A stop was ordered before the client goes.
    pub fn is_stopped_before(&self) -> bool {
        matches!(self.place, Place::Draining | Place::ClosingByStop)
    }

    pub fn is_stopped(&self) -> bool {
        self.is_stopped_before() || matches!(self.event, Event::Stop | Event::Abort)
    }

    /// An idle timeout is set, elapses after the event, and ends what is idle by then.
    pub fn idle_ends_it(&self) -> bool {
        self.event == Event::Idle && matches!(self.place, Place::Timed | Place::ClosingByClient | Place::ClosingByIdle)
    }

    /// A client that stays goes on after the event: it reads all that is still to come, and ends.
    pub fn resumes(&self) -> bool {
        self.goes == Goes::Stays && self.event != Event::Abort && !self.idle_ends_it()
    }

    /// What a clean end is called that nothing else outweighs.
    fn end(&self) -> CloseReason {
        match self.place {
            _ if self.is_stopped() => Stopped,
            Place::ClosingByIdle => Idle,
            _ => Client,
        }
    }

    pub fn expected(&self) -> Expected {
        let expected = |reason, within| Expected { reasons: vec![reason], within, clean: None };
        let idle = 3 * IDLE + LINGER + PROMPT;
        match self.goes {
            // Reason `reset`: the client has reset it. No read tells of that after its FIN, and the slot still comes back at
            // once ("A slot always comes back"). Where an end of the process is a reset, it is the same.
            Goes::Resets => expected(Reset, PROMPT),
            Goes::IsKilled if self.leaves_unread() => expected(Reset, PROMPT),
            // Its FIN is behind what it has sent, and a waiter that has sent something keeps its place ("Exact cap"). When
            // the echo is sent, the client's kernel answers it with a reset.
            Goes::IsKilled if !self.has_slot() && self.sent > Sent::Nothing => expected(Reset, PROMPT),
            // Only a FIN, and everything is delivered: a clean end, whichever of the two is first.
            Goes::IsKilled => {
                let before = if self.place == Place::ClosingByIdle { Idle } else { Client };
                let crosses = self.is_stopped() && !self.is_stopped_before();
                let first = crosses.then_some(before).into_iter();
                Expected { reasons: first.chain([self.end()]).collect(), ..expected(self.end(), PROMPT) }
            }
            // The same for one that has ended its input and stays or vanishes; the server's FIN has `linger` to be acknowledged, and
            // an idle timeout may be as short.
            _ if self.has_only_ended() => {
                let clean = (self.goes == Goes::Stays && self.resumes()).then_some(true);
                let second = if self.event == Event::Idle { Idle } else { self.end() };
                Expected { reasons: vec![Client, second], within: idle, clean }
            }
            // The deadline holds; before it nothing ends what is still waited for.
            Goes::Vanishes if self.event == Event::Abort => expected(Forced, DEADLINE + PROMPT),
            // Nothing moves: an idle timeout ends it, whether bytes are owed or not. Once it is stopped the idle timeout counts no
            // more.
            Goes::Vanishes if self.event == Event::Idle && !self.is_stopped() => expected(Idle, idle),
            Goes::Vanishes if self.place == Place::ClosingByIdle && !self.is_stopped() => expected(Idle, idle),
            // "A slot always comes back": a client that vanishes while it is owed bytes.
            Goes::Vanishes if self.is_owed() => expected(Reset, UNACKNOWLEDGED + MARGIN),
            // "Every stop is acknowledged": the client has had `linger` for its FIN.
            Goes::Vanishes => expected(self.end(), LINGER + PROMPT),
            // The deadline holds. What the client sees of it depends on whether it has seen a FIN before.
            Goes::Stays if self.event == Event::Abort && self.ends_at_a_stop() => expected(Stopped, PROMPT),
            Goes::Stays if self.event == Event::Abort => expected(Forced, DEADLINE + PROMPT),
            // One that reads slowly is not idle, and gets everything. Only then it is idle, if it has not ended.
            Goes::Stays if self.idle_ends_it() => {
                let reason = if self.reads == Reads::Slowly && self.half_closed { Client } else { Idle };
                let clean = self.reads == Reads::Slowly || !self.is_owed();
                Expected { clean: Some(clean), ..expected(reason, idle + PROMPT) }
            }
            // It gets everything, then a clean end ("Half-close is kept"). A paused reader that answers window probes stays,
            // and no idle timeout counts for one that waits or is stopped.
            Goes::Stays => Expected { clean: Some(true), ..expected(self.end(), PROMPT) },
        }
    }

    /// Whether its event takes longer than a test should.
    pub fn is_long(&self) -> bool {
        self.event == Event::Pause || self.expected().within > UNACKNOWLEDGED
    }

    /// Whether the only end that is left for it is that `linger` has passed.
    fn lingers_to_its_end(&self) -> bool {
        match self.goes {
            Goes::Vanishes => self.event != Event::Abort || self.has_only_ended(),
            Goes::Stays => self.idle_ends_it(),
            Goes::Resets | Goes::IsKilled => false,
        }
    }

    /// A second slot: for somebody by whose end it shows that the stop has reached the connections.
    pub fn has_second_slot(&self) -> bool {
        self.has_slot() && self.is_stopped()
    }

    /// The idle timeout, if one is to elapse.
    pub fn idle(&self) -> Option<Duration> {
        (self.event == Event::Idle || self.place == Place::ClosingByIdle).then_some(IDLE)
    }

    pub fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        settings.supervisor.workers = 1;
        settings.supervisor.max_connections = 1 + usize::from(self.has_second_slot());
        settings.supervisor.max_pending = usize::from(self.place == Place::Waiting);
        settings.supervisor.shutdown_timeout = if self.event == Event::Abort { DEADLINE } else { NEVER };
        settings.connection.linger = if self.lingers_to_its_end() { LINGER } else { NEVER };
        let idle = if self.place == Place::Timed { NEVER } else { Duration::ZERO };
        settings.connection.idle_timeout = self.idle().unwrap_or(idle);
        settings
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, sent, reads, half_closed, goes, event } = self;
        write!(f, "{place:?}: sent {sent:?}, read {reads:?}")?;
        if *half_closed {
            write!(f, ", half-closed")?;
        }
        write!(f, " / {goes:?} / event: {event:?}")
    }
}
