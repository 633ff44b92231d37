//! The echo that lies on purpose, so that one can watch what a fault does to a client and to the server.
//!
//! Relies on the connection for all that follows a fault: the reset and the record of a crash, the clean end of an early close.
//! While no fault is on, the plain `Echo` serves.

use crate::{
    logging::contained,
    server::{connection::socket::Socket, echo::Echo, service::Service},
    settings::FaultSettings,
};
use futures_util::future::Either;
use slog::Logger;
use std::{
    io,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::sleep,
};

/// [`Echo`], with the faults that its settings ask for: an echo comes late, has a wrong byte, or does not come, because the
/// connection ends or panics.
///
/// A connection looks once, when its service begins. If no fault is on, it costs what `Echo` costs. Otherwise it holds a buffer of
/// 4 KiB and goes by messages: a message is a line with its `\n`. Each is held back for `delay`, one after another. A line longer than
/// the buffer meets its fault at its beginning, and the rest is echoed as it comes.
///
/// The shares hold for the messages of all connections together, and to the message: with 0.25 the fault comes at every fourth one. A
/// fault that meets another one moves to the next message.
///
/// | fault | what the client sees | close reason |
/// |---|---|---|
/// | `wrong` | an echo whose first byte differs | |
/// | `close` | a clean end in place of the echo | `client`, as after a conversation that is over |
/// | `crash` | a reset in place of the echo | `crashed` |
///
/// With `ask` a line that is exactly `fault: crash`, `fault: close`, `fault: wrong` or `fault: delay 2s` (60 s at most) meets that
/// fault. It does not count for the shares.
///
/// ```
/// use std::sync::Arc;
/// use supervised_echo::{FaultyEcho, Server, Settings, slog};
///
/// # actix::System::new().block_on(async {
/// let mut settings = Settings::default();
/// settings.listen.address = ([127, 0, 0, 1], 0).into();
/// settings.fault.wrong = 0.25;
/// let log = slog::Logger::root(slog::Discard, slog::o!());
/// let echo = Arc::new(FaultyEcho::new(&settings.fault, log));
/// let server = Server::bind(settings.clone(), echo.clone())?;
/// settings.fault.wrong = 0.0;
/// echo.set(&settings.fault); // for connections from then on
/// # Ok::<(), supervised_echo::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct FaultyEcho {
    /// `None` while no fault is on.
    faults: RwLock<Option<Arc<Faults>>>,
    log: Logger,
}

impl FaultyEcho {
    /// An echo with these faults. If any is on, `log` warns of it.
    pub fn new(settings: &FaultSettings, log: Logger) -> Self {
        let echo = Self { faults: RwLock::default(), log: contained(log) };
        echo.set(settings);
        echo
    }

    /// Connections from now on meet these faults, whose shares begin anew. If any is on, the log warns of it.
    pub fn set(&self, settings: &FaultSettings) {
        let FaultSettings { delay, wrong, close, crash, ask } = *settings;
        let on = *settings != FaultSettings::default();
        if on {
            slog::warn!(self.log, "faults on purpose"; "delay_ms" => delay.as_millis() as u64, "wrong" => wrong,
                "close" => close, "crash" => crash, "ask" => ask);
        }
        let schedule = Mutex::new(Schedule::new([crash, close, wrong]));
        let faults = on.then(|| Arc::new(Faults { delay, ask, schedule }));
        *self.faults.write().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    fn faults(&self) -> Option<Arc<Faults>> {
        self.faults.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Service for FaultyEcho {
    fn serve(&self, socket: &mut Socket) -> impl Future<Output = io::Result<()>> {
        match self.faults() {
            None => Either::Left(Echo.serve(socket)),
            // Boxed, because it is rare: the task of a plain echo keeps no room for it.
            Some(faults) => Either::Right(Box::pin(async move { faults.serve(socket).await })),
        }
    }
}

/// The size of the buffer of a connection with faults.
const BUFFER: usize = 4096;
/// The longest delay that a client may ask for. A client that goes meanwhile keeps its slot until the delay is over.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// The faults that are on.
#[derive(Debug)]
struct Faults {
    delay: Duration,
    ask: bool,
    schedule: Mutex<Schedule>,
}

impl Faults {
    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        let (mut bytes, mut within_line) = (Vec::with_capacity(BUFFER), false);
        loop {
            while let Some(n) = next_piece(&bytes, within_line) {
                let is_new = !within_line;
                within_line = bytes[n - 1] != b'\n';
                if is_new {
                    rest(self.delay).await;
                    let fault = self.of(&bytes[..n]);
                    if let Some(fault) = fault {
                        slog::debug!(socket.log(), "fault"; "kind" => fault.as_str());
                    }
                    match fault {
                        None => {}
                        Some(Fault::Delay(delay)) => rest(delay).await,
                        Some(Fault::Wrong) => bytes[0] ^= 0x20, // a letter changes its case
                        Some(Fault::Close) => return Ok(()),
                        Some(Fault::Crash) => panic!("a crash on purpose, as the settings [fault] allow"),
                    }
                }
                socket.write_all(&bytes[..n]).await?;
                bytes.drain(..n);
            }
            // There is room: a full buffer is a piece.
            if socket.read_buf(&mut bytes).await? == 0 {
                return socket.write_all(&bytes).await; // a line without its end is no message
            }
        }
    }

    /// The fault that this message meets.
    fn of(&self, message: &[u8]) -> Option<Fault> {
        let asked = if self.ask { asked(message) } else { None };
        asked.or_else(|| self.schedule.lock().unwrap_or_else(PoisonError::into_inner).next())
    }
}

/// A timer would take a millisecond even where no rest is due.
async fn rest(duration: Duration) {
    if !duration.is_zero() {
        sleep(duration).await;
    }
}

/// How many of these bytes are echoed next: a line, or a part of one that is too long. `None` if more must come first.
fn next_piece(bytes: &[u8], within_line: bool) -> Option<usize> {
    let line = bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
    line.or_else(|| (bytes.len() >= BUFFER || within_line && !bytes.is_empty()).then_some(bytes.len()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Delay(Duration),
    Wrong,
    Close,
    Crash,
}

impl Fault {
    fn as_str(self) -> &'static str {
        match self {
            Self::Delay(_) => "delay",
            Self::Wrong => "wrong",
            Self::Close => "close",
            Self::Crash => "crash",
        }
    }
}

/// The fault that a message asks for.
fn asked(message: &[u8]) -> Option<Fault> {
    let line = str::from_utf8(message).ok()?.strip_suffix('\n')?;
    match line.strip_suffix('\r').unwrap_or(line).strip_prefix("fault: ")? {
        "crash" => Some(Fault::Crash),
        "close" => Some(Fault::Close),
        "wrong" => Some(Fault::Wrong),
        other => {
            let delay = humantime::parse_duration(other.strip_prefix("delay ")?).ok()?;
            (delay <= LONGEST_DELAY).then_some(Fault::Delay(delay))
        }
    }
}

/// Which message meets which fault. Each message adds the fault's share, and a whole one is due, as Bresenham draws a line.
#[derive(Debug)]
struct Schedule {
    /// Of a crash, an early close and a wrong byte; in millionths.
    shares: [u64; 3],
    /// What has come together and was not met, in millionths.
    owed: [u64; 3],
}

impl Schedule {
    const WHOLE: u64 = 1_000_000;

    fn new(shares: [f64; 3]) -> Self {
        let millionths = |share: f64| (share.clamp(0.0, 1.0) * Self::WHOLE as f64).round() as u64;
        Self { shares: shares.map(millionths), owed: [0; 3] }
    }

    fn next(&mut self) -> Option<Fault> {
        self.owed.iter_mut().zip(self.shares).for_each(|(owed, share)| *owed += share);
        // The one that is owed most, so that none comes later than at the next message that is due.
        let due = (0..self.owed.len()).rev().max_by_key(|&kind| self.owed[kind])?;
        if self.owed[due] < Self::WHOLE {
            return None;
        }
        self.owed[due] -= Self::WHOLE;
        Some([Fault::Crash, Fault::Close, Fault::Wrong][due])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// How often each fault comes in so many messages.
    fn counts(mut schedule: Schedule, messages: u64) -> [u64; 3] {
        let met: Vec<_> = (0..messages).filter_map(|_| schedule.next()).collect();
        [Fault::Crash, Fault::Close, Fault::Wrong].map(|fault| met.iter().filter(|met| **met == fault).count() as u64)
    }

    fn millionths(shares: [u64; 3]) -> Schedule {
        Schedule::new(shares.map(|share| share as f64 / Schedule::WHOLE as f64))
    }

    #[test]
    fn a_quarter_is_every_fourth_message() {
        let mut schedule = Schedule::new([0.0, 0.25, 0.0]);
        let met: Vec<_> = (1..=12).filter(|_| schedule.next().is_some()).collect();
        assert_eq!(met, [4, 8, 12]);
        assert_eq!(counts(Schedule::new([0.0, 0.0, 1.0]), 100), [0, 0, 100]);
        assert_eq!(counts(Schedule::new([f64::NAN, -1.0, 0.0]), 100), [0; 3]);
    }

    #[test]
    fn faults_that_meet_come_one_after_another() {
        let mut schedule = Schedule::new([0.25; 3]);
        let met: Vec<_> = (1..=8).map(|_| schedule.next()).collect();
        let [crash, close, wrong] = [Fault::Crash, Fault::Close, Fault::Wrong].map(Some);
        assert_eq!(met, [None, None, None, crash, close, wrong, None, crash]);
    }

    proptest! {
        #[test]
        fn a_share_of_all_messages_meets_its_fault(share in 0..=Schedule::WHOLE, kind in 0..3usize, messages in 0..5000u64) {
            let (mut shares, mut expected) = ([0; 3], [0; 3]);
            (shares[kind], expected[kind]) = (share, messages * share / Schedule::WHOLE);
            prop_assert_eq!(counts(millionths(shares), messages), expected);
        }

        #[test]
        fn shares_of_no_more_than_the_whole_all_come_and_hardly_late(
            parts in prop::array::uniform4(1..1000u64), messages in 0..5000u64,
        ) {
            let all: u64 = parts.iter().sum();
            let shares = [0, 1, 2].map(|kind| parts[kind] * Schedule::WHOLE / all);
            let met = counts(millionths(shares), messages);
            for (share, met) in shares.into_iter().zip(met) {
                let due = messages * share / Schedule::WHOLE;
                prop_assert!(met <= due && due <= met + 1, "{met} of {due}");
            }
        }

        #[test]
        fn every_byte_is_in_one_piece_and_no_piece_is_longer_than_the_buffer(
            lines in prop::collection::vec(0..3 * BUFFER, 0..4), cuts in prop::collection::vec(1..2000usize, 1..5),
        ) {
            let sent: Vec<u8> = lines.iter().flat_map(|length| [vec![b'x'; *length], vec![b'\n']].concat()).collect();
            let (mut rest, mut bytes, mut within_line, mut begun, mut echoed) = (&sent[..], Vec::new(), false, 0, 0);
            for cut in cuts.iter().cycle() {
                while let Some(n) = next_piece(&bytes, within_line) {
                    begun += usize::from(!within_line);
                    within_line = bytes[n - 1] != b'\n';
                    bytes.drain(..n);
                    echoed += n;
                }
                if rest.is_empty() {
                    break;
                }
                prop_assert!(bytes.len() < BUFFER);
                let (read, later) = rest.split_at((*cut).min(BUFFER - bytes.len()).min(rest.len()));
                bytes.extend(read);
                rest = later;
            }
            prop_assert_eq!((echoed, begun, bytes.len()), (sent.len(), lines.len(), 0));
        }
    }

    #[test]
    fn a_message_asks_for_a_fault_by_the_exact_line() {
        for (line, fault) in [
            ("fault: crash\n", Fault::Crash),
            ("fault: crash\r\n", Fault::Crash),
            ("fault: close\n", Fault::Close),
            ("fault: wrong\n", Fault::Wrong),
            ("fault: delay 2s\n", Fault::Delay(Duration::from_secs(2))),
            ("fault: delay 1m\n", Fault::Delay(LONGEST_DELAY)),
        ] {
            assert_eq!(asked(line.as_bytes()), Some(fault), "{line:?}");
        }
        for line in [
            "fault: crash",
            "fault: crash \n",
            " fault: crash\n",
            "Fault: crash\n",
            "fault:crash\n",
            "fault: delay\n",
            "fault: delay 2\n",
            "fault: delay 61s\n",
            "fault: delay 99999999999999999999s\n",
            "\n",
            "",
        ] {
            assert_eq!(asked(line.as_bytes()), None, "{line:?}");
        }
        assert_eq!(asked(b"fault: crash\xff\n"), None);
    }
}
