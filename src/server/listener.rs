//! The one listening socket. It is bound or given once, all Acceptors share it, and the Supervisor alone closes it.
//!
//! The options of a connection are set here, on the listener: on Linux a connection inherits them when its handshake ends.

use crate::{error::Error, server::acceptor::Listen, settings::ListenSettings};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::{
    io::{self, ErrorKind},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    num::NonZeroU32,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

/// A client that vanishes is noticed after 60 s + 3 × 10 s of silence.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(10)).with_retries(3);

/// The listening socket. Clones are the same socket, and closing it closes all of them.
#[derive(Debug, Clone)]
pub(crate) struct Listener {
    socket: Arc<TcpListener>,
    backlog: u32,
    /// Whether the program has bound it. Then clients may have come before the options were set.
    given: bool,
}

/// Sets the options of a connection, on the listener or on the connection itself.
fn set_options(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    // By default a close resets the connection; only the lingering close in server/connection/close.rs earns a clean end.
    // So a client never takes a panic, the deadline or the process's death for the end of its echo.
    socket.set_linger(Some(Duration::ZERO))
}

/// Sets the options, and listens. If the socket listens already, its backlog changes.
fn listen(socket: &SockRef<'_>, backlog: u32) -> io::Result<()> {
    set_options(socket)?;
    socket.set_nonblocking(true)?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))
}

impl Listener {
    pub fn bind(settings: &ListenSettings) -> Result<Self, Error> {
        let address = settings.address;
        let open = || -> io::Result<TcpListener> {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            if address.is_ipv6() {
                socket.set_only_v6(false)?; // [::] takes IPv4 too, also where the system has it off
            }
            socket.set_reuse_address(true)?; // a restarted server does not wait for TIME_WAIT of old connections
            socket.bind(&address.into())?;
            listen(&SockRef::from(&socket), settings.backlog)?;
            Ok(socket.into())
        };
        open()
            .map(|socket| Self { socket: Arc::new(socket), backlog: settings.backlog, given: false })
            .map_err(|source| Error::Bind { address, source })
    }

    /// Takes a socket that listens already.
    pub fn given(socket: TcpListener, backlog: u32) -> Result<Self, Error> {
        let take = || {
            let socket = SockRef::from(&socket);
            if socket.protocol()? != Some(Protocol::TCP) {
                return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a TCP socket"));
            }
            if !socket.is_listener()? {
                return Err(io::Error::new(ErrorKind::InvalidInput, "it does not listen"));
            }
            listen(&socket, backlog)
        };
        take().map_err(Error::Listener)?;
        Ok(Self { socket: Arc::new(socket), backlog, given: true })
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// What one Acceptor accepts from, on the calling thread.
    pub fn open(&self) -> io::Result<Box<dyn Listen>> {
        let acceptor = self.acceptor()?;
        Ok(if self.given { Box::new(Given(acceptor)) } else { Box::new(acceptor) })
    }

    /// A handle of the socket in the reactor of the calling thread.
    pub fn acceptor(&self) -> io::Result<tokio::net::TcpListener> {
        tokio::net::TcpListener::from_std(self.socket.try_clone()?)
    }

    /// Lets no new client in. The clients in the backlog still wait to be taken in.
    ///
    /// The socket is bound to an interface that does not exist, so no SYN finds it. New clients are refused at once, and
    /// handshakes under way are completed. A socket filter would do the same, but takes a privilege on recent systems.
    /// `listen(0)` still lets one client in after the last has been taken.
    pub fn refuse(&self) -> io::Result<()> {
        const NO_INTERFACE: NonZeroU32 = NonZeroU32::new(i32::MAX as u32).expect("it is not zero");
        SockRef::from(&*self.socket).bind_device_by_index_v4(Some(NO_INTERFACE)) // on Linux the same option for IPv6
    }

    /// The most clients that can be in the backlog at a time.
    pub fn backlog(&self) -> u32 {
        self.backlog.saturating_add(1) // Linux lets one more in than it was told
    }

    /// Makes the backlog larger than the one that it was bound with.
    #[cfg(test)]
    pub fn hold(&self, backlog: i32) {
        SockRef::from(&*self.socket).listen(backlog).expect("it listens");
    }

    /// One client from the backlog; `WouldBlock` when it is empty.
    pub fn take(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self.socket.accept()?;
        stream.set_nonblocking(true)?;
        if self.given {
            set_options(&SockRef::from(&stream))?;
        }
        Ok((stream, peer))
    }

    /// Closes the socket for every handle, also for one on a stuck thread.
    pub fn close(self) {
        // This fails only if the socket does not listen any more, which is the aim.
        let _ = SockRef::from(&*self.socket).shutdown(Shutdown::Both);
    }
}

/// A handle of a socket that was given. Clients whose handshakes ended before it was given have not inherited the options,
/// and nothing tells which clients these are. So each one gets the options when it is accepted.
struct Given(tokio::net::TcpListener);

impl Listen for Given {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(tokio::net::TcpStream, SocketAddr)>> {
        let accepted = ready!(Listen::poll_accept(&mut self.0, cx))?;
        set_options(&SockRef::from(&accepted.0))?;
        Poll::Ready(Ok(accepted))
    }

    fn probe(&self) -> io::Result<()> {
        Listen::probe(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use socket2::SockAddr;
    use std::{fs::File, os::fd::OwnedFd};

    fn listener() -> (Listener, SocketAddr) {
        let settings = ListenSettings {
            address: "127.0.0.1:0".parse().expect("a literal"),
            backlog: 16,
            ..Settings::default().listen
        };
        let listener = Listener::bind(&settings).expect("port 0 is free");
        let address = listener.address().expect("it is bound");
        (listener, address)
    }

    #[test]
    fn an_accepted_connection_inherits_its_options() {
        let (listener, address) = listener();
        let _client = TcpStream::connect(address).expect("it listens");
        let (stream, _) = listener.take().expect("a client waits");
        assert_options(&SockRef::from(&stream));
    }

    fn assert_options(socket: &SockRef<'_>) {
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(10));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
        assert_eq!(socket.linger().unwrap(), Some(Duration::ZERO));
    }

    /// A socket as a program may have bound it, with room for two clients.
    fn bound() -> Socket {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
        socket
    }

    #[tokio::test]
    async fn a_given_socket_gets_the_options_and_the_backlog_and_so_do_clients_that_have_come_before() {
        let socket = bound();
        socket.listen(1).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let mut clients = vec![TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap()];
        let listener = Listener::given(socket.into(), 16).unwrap();
        assert_eq!((listener.address().unwrap(), listener.backlog()), (address, 17));
        // More than fit into the backlog that it had.
        clients.extend((0..8).map(|_| TcpStream::connect(address).unwrap()));
        let mut acceptor = listener.open().unwrap();
        let (accepted, _) = std::future::poll_fn(|cx| acceptor.poll_accept(cx)).await.unwrap();
        assert_options(&SockRef::from(&accepted));
        for _ in 1..clients.len() {
            assert_options(&SockRef::from(&listener.take().unwrap().0));
        }
        assert_eq!(listener.take().unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn a_given_socket_that_is_no_listening_tcp_socket_is_refused_with_the_reason() {
        let unix = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        for (given, reason) in [
            (OwnedFd::from(bound()), "it does not listen"),
            (Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap().into(), "it is not a TCP socket"),
            (unix.into(), "it is not a TCP socket"),
            (File::open("/dev/null").unwrap().into(), "Socket operation on non-socket (os error 88)"),
        ] {
            let error = Listener::given(TcpListener::from(given), 1).unwrap_err();
            assert_eq!(error.to_string(), format!("cannot serve the socket that was given: {reason}"));
        }
    }

    #[test]
    fn a_refusing_listener_keeps_its_backlog_and_lets_no_other_client_in() {
        let (listener, address) = listener();
        let _waiting = TcpStream::connect(address).expect("it listens");
        listener.refuse().expect("it needs no privilege");
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert!(listener.take().is_ok());
        assert_eq!(listener.take().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn closing_closes_every_handle() {
        let (listener, address) = listener();
        let other = listener.clone();
        listener.close();
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert!(other.take().is_err());
    }

    #[test]
    fn an_occupied_address_is_named() {
        let (_listener, address) = listener();
        let error = Listener::bind(&ListenSettings { address, backlog: 1, ..Settings::default().listen }).unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
