//! How the client gets a connection. It looks the name up, tries every address, and starts again until its time is over.
//!
//! A look-up blocks its thread for an unknown time. So it runs on a thread of its own. The runtime would wait for its own
//! blocking pool at the end of the program.

use crate::{client::tally::NotConnected, resources};
use futures_util::{
    FutureExt,
    future::{LocalBoxFuture, Shared},
};
use std::{
    cell::{Cell, RefCell},
    hash::{BuildHasher, RandomState},
    io,
    net::{SocketAddr, ToSocketAddrs},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::oneshot,
    time::{Instant, sleep_until, timeout, timeout_at},
};

/// The pause after the first try; each further one is twice as long.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause between two tries.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The same where a rate is set: an outage is measured, and its end is known no better than this.
pub(crate) const MEASURING_PAUSE: Duration = Duration::from_millis(100);
/// The longest time that one address may take. One repeated SYN fits into it. After that the name may well have another
/// address.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(2);

/// A server to which the client can connect any number of times.
pub(crate) trait Connect: 'static {
    /// A connection to it.
    type Stream: AsyncRead + AsyncWrite + Unpin + 'static;

    /// Tries once, and gives every address its turn before the deadline. `passed_over` hears of each address that failed while
    /// another one was left. If the last one fails too, the error is its.
    async fn connect(
        &self,
        deadline: Instant,
        passed_over: impl FnMut(SocketAddr, &io::Error),
    ) -> io::Result<(Self::Stream, SocketAddr)>;
}

/// No try has made a connection before the deadline.
pub(crate) struct GaveUp {
    /// That of the last try that failed; `None` if none has failed.
    pub error: Option<io::Error>,
    /// When the try began that the deadline has cut off; `None` if there was no try under way.
    pub cut: Option<Instant>,
}

/// Tries at intervals that grow up to `longest_pause`, until a try succeeds or `deadline` has come. `passed_over` is as in
/// [`Connect::connect`]. `failed` hears of each try that failed: its error, when it began, and whether it is the first. It
/// gives the deadline for the tries that follow. With the connection comes when its try began.
pub(crate) async fn keep_trying<C: Connect>(
    server: &C,
    mut deadline: Instant,
    longest_pause: Duration,
    mut passed_over: impl FnMut(SocketAddr, &io::Error),
    mut failed: impl FnMut(&io::Error, Instant, bool) -> Instant,
) -> Result<(C::Stream, SocketAddr, Instant), GaveUp> {
    let (mut pause, mut last) = (FIRST_PAUSE, None);
    loop {
        let begun = Instant::now();
        if begun >= deadline {
            return Err(GaveUp { error: last, cut: None });
        }
        match timeout_at(deadline, server.connect(deadline, &mut passed_over)).await {
            Ok(Ok((stream, address))) => return Ok((stream, address, begun)),
            Ok(Err(error)) if Instant::now() < deadline => {
                deadline = failed(&error, begun, last.is_none());
                last = Some(error);
            }
            // Whether a try that the deadline ends has failed is for the caller to say.
            Ok(Err(_)) | Err(_) => return Err(GaveUp { error: last, cut: Some(begun) }),
        }
        sleep_until(deadline.min(Instant::now() + pause)).await;
        pause = longest_pause.min(2 * pause);
    }
}

/// The error of a try that was given up.
pub(crate) fn no_answer() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer")
}

/// Why a try has failed, by its error.
pub(crate) fn why(error: &io::Error) -> NotConnected {
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset, _) => NotConnected::Refused,
        (io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory, _)
        | (_, Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS)) => NotConnected::Local,
        _ => NotConnected::Unanswered,
    }
}

/// Names an error that the system tells in words that mean something else.
fn in_plain_words(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => io::Error::new(error.kind(), format!("no local port is free ({error})")),
        _ => error,
    }
}

/// Puts the addresses of one family in order and begins with another one at each turn. The family is that of the first, which
/// the system prefers; those of the other family come last.
fn by_turns(addresses: Vec<SocketAddr>, turn: usize) -> Vec<SocketAddr> {
    let prefers_ipv4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let (mut turns, others): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv4() == prefers_ipv4);
    turns.sort_unstable();
    turns.dedup();
    let first = turn % turns.len().max(1);
    turns.rotate_left(first);
    turns.extend(others);
    turns
}

type Addresses = Result<Vec<SocketAddr>, String>;

/// A TCP server by its address or its name.
pub(crate) struct TcpServer {
    address: String,
    /// The addresses take turns, from connect to connect. The first turn is random: many clients of few connections each
    /// would otherwise all begin with the same address.
    turn: Cell<usize>,
    /// The look-up under way, if there is one. All connections that need it meanwhile share it, so that many connections to
    /// a missing server make one thread and not many.
    lookup: RefCell<Option<Shared<LocalBoxFuture<'static, Addresses>>>>,
}

impl TcpServer {
    pub fn new(address: String) -> Self {
        let turn = Cell::new(RandomState::new().hash_one(&address) as usize);
        Self { address, turn, lookup: RefCell::new(None) }
    }

    async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = self.address.parse() {
            return Ok(vec![address]);
        }
        let lookup = match &mut *self.lookup.borrow_mut() {
            Some(running) if running.peek().is_none() => running.clone(),
            over => over.insert(look_up(self.address.clone())?).clone(),
        };
        lookup.await.map_err(io::Error::other)
    }
}

impl Connect for TcpServer {
    type Stream = TcpStream;

    async fn connect(
        &self,
        deadline: Instant,
        mut passed_over: impl FnMut(SocketAddr, &io::Error),
    ) -> io::Result<(TcpStream, SocketAddr)> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let addresses = by_turns(self.addresses().await?, self.turn.replace(self.turn.get().wrapping_add(1)));
        for (left, address) in (0..addresses.len() as u32).rev().zip(addresses) {
            let share = deadline.saturating_duration_since(Instant::now()) / (left + 1);
            last = match timeout(ADDRESS_TIMEOUT.min(share), TcpStream::connect(address)).await {
                Ok(Ok(stream)) if is_itself(&stream) => {
                    // A reset leaves no TIME_WAIT on this port, which is the server's.
                    stream.set_zero_linger()?;
                    io::ErrorKind::ConnectionRefused.into()
                }
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true)?;
                    return Ok((stream, address));
                }
                Ok(Err(error)) => in_plain_words(error),
                Err(_) => no_answer(),
            };
            if left > 0 {
                passed_over(address, &last);
            }
        }
        Err(last)
    }
}

fn look_up(name: String) -> io::Result<Shared<LocalBoxFuture<'static, Addresses>>> {
    let (found, addresses) = oneshot::channel();
    let run = move || {
        let addresses = name.to_socket_addrs().map(Vec::from_iter).map_err(|error| error.to_string());
        // The connections that asked may be gone.
        let _ = found.send(addresses);
    };
    resources::spawn("lookup", run).map_err(io::Error::other)?;
    let addresses = addresses.map(|found| found.unwrap_or_else(|_| Err("the look-up crashed".into())));
    Ok(addresses.boxed_local().shared())
}

/// Whether a stream is connected to its own end. This can happen on a port without a listener, in the range from which
/// clients take their ports. One try in thousands meets itself there, and would take what it sent for an echo.
fn is_itself(stream: &TcpStream) -> bool {
    matches!((stream.local_addr(), stream.peer_addr()), (Ok(local), Ok(peer)) if local == peer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, net::Ipv4Addr};
    use tokio::{
        io::{DuplexStream, duplex},
        net::{TcpListener, TcpSocket},
    };

    const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;
    /// The longest time that a test allows for a try without a wait.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// Refuses this many tries, and notes when each came.
    struct Refusing {
        left: Cell<u32>,
        tries: RefCell<Vec<Instant>>,
    }

    impl Refusing {
        fn new(times: u32) -> Self {
            Self { left: Cell::new(times), tries: RefCell::default() }
        }

        fn intervals(&self) -> Vec<u128> {
            self.tries.borrow().windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect()
        }
    }

    impl Connect for Refusing {
        type Stream = DuplexStream;

        async fn connect(
            &self,
            _: Instant,
            _: impl FnMut(SocketAddr, &io::Error),
        ) -> io::Result<(DuplexStream, SocketAddr)> {
            self.tries.borrow_mut().push(Instant::now());
            match self.left.get() {
                0 => Ok((duplex(1).0, (LOOPBACK, 1).into())),
                left => {
                    self.left.set(left - 1);
                    Err(io::ErrorKind::ConnectionRefused.into())
                }
            }
        }
    }

    /// Never answers.
    struct Silent;

    impl Connect for Silent {
        type Stream = DuplexStream;

        async fn connect(
            &self,
            _: Instant,
            _: impl FnMut(SocketAddr, &io::Error),
        ) -> io::Result<(DuplexStream, SocketAddr)> {
            std::future::pending().await
        }
    }

    async fn kept_trying<C: Connect>(server: &C, limit: Duration) -> Result<(), Option<io::ErrorKind>> {
        let deadline = Instant::now() + limit;
        let tried = keep_trying(server, deadline, LONGEST_PAUSE, |_, _| (), |_, _, _| deadline).await;
        tried.map(|_| ()).map_err(|GaveUp { error, .. }| error.map(|error| error.kind()))
    }

    #[tokio::test(start_paused = true)]
    async fn tries_come_at_intervals_that_double_up_to_a_second() {
        let server = Refusing::new(7);
        assert_eq!(kept_trying(&server, Duration::from_secs(60)).await, Ok(()));
        assert_eq!(server.intervals(), [50, 100, 200, 400, 800, 1000, 1000]);
    }

    #[tokio::test(start_paused = true)]
    async fn it_gives_up_at_the_limit_with_the_last_error() {
        let (server, started) = (Refusing::new(u32::MAX), Instant::now());
        assert_eq!(kept_trying(&server, Duration::from_secs(10)).await, Err(Some(io::ErrorKind::ConnectionRefused)));
        assert_eq!(started.elapsed(), Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_without_an_answer_ends_at_the_limit_and_has_not_failed() {
        let started = Instant::now();
        assert_eq!(kept_trying(&Silent, Duration::from_secs(10)).await, Err(None));
        assert_eq!(started.elapsed(), Duration::from_secs(10));
    }

    /// A server with two addresses, of which the next try takes the dead one first.
    fn dead_and_live(dead: SocketAddr, live: SocketAddr) -> TcpServer {
        let server = TcpServer::new(String::new());
        server.turn.set(usize::from(dead > live));
        server.lookup.replace(Some(async move { Ok(vec![dead, live]) }.boxed_local().shared()));
        server
    }

    /// Connects, and gives the addresses that were passed over, each with why.
    async fn passed_over(
        server: &TcpServer,
        limit: Duration,
    ) -> (io::Result<SocketAddr>, Vec<(SocketAddr, NotConnected)>) {
        let mut passed = Vec::new();
        let connected =
            server.connect(Instant::now() + limit, |address, error| passed.push((address, why(error)))).await;
        (connected.map(|(_, address)| address), passed)
    }

    #[tokio::test]
    async fn every_address_of_a_name_is_tried_and_each_that_refuses_is_told_of_once() {
        let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
        let (live, dead) = (listener.local_addr().unwrap(), (LOOPBACK, free_port()).into());
        let (connected, passed) = passed_over(&dead_and_live(dead, live), PATIENCE).await;
        assert_eq!((connected.unwrap(), passed), (live, vec![(dead, NotConnected::Refused)]));
        drop(listener);
        let (connected, passed) = passed_over(&dead_and_live(dead, live), PATIENCE).await;
        assert_eq!(connected.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(passed, [(dead, NotConnected::Refused)], "the last is the error");
    }

    #[tokio::test]
    async fn an_address_that_never_answers_leaves_time_for_the_others() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((LOOPBACK, 0).into()).unwrap();
        // The first connection fills its backlog, so the system answers no other.
        let silent = socket.listen(0).unwrap();
        let dead = silent.local_addr().unwrap();
        let _first = TcpStream::connect(dead).await.unwrap();
        let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
        let live = listener.local_addr().unwrap();
        let (connected, passed) = passed_over(&dead_and_live(dead, live), Duration::from_secs(1)).await;
        assert_eq!((connected.unwrap(), passed), (live, vec![(dead, NotConnected::Unanswered)]));
    }

    #[tokio::test]
    async fn look_ups_of_a_name_at_the_same_time_share_one_thread() {
        let server = TcpServer::new("localhost:1".into());
        let (found, addresses) = oneshot::channel();
        server.lookup.replace(Some(addresses.map(Result::unwrap).boxed_local().shared()));
        let (one, other, ()) = tokio::join!(server.addresses(), server.addresses(), async {
            let _ = found.send(Ok(vec![(LOOPBACK, 7).into()]));
        });
        assert_eq!((one.unwrap(), other.unwrap()), (vec![(LOOPBACK, 7).into()], vec![(LOOPBACK, 7).into()]));
    }

    #[tokio::test]
    async fn a_name_is_looked_up_again_on_each_try() {
        let server = TcpServer::new("localhost:1".into());
        let stale = async { Ok(vec![(LOOPBACK, 7).into()]) }.boxed_local().shared();
        server.lookup.replace(Some(stale.clone()));
        stale.await.unwrap();
        assert!(server.addresses().await.unwrap().iter().all(|address| address.port() == 1));
    }

    #[test]
    fn the_addresses_of_the_preferred_family_take_turns_and_the_others_come_last() {
        let addresses =
            |text: &str| text.split(' ').map(|address| address.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let found = addresses("10.0.0.3:1 10.0.0.1:1 [::1]:1 10.0.0.1:1 10.0.0.2:1");
        for (turn, expected) in [
            (0, "10.0.0.1:1 10.0.0.2:1 10.0.0.3:1 [::1]:1"),
            (1, "10.0.0.2:1 10.0.0.3:1 10.0.0.1:1 [::1]:1"),
            (5, "10.0.0.3:1 10.0.0.1:1 10.0.0.2:1 [::1]:1"),
        ] {
            assert_eq!(by_turns(found.clone(), turn), addresses(expected));
        }
        assert_eq!(by_turns(Vec::new(), 7), []);
    }

    #[test]
    fn not_every_client_begins_with_the_same_address() {
        let found: Vec<SocketAddr> = (1..=2).map(|port| (LOOPBACK, port).into()).collect();
        let first = |_| by_turns(found.clone(), TcpServer::new("name:1".into()).turn.get())[0];
        assert_eq!((0..100).map(first).collect::<BTreeSet<_>>().len(), 2);
    }

    #[test]
    fn an_error_tells_whether_the_server_refused_was_silent_or_was_never_asked() {
        for (code, expected) in [
            (libc::ECONNREFUSED, NotConnected::Refused),
            (libc::ETIMEDOUT, NotConnected::Unanswered),
            (libc::ENETUNREACH, NotConnected::Unanswered),
            (libc::EADDRNOTAVAIL, NotConnected::Local),
            (libc::EMFILE, NotConnected::Local),
        ] {
            assert_eq!(why(&io::Error::from_raw_os_error(code)), expected, "{code}");
        }
        let error = in_plain_words(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL));
        assert!(
            error.to_string().starts_with("no local port is free (") && why(&error) == NotConnected::Local,
            "{error}"
        );
    }

    #[tokio::test]
    async fn an_unknown_name_is_an_error() {
        assert!(passed_over(&TcpServer::new("no-such-name.invalid:1".into()), PATIENCE).await.0.is_err());
    }

    #[tokio::test]
    async fn a_connection_to_itself_is_recognised() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((LOOPBACK, 0).into()).unwrap();
        let address = socket.local_addr().unwrap();
        assert!(is_itself(&socket.connect(address).await.unwrap()));
        let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
        assert!(!is_itself(&TcpStream::connect(listener.local_addr().unwrap()).await.unwrap()));
    }

    fn free_port() -> u16 {
        std::net::TcpListener::bind((LOOPBACK, 0)).unwrap().local_addr().unwrap().port()
    }
}
