//! How a cell is played: its client and its connection are brought into their state. Then the client goes, and the event comes.
//!
//! No state is reached by waiting for a time. It is reached when the kernel or the log says so. A state may last only as long as a
//! timeout. If it was over too early, the cell has proved nothing and is played again.

use crate::{
    cell::{Cell, DEADLINE, Event, Expected, Goes, IDLE, PAUSE, PROMPT, Place, Reads, Sent},
    house::{House, Told},
    kernel::{self, FIN_WAIT_1, FIN_WAIT_2, LAST_ACK, Seen, Served},
};
use socket2::{Domain, SockRef, Socket, Type};
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};
use supervised_echo::CloseReason::{self, Client as ByClient, Stopped};

/// `Sent::Little` and `Sent::Some` in bytes.
const LITTLE: u64 = 2_000;
const SOME: u64 = 40_000;
/// The time between two pieces of a client that reads slowly.
const PACE: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub enum Failed {
    /// The state was over before the test got to it.
    TooLate(&'static str),
    Wrong(String),
}

type Played<T = ()> = Result<T, Failed>;

fn wrong<T>(what: impl Into<String>) -> Played<T> {
    Err(Failed::Wrong(what.into()))
}

/// Looks again and again until it is so. This is for what has no event to wait for.
fn until<T>(what: &str, within: Duration, mut look: impl FnMut() -> Played<Option<T>>) -> Played<T> {
    let begin = Instant::now();
    let mut pause = Duration::from_micros(100);
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if begin.elapsed() > within {
            return wrong(format!("not within {within:?}: {what}"));
        }
        thread::sleep(pause);
        pause = Duration::from_millis(5).min(pause * 2);
    }
}

/// The bytes that a client sends from this offset on. Their period divides no buffer's size, so a lost or doubled piece shows.
pub fn pattern(from: u64, length: usize) -> Vec<u8> {
    (0..=250).cycle().skip((from % 251) as usize).take(length).collect()
}

pub struct Client {
    pub stream: TcpStream,
    pub name: SocketAddr,
    pub sent: u64,
    pub got: u64,
    /// How its input has ended, if it has.
    pub end: Option<io::Result<()>>,
    last_read: Instant,
}

impl Client {
    /// A client with a small receive buffer.
    pub fn connect(server: SocketAddr) -> Self {
        Self::try_connect(server).expect("it listens")
    }

    /// `None` if it is refused.
    pub fn try_connect(server: SocketAddr) -> Option<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.set_send_buffer_size(16 * 1024).unwrap();
        match socket.connect_timeout(&server.into(), Duration::from_secs(30)) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return None,
            connected => connected.unwrap(),
        }
        socket.set_nonblocking(true).unwrap();
        let stream = TcpStream::from(socket);
        let name = stream.local_addr().unwrap();
        Some(Self { stream, name, sent: 0, got: 0, end: None, last_read: Instant::now() })
    }

    /// Sends as much as the kernel takes, up to this much in all. True when all of it is sent.
    pub fn send(&mut self, up_to: u64) -> Played<bool> {
        while self.sent < up_to {
            let piece = pattern(self.sent, (up_to - self.sent).min(8 * 1024) as usize);
            match (&self.stream).write(&piece) {
                Ok(n) => self.sent += n as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return wrong(format!("the client cannot send: {error}")),
            }
        }
        Ok(true)
    }

    /// Reads what is there, up to this much. True when its input has ended.
    pub fn read(&mut self, mut most: usize) -> Played<bool> {
        let mut buffer = [0; 16 * 1024];
        while self.end.is_none() && most > 0 {
            let piece = most.min(buffer.len());
            match (&self.stream).read(&mut buffer[..piece]) {
                Ok(0) => self.end = Some(Ok(())),
                Ok(n) => {
                    if buffer[..n] != pattern(self.got, n) {
                        return wrong(format!("wrong echo after {} bytes", self.got));
                    }
                    self.got += n as u64;
                    most -= n;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => self.end = Some(Err(error)),
            }
        }
        Ok(self.end.is_some())
    }

    /// Reads a piece if it is time for one. This many pieces make all that was sent.
    fn read_slowly(&mut self, pieces: u64) -> Played<bool> {
        if self.last_read.elapsed() >= PACE {
            self.last_read = Instant::now();
            return self.read((self.sent / pieces).max(1) as usize);
        }
        Ok(self.end.is_some())
    }

    pub fn shut(&self) {
        let _ = self.stream.shutdown(Shutdown::Write); // it fails if the connection is reset already
    }

    /// Whether its kernel has bytes to send, and the server's kernel has no room for them.
    fn is_stuck(&self) -> bool {
        let unsent = kernel::unsent(&self.stream);
        unsent > 0 && unsent == kernel::unacknowledged(&self.stream)
    }
}

/// Another client. It has the slot that the client of the cell waits for, or a second slot. When its input ends, a stop has reached
/// the connections.
struct Companion {
    stream: TcpStream,
    busy: Instant,
}

struct Play<'a> {
    cell: &'a Cell,
    house: House,
    client: Client,
    companion: Option<Companion>,
    begin: Instant,
    stopped_at: Option<Instant>,
}

/// Plays a cell to its end.
pub fn play(cell: &Cell) -> Played {
    let house = House::start(cell.settings());
    let before = (!cell.has_slot()).then(|| Companion::enter(&house)).transpose()?;
    let client = Client::connect(house.address);
    let mut play = Play { cell, house, client, companion: before, begin: Instant::now(), stopped_at: None };
    play.reach_the_state()?;
    let expected = cell.expected();
    if !cell.ends_by_itself() {
        play.go()?;
        play.happen(&expected)?;
        if cell.resumes() {
            play.resume(&expected)?;
        }
    }
    let close = play.closed(&expected)?;
    play.check(&expected, &close)?;
    play.finish(&expected)
}

impl Companion {
    fn enter(house: &House) -> Played<Self> {
        let stream = TcpStream::connect(house.address).unwrap();
        stream.set_read_timeout(Some(PROMPT)).unwrap();
        let name = stream.local_addr().unwrap();
        until("the companion is served", PROMPT, || Ok(house.log.of("connection opened", name)))?;
        Ok(Self { stream, busy: Instant::now() })
    }

    fn round_trip(&mut self) -> io::Result<()> {
        self.stream.write_all(b"?").and_then(|()| self.stream.read_exact(&mut [0]))
    }

    /// Sends a byte and reads its echo now and then, so that it is not idle. On a busy machine this may come too late.
    fn keep_busy(&mut self) -> Played {
        let idle = self.busy.elapsed();
        if idle > IDLE / 4 {
            self.busy = Instant::now();
            return match self.round_trip() {
                Err(_) if idle > IDLE * 3 / 4 => Err(Failed::TooLate("the companion was idle for too long")),
                Err(error) => wrong(format!("the companion is not echoed: {error}")),
                Ok(()) => Ok(()),
            };
        }
        Ok(())
    }

    /// Talks until its input ends, so that no stop waits for its last word.
    fn wait_until_stopped(&mut self) -> Played {
        loop {
            match self.round_trip() {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return wrong(format!("the companion is not stopped: {error}")),
            }
        }
    }
}

impl Play<'_> {
    /// Does what goes on beside everything else: slow reading, and a companion that is not idle.
    fn tick(&mut self) -> Played {
        if self.cell.reads == Reads::Slowly && self.client.got > 0 {
            // Pieces for three seconds, or for far longer than the deadline of a stop.
            self.client.read_slowly(if self.cell.event == Event::Abort { 2000 } else { 150 })?;
        }
        if self.stopped_at.is_none() && self.cell.idle().is_some() {
            self.companion.as_mut().map_or(Ok(()), Companion::keep_busy)?;
        }
        Ok(())
    }

    fn until(&mut self, what: &str, within: Duration, mut look: impl FnMut(&mut Self) -> Played<bool>) -> Played {
        until(what, within, || {
            self.tick()?;
            Ok(look(self)?.then_some(()))
        })
    }

    fn close(&self) -> Option<Told> {
        self.house.log.of("connection closed", self.client.name)
    }

    fn must_be_open(&self, when: &str) -> Played {
        if self.close().is_some() { self.closed_early(when) } else { Ok(()) }
    }

    /// The connection is closed before the cell wants it. That is wrong, unless a timeout may have done it.
    fn closed_early<T>(&self, when: &str) -> Played<T> {
        self.in_time()?;
        wrong(format!("closed {when}: {:?}", self.close()))
    }

    // The state.

    fn reach_the_state(&mut self) -> Played {
        let (cell, name) = (self.cell, self.client.name);
        if !cell.has_slot() {
            self.reach_the_state_without_a_slot()?;
        } else {
            self.until("it is served", PROMPT, |play| Ok(play.house.log.of("connection opened", name).is_some()))?;
            let Some(served) = kernel::served(self.house.address, name) else { return wrong("no socket of it") };
            if cell.has_second_slot() {
                self.companion = Some(Companion::enter(&self.house)?);
            }
            self.talk(served)?;
            self.reach_the_place(served)?;
            if cell.half_closes_late() {
                self.client.shut();
                if !cell.ends_by_itself() {
                    let arrived = |play: &mut Self| Ok(kernel::state(&play.client.stream) == FIN_WAIT_2);
                    self.until("the FIN has arrived", PROMPT, arrived)?;
                }
            }
        }
        if cell.ends_by_itself() { Ok(()) } else { self.must_be_open("before the client went") }
    }

    fn reach_the_state_without_a_slot(&mut self) -> Played {
        let (cell, name) = (self.cell, self.client.name);
        if cell.place == Place::Backlog {
            self.until("it is in the backlog", PROMPT, |play| Ok(kernel::backlog(play.house.listener) == 1))?;
        } else {
            self.until("it waits", PROMPT, |play| Ok(play.house.log.of("connection waiting", name).is_some()))?;
        }
        match cell.sent {
            Sent::TooMuch => self.until("the client is stuck", PROMPT, |play| {
                Ok(!play.client.send(u64::MAX)? && play.client.is_stuck())
            })?,
            Sent::Little => assert!(self.client.send(LITTLE)?),
            _ => {}
        }
        if cell.half_closed {
            self.client.shut();
        }
        if cell.sent < Sent::TooMuch {
            self.until("all has arrived", PROMPT, |play| Ok(kernel::unacknowledged(&play.client.stream) == 0))?;
        }
        Ok(())
    }

    fn talk(&mut self, served: Served) -> Played {
        let cell = self.cell;
        // What the service has read and not written yet.
        let held = |client: &Client, seen: Seen| {
            let elsewhere = client.got + kernel::unread(&client.stream) + seen.unacknowledged + seen.unread;
            client.sent.saturating_sub(elsewhere)
        };
        match cell.sent {
            Sent::Nothing => {}
            Sent::Little => {
                assert!(self.client.send(LITTLE)?);
                self.until("the echo has arrived", PROMPT, |play| {
                    if cell.reads == Reads::All {
                        play.client.read(usize::MAX)?;
                        // What comes right after this reading is still unread.
                        return Ok(play.client.got == LITTLE);
                    }
                    Ok(kernel::unread(&play.client.stream) == LITTLE)
                })?;
            }
            Sent::Some => self.until("the server's kernel has the rest of the echo", PROMPT, |play| {
                let all = play.client.send(SOME)?;
                let Some(seen) = served.look() else { return play.closed_early("while the client sent") };
                let client = &play.client;
                let in_the_kernel = kernel::unacknowledged(&client.stream) == 0 && seen.unread == 0;
                Ok(all && in_the_kernel && held(client, seen) == 0 && seen.unacknowledged > 0)
            })?,
            Sent::Much => self.until("the server is blocked in writing", PROMPT, |play| {
                let Some(seen) = served.look() else { return play.closed_early("while the client sent") };
                if kernel::unacknowledged(&play.client.stream) > 0 {
                    return Ok(false);
                }
                let blocked = !seen.writable && seen.unread > 0 && held(&play.client, seen) > 0;
                if !blocked {
                    let more = play.client.sent + 4096;
                    play.client.send(more)?;
                }
                Ok(blocked)
            })?,
            Sent::TooMuch => self.until("the server is blocked in writing and the client stuck", PROMPT, |play| {
                let Some(seen) = served.look() else { return play.closed_early("while the client sent") };
                let full = !play.client.send(u64::MAX)?;
                Ok(full && play.client.is_stuck() && !seen.writable && held(&play.client, seen) > 0)
            })?,
        }
        if cell.half_closed && !cell.half_closes_late() {
            self.client.shut();
            // A client whose FIN has not arrived would go on sending it after it has vanished.
            if cell.sent == Sent::Much || cell.goes == Goes::Vanishes {
                let arrived = |play: &mut Self| Ok(kernel::state(&play.client.stream) == FIN_WAIT_2);
                self.until("the FIN has arrived", PROMPT, arrived)?;
            }
        }
        if cell.reads == Reads::Slowly {
            self.client.read(1)?;
        }
        Ok(())
    }

    fn reach_the_place(&mut self, served: Served) -> Played {
        match self.cell.place {
            Place::LastWord | Place::Draining => self.stop(),
            Place::ClosingByStop => {
                self.stop()?;
                let finished = |play: &mut Self| match served.look() {
                    Some(seen) => Ok(matches!(seen.state, FIN_WAIT_1 | FIN_WAIT_2)),
                    None => play.closed_early("instead of lingering after the stop"),
                };
                self.until("the server's FIN is sent", PROMPT, finished)
            }
            Place::ClosingByIdle => {
                let mut not_yet = Instant::now();
                self.until("the server's FIN is sent", 3 * IDLE + PROMPT, |play| {
                    let now = Instant::now();
                    let Some(seen) = served.look() else {
                        return match now - not_yet {
                            late if late > IDLE / 2 => Err(Failed::TooLate("the idle connection has lingered")),
                            _ => wrong("closed instead of lingering after the idle timeout"),
                        };
                    };
                    let finished = matches!(seen.state, FIN_WAIT_1 | FIN_WAIT_2);
                    if !finished {
                        not_yet = now;
                    }
                    play.begin = not_yet;
                    Ok(finished)
                })
            }
            Place::ClosingByClient if !self.cell.ends_by_itself() => {
                let finished = |play: &mut Self| match served.look() {
                    Some(seen) => Ok(seen.state == LAST_ACK),
                    None => play.closed_early("instead of lingering after the client's FIN"),
                };
                self.until("the server's FIN is sent", PROMPT, finished)
            }
            _ => Ok(()),
        }
    }

    /// Makes sure that no timeout can have ended the state by now.
    fn in_time(&self) -> Played {
        if let Some(idle) = self.cell.idle()
            && self.cell.has_slot()
            && self.stopped_at.is_none()
            && self.begin.elapsed() > idle * 3 / 4
        {
            return Err(Failed::TooLate("the idle timeout may have elapsed"));
        }
        if self.cell.event == Event::Abort
            && let Some(stopped_at) = self.stopped_at
            && stopped_at.elapsed() > DEADLINE * 3 / 4
        {
            return Err(Failed::TooLate("the deadline may have passed"));
        }
        Ok(())
    }

    // What happens.

    /// Orders a stop, and waits until it has reached the connections.
    fn stop(&mut self) -> Played {
        self.house.handle.stop();
        if self.stopped_at.is_none() {
            self.in_time()?;
            self.stopped_at = Some(Instant::now());
        }
        self.companion.take().map_or(Ok(()), |mut companion| companion.wait_until_stopped())
    }

    fn go(&mut self) -> Played {
        if self.cell.goes != Goes::Stays {
            self.in_time()?;
        }
        match self.cell.goes {
            Goes::Stays => return Ok(()),
            Goes::Vanishes => {
                kernel::vanish(&self.client.stream);
                return Ok(());
            }
            Goes::Resets => SockRef::from(&self.client.stream).set_linger(Some(Duration::ZERO)).unwrap(),
            Goes::IsKilled => {}
        }
        // Another socket takes its place, so that it is closed.
        self.client.stream = TcpStream::from(Socket::new(Domain::IPV4, Type::STREAM, None).unwrap());
        self.client.end = Some(Ok(()));
        Ok(())
    }

    fn happen(&mut self, expected: &Expected) -> Played {
        let cell = self.cell;
        match cell.event {
            Event::Stop | Event::Abort => self.stop()?,
            Event::Idle if !cell.idle_ends_it() => self.pass(3 * IDLE, expected)?,
            Event::Pause => self.pass(PAUSE, expected)?,
            Event::Nothing | Event::Idle => {}
        }
        if cell.goes == Goes::Stays && cell.event != Event::Pause {
            self.in_time_to_resume()?;
        }
        // The companion leaves, and its slot goes to the client of the cell.
        self.companion = None;
        Ok(())
    }

    /// Lets this time pass. Meanwhile a client that stays must not be closed.
    fn pass(&mut self, time: Duration, expected: &Expected) -> Played {
        let begin = Instant::now();
        let stays = self.cell.goes == Goes::Stays;
        while begin.elapsed() < time {
            self.tick()?;
            if stays {
                self.must_be_open(&format!("{:?} after nothing had happened, expected {expected:?}", begin.elapsed()))?;
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn in_time_to_resume(&self) -> Played {
        if self.cell.place == Place::ClosingByIdle && self.cell.event == Event::Nothing {
            self.in_time()?;
        }
        if self.cell.reads == Reads::Slowly && self.client.got == self.client.sent && self.cell.event != Event::Idle {
            return Err(Failed::TooLate("the slow client has read everything"));
        }
        Ok(())
    }

    /// The client reads what still comes, and ends.
    fn resume(&mut self, expected: &Expected) -> Played {
        let cell = self.cell;
        let served_on = cell.place != Place::ClosingByIdle && !cell.is_stopped();
        if (served_on || cell.place == Place::LastWord) && !cell.half_closed {
            self.client.shut();
        }
        self.until("the client hears the end", 2 * PROMPT, |play| match cell.reads {
            Reads::Slowly => Ok(play.client.end.is_some()),
            _ => play.client.read(usize::MAX),
        })
        .map_err(|failed| match failed {
            Failed::Wrong(what) => Failed::Wrong(format!("expected {expected:?}: {what}, {}", self.told())),
            late => late,
        })?;
        self.check_the_client(expected)?;
        // Its kernel sends what it has not sent yet, and then FIN.
        self.client.stream = TcpStream::from(Socket::new(Domain::IPV4, Type::STREAM, None).unwrap());
        Ok(())
    }

    fn told(&self) -> String {
        let (sent, got, end) = (self.client.sent, self.client.got, &self.client.end);
        let close = self.close().map_or_else(|| "it is not closed".to_owned(), |close| format!("{close:?}"));
        let seen = kernel::served(self.house.address, self.client.name).and_then(|served| served.look());
        format!("sent {sent}, got {got}, end {end:?}, {close}, {seen:?}")
    }

    // The end.

    fn closed(&mut self, expected: &Expected) -> Played<Told> {
        let begin = Instant::now();
        let closed = self.until("closed", expected.within, |play| Ok(play.close().is_some()));
        match (closed, self.close()) {
            (Ok(()), Some(close)) => Ok(close),
            (Err(late @ Failed::TooLate(_)), _) => Err(late),
            _ => wrong(format!("expected {expected:?}; after {:?}: {}", begin.elapsed(), self.told())),
        }
    }

    fn check_the_client(&mut self, expected: &Expected) -> Played {
        let Some(clean) = expected.clean else { return Ok(()) };
        if self.client.end.is_none() {
            self.until("the client hears the end", PROMPT, |play| play.client.read(usize::MAX))?;
        }
        if matches!(self.client.end, Some(Ok(()))) != clean {
            return wrong(format!("expected {expected:?}: the client hears {}", self.told()));
        }
        Ok(())
    }

    fn check(&mut self, expected: &Expected, close: &Told) -> Played {
        let reason = close.text("reason");
        let Some(&reason) = expected.reasons.iter().find(|expected| expected.as_str() == reason) else {
            return wrong(format!("expected {expected:?}: {}", self.told()));
        };
        if kernel::served(self.house.address, self.client.name).is_some() {
            return wrong("its socket is still open");
        }
        if self.cell.goes == Goes::Stays && !self.cell.resumes() || self.cell.ends_by_itself() {
            self.check_the_client(expected)?;
        }
        self.check_the_sums(expected, reason, close)
    }

    /// Compares the sums of the log with the bytes that the client knows of.
    fn check_the_sums(&self, expected: &Expected, reason: CloseReason, close: &Told) -> Played {
        let (sent, got) = (self.client.sent, self.client.got);
        let [received, echoed, discarded] = ["received", "echoed", "discarded"].map(|field| close.number(field));
        let mut holds = got <= echoed && echoed <= received && received + discarded <= sent;
        if reason == Stopped {
            holds &= received == echoed;
        }
        if reason == ByClient {
            holds &= received == sent && echoed == sent && discarded == 0;
        }
        if expected.clean == Some(true) {
            holds &= got == echoed && received == echoed && received + discarded == sent;
        }
        if holds { Ok(()) } else { wrong(format!("expected {expected:?}, and other sums: {}", self.told())) }
    }

    /// If there was no stop yet: another client gets the slot, and a stop is ordered. The stop is reported.
    fn finish(mut self, expected: &Expected) -> Played {
        if self.stopped_at.is_none() {
            self.companion = None;
            let next = Companion::enter(&self.house)
                .and_then(|mut next| next.round_trip().or_else(|error| wrong(format!("it is not echoed: {error}"))));
            if let Err(Failed::Wrong(what)) = next {
                return wrong(format!("the slot does not come back: {what}"));
            }
            self.house.handle.stop();
        }
        let Some(report) = self.house.report(PROMPT) else { return wrong("the stop is not reported") };
        let closes = self.house.log.all("connection closed");
        let closes = closes.iter().filter(|close| close.text("peer") == self.client.name.to_string()).count();
        if closes != 1 {
            return wrong(format!("closed {closes} times"));
        }
        let forced = usize::from(expected.reasons.contains(&CloseReason::Forced));
        if report.forced != forced {
            return wrong(format!("expected {forced} forced: {report:?}"));
        }
        self.house.books(&report).or_else(wrong)
    }
}
