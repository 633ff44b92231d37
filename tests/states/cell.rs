//! The table: every state of a client × every state of its connection × how the client goes × the event after that.
//!
//! Which cells there are, and how the connection of each must end, follows from the rules alone. How a cell is played is in
//! `play`.

use std::{fmt, time::Duration};
use supervised_echo::{CloseReason, CloseReason::*, Settings};

/// A client that is owed bytes and has acknowledged nothing for this long counts as gone. This is the bound of "A slot
/// always comes back".
pub const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// How much longer it may take until the server has noticed.
pub const MARGIN: Duration = Duration::from_secs(10);
/// How long a paused reader pauses. The kernel probes its closed window more and more rarely: the probe after the one at 50 s comes
/// 50 s later. Between the two the last acknowledgement of a healthy reader is older than `UNACKNOWLEDGED`.
pub const PAUSE: Duration = Duration::from_secs(100);
/// How long a stop waits for a last word, in cells of other places than that.
pub const LAST_WORD: Duration = Duration::from_millis(100);
/// How long an event may take to come on a busy machine.
pub const PROMPT: Duration = Duration::from_secs(5);
/// The idle timeout, in cells where it elapses.
pub const IDLE: Duration = Duration::from_millis(700);
/// `linger`, in cells where nothing else ends the connection.
const LINGER: Duration = Duration::from_millis(700);
/// The deadline of a stop, in cells where the stop reaches it.
pub const DEADLINE: Duration = Duration::from_secs(2);
const NEVER: Duration = Duration::from_secs(3600);

/// How much a client has sent. The measure is how far its echo has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sent {
    Nothing,
    /// The client's kernel has room for all of the echo.
    Little,
    /// The client's kernel has no room for all of it, and the server's kernel holds the rest.
    Some,
    /// Neither kernel has room: the server is blocked in writing, and bytes that it has not read lie in its kernel.
    Much,
    /// The server's kernel has no room for unread bytes either. The rest, and a FIN, are still in the client's kernel.
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
    /// Its process dies, and the kernel closes the socket: by a reset if bytes are unread, otherwise by FIN.
    IsKilled,
    /// It sends no packet any more.
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
    /// A stop has been ordered, and the client's last word is waited for.
    LastWord,
    /// A stop has been ordered, and the service still has something to write.
    Draining,
    /// The server's FIN is sent, because the client has ended its input.
    ClosingByClient,
    /// The server's FIN is sent, because of a stop.
    ClosingByStop,
    /// The server's FIN is sent, because of the idle timeout.
    ClosingByIdle,
}

/// What happens after the client has gone, or while it stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Nothing,
    /// `Handle::stop`, also when a stop is under way.
    Stop,
    /// A stop that reaches its deadline.
    Abort,
    /// So much time passes that an idle timeout elapses, if one is set.
    Idle,
    /// The client does nothing for far longer than `UNACKNOWLEDGED`.
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
    /// How long a stop waits for a last word, in other places than that.
    pub last_word: Duration,
}

/// How a connection must end.
#[derive(Debug)]
pub struct Expected {
    /// Its close reason is one of these. There is more than one only where a stop and the client's own FIN come together.
    pub reasons: Vec<CloseReason>,
    pub within: Duration,
    /// Whether a client that stays sees a clean end; `None` if the client cannot tell.
    pub clean: Option<bool>,
}

impl Cell {
    pub fn all() -> impl Iterator<Item = Self> {
        use Place::*;
        let mut cells = Vec::new();
        for place in
            [Backlog, Waiting, Serving, Timed, LastWord, Draining, ClosingByClient, ClosingByStop, ClosingByIdle]
        {
            for sent in [Sent::Nothing, Sent::Little, Sent::Some, Sent::Much, Sent::TooMuch] {
                for reads in [Reads::All, Reads::Nothing, Reads::Slowly] {
                    for half_closed in [false, true] {
                        for goes in [Goes::Stays, Goes::Resets, Goes::IsKilled, Goes::Vanishes] {
                            for event in [Event::Nothing, Event::Stop, Event::Abort, Event::Idle, Event::Pause] {
                                let last_word = Duration::ZERO;
                                cells.push(Self { place, sent, reads, half_closed, goes, event, last_word });
                            }
                        }
                    }
                }
            }
        }
        cells.into_iter()
    }

    /// An error says why there can be no such cell.
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
        // Where its connection can stand after that.
        match self.place {
            Backlog | Waiting if self.sent > Sent::Nothing && self.reads != Reads::Nothing => {
                return no("nothing is echoed to a client without a slot");
            }
            Backlog | Waiting if matches!(self.sent, Sent::Some | Sent::Much) => {
                return no("without an echo there is only what the server's kernel takes and what it does not");
            }
            LastWord if self.sent >= Sent::Much => return no("bytes are due"),
            Serving | Timed | LastWord if self.half_closed && self.sent < Sent::Much => {
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
            let waited_for = self.place == LastWord && self.event != Event::Abort;
            if !self.is_owed() && (waited_for || served_on && self.event == Event::Nothing) {
                return no("nothing is sent to it, so only keep-alive finds it, after 90 s");
            }
        }
        // What can happen after that.
        match self.event {
            Event::Idle if self.place == Serving => no("no idle timeout is set: see the place with one"),
            Event::Pause if self.goes != Goes::Stays => no("it has gone"),
            Event::Pause if self.reads == Reads::Slowly => no("it does not pause"),
            Event::Pause if self.place == ClosingByIdle => no("it is the idle timeout that bounds its pauses"),
            _ => Ok(()),
        }
    }

    /// Whether the connection ends without any event: everything is delivered, and the client has ended its input.
    pub fn ends_by_itself(&self) -> bool {
        use Place::*;
        self.half_closed
            && match self.place {
                Waiting => self.sent == Sent::Nothing,
                ClosingByClient | ClosingByStop | ClosingByIdle => self.sent <= Sent::Little,
                Backlog | Serving | Timed | LastWord | Draining => false,
            }
    }

    /// Whether its client ends its input only when the connection is in its place. Earlier it would bring the connection to another
    /// place.
    pub fn half_closes_late(&self) -> bool {
        self.half_closed && matches!(self.place, Place::ClosingByStop | Place::ClosingByIdle)
    }

    /// Whether the client has sent nothing but FIN, and is in the backlog.
    fn has_only_ended(&self) -> bool {
        self.place == Place::Backlog && self.sent == Sent::Nothing && self.half_closed
    }

    /// Whether a stop only has to deliver: the client has ended its input, and its kernel has room for the echo.
    fn ends_at_a_stop(&self) -> bool {
        self.half_closed && !self.has_slot() && self.sent <= Sent::Little
    }

    pub fn has_slot(&self) -> bool {
        !matches!(self.place, Place::Backlog | Place::Waiting)
    }

    /// Whether the server has bytes for the client that are not in the client's kernel. The server sends them without any event.
    fn is_owed(&self) -> bool {
        self.sent >= if self.has_slot() { Sent::Some } else { Sent::Little }
    }

    /// Whether bytes lie unread in the client's kernel.
    fn leaves_unread(&self) -> bool {
        self.has_slot() && self.reads != Reads::All && self.sent > Sent::Nothing
    }

    /// Whether a stop was ordered before the client goes.
    pub fn is_stopped_before(&self) -> bool {
        matches!(self.place, Place::LastWord | Place::Draining | Place::ClosingByStop)
    }

    pub fn is_stopped(&self) -> bool {
        self.is_stopped_before() || matches!(self.event, Event::Stop | Event::Abort)
    }

    /// Whether an idle timeout is set and ends the connection after the event.
    pub fn idle_ends_it(&self) -> bool {
        self.event == Event::Idle && matches!(self.place, Place::Timed | Place::ClosingByClient | Place::ClosingByIdle)
    }

    /// Whether the client stays, and after the event reads all that still comes, and ends.
    pub fn resumes(&self) -> bool {
        self.goes == Goes::Stays && self.event != Event::Abort && !self.idle_ends_it()
    }

    /// The close reason of a clean end in this place.
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
            // The client has reset it. After the client's FIN no read tells of that, and the slot still comes back at once ("A slot
            // always comes back"). A client that is killed with bytes unread also sends a reset.
            Goes::Resets => expected(Reset, PROMPT),
            Goes::IsKilled if self.leaves_unread() => expected(Reset, PROMPT),
            // Its FIN comes after what it has sent, and a waiter that has sent something keeps its place ("Exact cap"). When the
            // echo is sent, the client's kernel answers with a reset.
            Goes::IsKilled if !self.has_slot() && self.sent > Sent::Nothing => expected(Reset, PROMPT),
            // It sends only a FIN, and everything is delivered. The end is clean, whether the stop or the FIN comes first.
            Goes::IsKilled => {
                let before = if self.place == Place::ClosingByIdle { Idle } else { Client };
                let crosses = self.is_stopped() && !self.is_stopped_before();
                let first = crosses.then_some(before).into_iter();
                Expected { reasons: first.chain([self.end()]).collect(), ..expected(self.end(), PROMPT) }
            }
            // The same holds for a client that has ended its input, and stays or vanishes. The server waits `linger` until its FIN
            // is acknowledged, and an idle timeout may be as short.
            _ if self.has_only_ended() => {
                let clean = (self.goes == Goes::Stays && self.resumes()).then_some(true);
                let second = if self.event == Event::Idle { Idle } else { self.end() };
                Expected { reasons: vec![Client, second], within: idle, clean }
            }
            // The deadline holds. Before it nothing ends a connection whose client is still waited for.
            Goes::Vanishes if self.event == Event::Abort => expected(Forced, DEADLINE + PROMPT),
            // Nothing moves, so an idle timeout ends it, whether it is owed bytes or not. After a stop the idle timeout does not
            // count.
            Goes::Vanishes if self.event == Event::Idle && !self.is_stopped() => expected(Idle, idle),
            Goes::Vanishes if self.place == Place::ClosingByIdle && !self.is_stopped() => expected(Idle, idle),
            // "A slot always comes back": a client that vanishes while it is owed bytes.
            Goes::Vanishes if self.is_owed() => expected(Reset, UNACKNOWLEDGED + MARGIN),
            // "Every stop is acknowledged": the client has had `linger` for its FIN.
            Goes::Vanishes => expected(self.end(), LINGER + PROMPT),
            // The deadline holds. A client that has seen FIN before does not notice.
            Goes::Stays if self.event == Event::Abort && self.ends_at_a_stop() => expected(Stopped, PROMPT),
            Goes::Stays if self.event == Event::Abort => expected(Forced, DEADLINE + PROMPT),
            // A client that reads slowly is not idle, and gets everything. After that it is idle, if it has not ended its input.
            Goes::Stays if self.idle_ends_it() => {
                let reason = if self.reads == Reads::Slowly && self.half_closed { Client } else { Idle };
                let clean = self.reads == Reads::Slowly || !self.is_owed();
                Expected { clean: Some(clean), ..expected(reason, idle + PROMPT) }
            }
            // It gets everything, then a clean end ("Half-close is kept"). A paused reader that answers window probes stays. No
            // idle timeout counts for a client that waits or is stopped.
            Goes::Stays => Expected { clean: Some(true), ..expected(self.end(), PROMPT) },
        }
    }

    /// Whether it takes longer than `UNACKNOWLEDGED`. All such cells are played at once.
    pub fn is_long(&self) -> bool {
        self.event == Event::Pause || self.expected().within > UNACKNOWLEDGED
    }

    /// Whether only the end of `linger` can end it.
    fn lingers_to_its_end(&self) -> bool {
        match self.goes {
            Goes::Vanishes => self.event != Event::Abort || self.has_only_ended(),
            Goes::Stays => self.idle_ends_it(),
            Goes::Resets | Goes::IsKilled => false,
        }
    }

    /// Whether the server has a second slot. The companion has it, and its end shows that the stop has reached the connections.
    pub fn has_second_slot(&self) -> bool {
        self.has_slot() && self.is_stopped()
    }

    /// The short idle timeout, if this cell has it.
    pub fn idle(&self) -> Option<Duration> {
        (self.event == Event::Idle || self.place == Place::ClosingByIdle).then_some(IDLE)
    }

    pub fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        settings.supervisor.workers = 1;
        settings.supervisor.max_connections = 1 + usize::from(self.has_second_slot());
        settings.supervisor.max_pending = usize::from(self.place == Place::Waiting);
        settings.supervisor.shutdown_timeout = if self.event == Event::Abort { DEADLINE } else { NEVER };
        settings.connection.last_word = if self.place == Place::LastWord { NEVER } else { self.last_word };
        settings.connection.linger = if self.lingers_to_its_end() { LINGER } else { NEVER };
        let idle = if self.place == Place::Timed { NEVER } else { Duration::ZERO };
        settings.connection.idle_timeout = self.idle().unwrap_or(idle);
        settings
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, sent, reads, half_closed, goes, event, last_word } = self;
        write!(f, "{place:?}: sent {sent:?}, read {reads:?}")?;
        if *half_closed {
            write!(f, ", half-closed")?;
        }
        write!(f, " / {goes:?} / event: {event:?}")?;
        if last_word.is_zero() { Ok(()) } else { write!(f, " / a last word has {last_word:?}") }
    }
}
