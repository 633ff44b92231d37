//! Networks for one test. A lone namespace has its loopback device, and so all addresses of 127.0.0.0/8 for itself.
//!
//! In a slow network there are two network namespaces, one for the client and one for the server. A relay between them
//! delays, reorders and loses packets.
//!
//! The namespaces have no names. They live as long as something holds them open, so nothing of them is left after a test. The fate
//! of a packet depends on four things: the seed, its client's port, its direction and its number. It does not depend on the order
//! in which clients come. This needs the privilege to make namespaces, `/dev/net/tun` and the program `ip`.
#![expect(unsafe_code, reason = "namespaces and devices are made by system calls")]
#![allow(dead_code, reason = "each test file is a crate of its own and uses its part")]

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    ioctl,
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write},
    net::Ipv4Addr,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    process::Command,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// What happens to packets, in each direction.
#[derive(Debug, Clone, Copy)]
pub struct Path {
    /// How long every packet takes.
    pub delay: Duration,
    /// How much longer it may take.
    pub jitter: Duration,
    /// The share of packets that are lost.
    pub loss: f64,
    /// The share of packets that take half of the delay longer. So packets behind them may overtake them.
    pub reordering: f64,
    pub seed: u64,
}

/// Why there can be no such network here, if there can be none.
pub fn obstacle() -> Option<String> {
    Network::new(Path { delay: Duration::ZERO, jitter: Duration::ZERO, loss: 0.0, reordering: 0.0, seed: 0 })
        .err()
        .map(|error| format!("no network namespaces with a TUN device: {error}"))
}

/// The two namespaces and the relay.
pub struct Network {
    pub client: Namespace,
    pub server: Namespace,
    relay: Option<JoinHandle<Traffic>>,
    /// The relay ends when this end of the pipe is closed.
    running: Option<PipeWriter>,
}

/// For each client's port, when the server's kernel got its first packet that was no SYN. With that packet the handshake ends, if
/// there is room in the backlog.
pub type Traffic = HashMap<u16, Instant>;

impl Network {
    pub fn new(path: Path) -> io::Result<Self> {
        let (client, server) = (Namespace::new()?, Namespace::new()?);
        let tuns = [client.tun(CLIENT)?, server.tun(SERVER)?];
        let (ended, running) = io::pipe()?;
        let relay =
            thread::spawn(move || Relay { path, tuns, ended, flying: BinaryHeap::new(), sent: HashMap::new() }.run());
        Ok(Self { client, server, relay: Some(relay), running: Some(running) })
    }

    /// Ends the relay. Gives what it has seen.
    pub fn end(mut self) -> Traffic {
        drop(self.running.take());
        self.relay.take().expect("it runs until here").join().expect("the relay does not panic")
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.running.take());
        if let Some(relay) = self.relay.take() {
            let _ = relay.join();
        }
    }
}

/// A network namespace, held open.
pub struct Namespace(OwnedFd);

impl Namespace {
    fn new() -> io::Result<Self> {
        // A thread changes its own namespace only.
        let made = thread::spawn(|| {
            // SAFETY: the thread gets a network namespace of its own, and still shares the file descriptors.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            Ok(Self(File::open("/proc/thread-self/ns/net")?.into()))
        });
        made.join().expect("it does not panic")
    }

    /// A namespace with nothing but its loopback device.
    pub fn alone() -> io::Result<Self> {
        let namespace = Self::new()?;
        namespace.enter(|| ip("link set lo up"))??;
        Ok(namespace)
    }

    /// Does `work` on a thread in this namespace. Sockets and processes that it makes belong to this namespace.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let there = scope.spawn(|| {
                move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(work())
            });
            there.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Sets one of the kernel's settings under `net.ipv4`.
    pub fn set(&self, name: &str, value: &str) {
        self.enter(|| fs::write(format!("/proc/sys/net/ipv4/{name}"), value)).unwrap().unwrap();
    }

    /// One of the kernel's counters of TCP.
    pub fn counter(&self, name: &str) -> usize {
        let table = self.enter(|| fs::read_to_string("/proc/thread-self/net/netstat")).unwrap().unwrap();
        let mut rows = table.lines().map(str::split_whitespace);
        let (names, values) = (rows.next().unwrap(), rows.next().unwrap());
        let (_, value) = names.zip(values).find(|(is, _)| *is == name).expect("the kernel has it");
        value.parse().unwrap()
    }

    /// The ports of the clients of which the kernel keeps a record: connections to this local port, and handshakes under way.
    pub fn clients_of(&self, local: u16) -> HashSet<u16> {
        let table = self.enter(|| fs::read_to_string("/proc/thread-self/net/tcp")).unwrap().unwrap();
        let port = |address: &str| u16::from_str_radix(address.split_once(':').unwrap().1, 16).unwrap();
        let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
        rows.filter(|row| port(row[1]) == local).map(|row| port(row[2])).collect()
    }

    /// Makes the only network device of this namespace, which the relay reads and writes.
    fn tun(&self, address: Ipv4Addr) -> io::Result<File> {
        self.enter(|| {
            let tun = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
            // SAFETY: an `ifreq` is plain data, for which zeros are valid.
            let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
            for (to, from) in request.ifr_name.iter_mut().zip(b"tun0") {
                *to = *from as libc::c_char;
            }
            request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
            type Make = ioctl::Setter<{ libc::TUNSETIFF as ioctl::Opcode }, libc::ifreq>;
            // SAFETY: TUNSETIFF reads an `ifreq`.
            unsafe { ioctl::ioctl(&tun, Make::new(request)) }?;
            ip(&format!("address add {address}/24 dev tun0"))?;
            ip("link set tun0 up txqueuelen 10000")?;
            Ok(tun)
        })?
    }
}

fn ip(arguments: &str) -> io::Result<()> {
    let failed = |reason: &str| io::Error::other(format!("ip {arguments}: {reason}"));
    let output = Command::new("ip").args(arguments.split(' ')).output().map_err(|error| failed(&error.to_string()))?;
    if output.status.success() { Ok(()) } else { Err(failed(&String::from_utf8_lossy(&output.stderr))) }
}

/// Carries packets from each device to the other.
struct Relay {
    path: Path,
    /// The device of the client, and that of the server.
    tuns: [File; 2],
    /// Readable when the network ends.
    ended: PipeReader,
    flying: BinaryHeap<Reverse<Packet>>,
    /// For each client's port and each direction, how many packets have come.
    sent: HashMap<(u16, usize), u64>,
}

/// A packet on its way. Packets are ordered by the moment at which they arrive.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Packet {
    due: Instant,
    to: usize,
    port: u16,
    bytes: Vec<u8>,
}

impl Relay {
    fn run(mut self) -> Traffic {
        let mut traffic = Traffic::new();
        loop {
            let now = Instant::now();
            while let Some(Reverse(packet)) = self.flying.peek()
                && packet.due <= now
            {
                let Reverse(Packet { to, port, bytes, .. }) = self.flying.pop().expect("it has just been seen");
                // A full device loses the packet, as a full router does.
                let _ = self.tuns[to].write(&bytes);
                if to == 1 && !is_syn(&bytes) {
                    traffic.entry(port).or_insert(now);
                }
            }
            let due = self.flying.peek().map(|Reverse(packet)| packet.due.saturating_duration_since(Instant::now()));
            let due = due.map(|due| Timespec::try_from(due).expect("it is soon"));
            let [client, server] = &self.tuns;
            let mut waited = [
                PollFd::new(client, PollFlags::IN),
                PollFd::new(server, PollFlags::IN),
                PollFd::new(&self.ended, PollFlags::IN),
            ];
            let _ = poll(&mut waited, due.as_ref());
            if !waited[2].revents().is_empty() {
                return traffic;
            }
            (0..2).for_each(|from| self.read(from));
        }
    }

    /// Reads all packets of a device, and decides when each arrives at the other.
    fn read(&mut self, from: usize) {
        let mut buffer = [0; 2048];
        loop {
            let length = match self.tuns[from].read(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("the relay cannot read: {error}"),
            };
            let bytes = &buffer[..length];
            // Packets that are not TCP over IPv4 are dropped.
            let Some(port) = client_port(bytes, from) else { continue };
            let nth = self.sent.entry((port, from)).or_default();
            *nth += 1;
            let mut random = Random::of([self.path.seed, port.into(), from as u64, *nth]);
            if random.share() < self.path.loss {
                continue;
            }
            let mut delay = self.path.delay + self.path.jitter.mul_f64(random.share());
            if random.share() < self.path.reordering {
                delay += self.path.delay / 2;
            }
            let packet = Packet { due: Instant::now() + delay, to: 1 - from, port, bytes: bytes.to_vec() };
            self.flying.push(Reverse(packet));
        }
    }
}

/// The TCP header of a packet, if it has one.
fn tcp(bytes: &[u8]) -> Option<&[u8]> {
    let is_tcp = bytes.first()? >> 4 == 4 && i32::from(*bytes.get(9)?) == libc::IPPROTO_TCP;
    if is_tcp { bytes.get(usize::from(bytes[0] & 15) * 4..) } else { None }
}

/// The port of the client that sends or receives a packet.
fn client_port(bytes: &[u8], from: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*tcp(bytes)?.get(2 * from..)?.first_chunk()?))
}

fn is_syn(bytes: &[u8]) -> bool {
    tcp(bytes).and_then(|tcp| tcp.get(13)).is_some_and(|flags| flags & 2 != 0)
}

/// Random numbers from seeds (splitmix64).
struct Random(u64);

impl Random {
    fn of(seeds: [u64; 4]) -> Self {
        seeds.into_iter().fold(Self(0), |mut random, seed| {
            random.0 ^= seed;
            Self(random.next())
        })
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
