//! One stop at a random moment among clients of all kinds. Every byte is accounted for on both sides.

use crate::{
    house::{House, Log},
    play::{Client, Failed},
};
use socket2::SockRef;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Barrier,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use supervised_echo::Settings;

const CAP: usize = 20;
const PENDING: usize = 10;
/// Clients that come before the stop, and clients that come with it. They are more than there is room for.
const EARLY: usize = 36;
const LATE: usize = 6;
/// Clients that never read keep their slots until this deadline.
const DEADLINE: Duration = Duration::from_secs(1);
/// The longest that any wait lasts.
const PATIENCE: Duration = Duration::from_secs(30);

/// Random numbers from a seed (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Sends a piece and waits for its echo, again and again.
    Echoes,
    /// Sends all, ends its input, and reads to the end.
    HalfCloses,
    /// Sends as much as its kernel takes, and reads only when the stop is under way.
    Pauses,
    /// Reads a part of the echo of its last piece, and resets.
    Resets,
    /// Reads a part of the echo of its last piece, and its process dies.
    IsKilled,
    /// Half-closes, reads a part of its echo, and its process dies.
    HalfClosesAndIsKilled,
    /// Sends as much as its kernel takes, and never reads.
    NeverReads,
}

const KINDS: [Kind; 7] = [
    Kind::Echoes,
    Kind::HalfCloses,
    Kind::Pauses,
    Kind::Resets,
    Kind::IsKilled,
    Kind::HalfClosesAndIsKilled,
    Kind::NeverReads,
];

/// Sums over all connections.
#[derive(Debug, Default)]
pub struct Books {
    closes: BTreeMap<String, u64>,
    refused: u64,
    sent: u64,
    verified: u64,
    received: u64,
    echoed: u64,
    discarded: u64,
    /// Bytes that were received and not echoed, of connections that were reset or forced.
    owed: u64,
}

impl Books {
    pub fn add(&mut self, other: &Self) {
        let numbers = [
            (&mut self.refused, other.refused),
            (&mut self.sent, other.sent),
            (&mut self.verified, other.verified),
            (&mut self.received, other.received),
            (&mut self.echoed, other.echoed),
            (&mut self.discarded, other.discarded),
            (&mut self.owed, other.owed),
        ];
        numbers.into_iter().for_each(|(sum, number)| *sum += number);
        for (reason, number) in &other.closes {
            *self.closes.entry(reason.clone()).or_default() += number;
        }
    }
}

/// The run of one client.
struct Run<'a> {
    server: SocketAddr,
    log: &'a Log,
    kind: Kind,
    random: Random,
    /// Bytes that have come back, to all clients together.
    progress: &'a AtomicU64,
}

impl Run<'_> {
    /// Looks until it is so, which gives true, or until the server has ended, which gives false.
    fn until(&self, mut look: impl FnMut() -> Result<bool, Failed>) -> Result<bool, Failed> {
        let begin = Instant::now();
        while !look()? {
            if self.has_ended() {
                return Ok(false);
            }
            assert!(begin.elapsed() < PATIENCE, "a client of the kind {:?} hangs", self.kind);
            thread::sleep(Duration::from_millis(1));
        }
        Ok(true)
    }

    fn has_ended(&self) -> bool {
        !self.log.all("stopped").is_empty()
    }

    /// Reads until it has got this much, or its input has ended. True if its input has ended.
    fn read(&self, client: &mut Client, up_to: u64) -> Result<bool, Failed> {
        self.until(|| {
            let before = client.got;
            let ended = client.read(usize::try_from(up_to - client.got).unwrap_or(usize::MAX))?;
            self.progress.fetch_add(client.got - before, Ordering::Relaxed);
            Ok(ended || client.got >= up_to)
        })?;
        Ok(client.end.is_some())
    }

    /// Sends this much more, and meanwhile reads what comes. True if its input, or the connection, has ended.
    fn say(&self, client: &mut Client, more: u64) -> Result<bool, Failed> {
        let up_to = client.sent + more;
        self.until(|| {
            let before = client.got;
            // After the server has closed, bytes that are still being sent may be answered by a reset.
            let done = client.read(usize::MAX)? || client.send(up_to).unwrap_or(true);
            self.progress.fetch_add(client.got - before, Ordering::Relaxed);
            Ok(done)
        })?;
        Ok(client.end.is_some())
    }

    fn run(&mut self, client: &mut Client) -> Result<(), Failed> {
        let rounds = self.random.below(40);
        let ends_by_itself = self.random.below(4) == 0;
        let mut round = 0;
        match self.kind {
            Kind::Echoes => loop {
                let piece = 1 + self.random.below(20_000);
                if self.say(client, piece)? || self.read(client, client.sent)? {
                    return Ok(());
                }
                round += 1;
                if round > rounds && ends_by_itself {
                    client.shut();
                    return self.read(client, u64::MAX).map(drop);
                }
            },
            Kind::HalfCloses => {
                self.say(client, self.random_length())?;
                client.shut();
                self.read(client, u64::MAX).map(drop)
            }
            Kind::Pauses => {
                let _ = client.send(client.sent + self.random_length())?;
                self.until(|| Ok(!self.log.all("listener closed").is_empty()))?;
                self.read(client, u64::MAX).map(drop)
            }
            Kind::Resets | Kind::IsKilled | Kind::HalfClosesAndIsKilled => {
                while round < rounds {
                    let piece = 1 + self.random.below(20_000);
                    if self.say(client, piece)? || self.read(client, client.sent)? {
                        return Ok(());
                    }
                    round += 1;
                }
                let _ = client.send(client.sent + self.random_length())?;
                if self.kind == Kind::HalfClosesAndIsKilled {
                    client.shut();
                }
                let part = self.random.below(1 + client.sent - client.got);
                self.read(client, client.got + part)?;
                Ok(())
            }
            Kind::NeverReads => {
                self.until(|| {
                    // The deadline resets it, so sending may fail.
                    let _ = client.send(1 << 20);
                    Ok(false)
                })
                .map(drop)
            }
        }
    }

    fn random_length(&self) -> u64 {
        let mut random = Random(self.random.0);
        1 + random.below(300_000)
    }

    /// Closes as its kind does. Bytes that a client had not read when it was killed do not count as got.
    fn close(&self, client: Client) -> Gone {
        if self.kind == Kind::Resets {
            SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
        let read_all = matches!(client.end, Some(Ok(())));
        let (name, kind, sent, got) = (client.name.to_string(), self.kind, client.sent, client.got);
        drop(client);
        Gone { name, kind, sent, got, read_all, at: Instant::now() }
    }
}

/// A client that has gone.
#[derive(Debug)]
struct Gone {
    name: String,
    kind: Kind,
    sent: u64,
    got: u64,
    /// Whether it has read up to a clean end.
    read_all: bool,
    at: Instant,
}

/// Runs a server, its clients and a stop, and gives the sums of all connections if they are right.
pub fn stop(seed: u64) -> Result<Books, String> {
    let mut random = Random(seed);
    let mut settings = Settings::default();
    settings.supervisor.workers = 1 + random.below(3) as usize;
    settings.supervisor.max_connections = CAP;
    settings.supervisor.max_pending = PENDING;
    settings.supervisor.shutdown_timeout = DEADLINE;
    settings.connection.linger = PATIENCE;
    settings.connection.last_word = Duration::from_millis([0, 0, 1, 100][random.below(4) as usize]);
    let house = House::start(settings);
    let progress = AtomicU64::new(0);
    let stop_at = random.below(3_000_000);
    let stopping = Barrier::new(LATE + 1);

    let gone = thread::scope(|scope| {
        let mut clients = Vec::new();
        for number in 0..EARLY + LATE {
            let kind = KINDS[random.below(KINDS.len() as u64) as usize];
            let random = Random(random.below(u64::MAX));
            let mut run = Run { server: house.address, log: &house.log, kind, random, progress: &progress };
            let stopping = &stopping;
            clients.push(scope.spawn(move || {
                if number >= EARLY {
                    stopping.wait();
                }
                let Some(mut client) = Client::try_connect(run.server) else { return Ok(None) };
                run.run(&mut client).map_err(|failed| format!("{kind:?}: {failed:?}"))?;
                Ok(Some(run.close(client)))
            }));
        }
        let (mut seen, mut moved) = (0, Instant::now());
        while progress.load(Ordering::Relaxed) < stop_at && moved.elapsed() < Duration::from_millis(50) {
            let now = progress.load(Ordering::Relaxed);
            if now != std::mem::replace(&mut seen, now) {
                moved = Instant::now();
            }
            thread::yield_now();
        }
        let stopped_at = Instant::now();
        house.handle.stop();
        stopping.wait();
        let joined =
            clients.into_iter().map(|client| client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.collect::<Result<Vec<_>, String>>().map(|gone| (gone, stopped_at))
    });
    let (gone, stopped_at) = gone?;
    let Some(report) = house.report(PATIENCE) else { return Err("the stop is not reported".into()) };
    house.books(&report)?;
    books(&house, &gone, stopped_at + DEADLINE)
}

fn books(house: &House, gone: &[Option<Gone>], deadline: Instant) -> Result<Books, String> {
    let mut books = Books { refused: gone.iter().filter(|gone| gone.is_none()).count() as u64, ..Books::default() };
    let mut closes = BTreeMap::new();
    for close in house.log.all("connection closed") {
        if closes.insert(close.text("peer").to_owned(), close.clone()).is_some() {
            return Err(format!("closed twice: {close:?}"));
        }
    }
    for client in gone.iter().flatten() {
        let Some(close) = closes.remove(&client.name) else {
            return Err(format!("connected, and no record of it: {client:?}"));
        };
        let reason = close.text("reason");
        let [received, echoed, discarded] = ["received", "echoed", "discarded"].map(|field| close.number(field));
        let mut holds = client.got <= echoed && echoed <= received && received + discarded <= client.sent;
        match reason {
            // Everything is echoed and acknowledged. A client that reads gets all of it.
            "client" => holds &= received == echoed && received == client.sent,
            "stopped" => holds &= received == echoed,
            "reset" | "forced" => books.owed += received - echoed,
            _ => holds = false,
        }
        let clean = matches!(reason, "client" | "stopped");
        holds &= !clean || !client.read_all || client.got == echoed;
        // No client that has seen a clean end is closed as `reset`, except the kind that resets. No client that behaves is.
        holds &= !client.read_all || reason != "reset" || client.kind == Kind::Resets;
        let behaves = matches!(client.kind, Kind::Echoes | Kind::HalfCloses | Kind::Pauses);
        holds &= !behaves || reason != "reset";
        // The deadline forces no client that had gone well before it.
        holds &= reason != "forced" || client.at + DEADLINE / 2 > deadline;
        if !holds {
            return Err(format!("{client:?}, {close:?}"));
        }
        *books.closes.entry(reason.to_owned()).or_default() += 1;
        let numbers = [
            (&mut books.sent, client.sent),
            (&mut books.verified, client.got),
            (&mut books.received, received),
            (&mut books.echoed, echoed),
            (&mut books.discarded, discarded),
        ];
        numbers.into_iter().for_each(|(sum, number)| *sum += number);
    }
    if !closes.is_empty() {
        return Err(format!("records of no client: {:?}", closes.keys().collect::<BTreeSet<_>>()));
    }
    if books.received != books.echoed + books.owed {
        return Err(format!("the sums differ: {books:?}"));
    }
    Ok(books)
}
