//! Counts the handshakes that the kernel has under way for the listening socket. Such a client takes itself for connected,
//! or soon will, but is not in the backlog yet.
//!
//! Relies on the kernel's socket diagnostics (`NETLINK_SOCK_DIAG`, as `ss` uses it). They need no privilege and no file.
//! Their socket is opened at the start, so that a stop can ask even when no file descriptor is left.

use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::{self, Read},
    net::{IpAddr, SocketAddr},
};

/// From `linux/sock_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// From `linux/tcp_states.h`. The kernel selects the requests of a listener by this state too.
const TCP_SYN_RECV: u32 = 3;
/// Where the local address stands in an answer, `struct inet_diag_msg`: after four bytes and two ports.
const LOCAL_ADDRESS: usize = 8;
/// The largest piece of an answer that the kernel sends.
const PIECE: usize = 32 * 1024;
/// `struct nlmsghdr`, which begins each message.
const HEADER: usize = 16;

/// Asks for the handshakes of one listening socket.
#[derive(Debug)]
pub(crate) struct Handshakes {
    diagnostics: Socket,
    listener: SocketAddr,
    /// Had beforehand too: a stop may come where no memory is left.
    piece: Box<[u8]>,
}

impl Handshakes {
    /// Opens the diagnostics and prepares the question. `listener` is the address of the socket, with its real port.
    ///
    /// Fails in a kernel without socket diagnostics, or under a filter of system calls.
    pub fn of(listener: SocketAddr) -> io::Result<Self> {
        let (domain, protocol) = (Domain::from(libc::AF_NETLINK), Protocol::from(libc::NETLINK_SOCK_DIAG));
        let diagnostics = Socket::new(domain, Type::RAW, Some(protocol))?;
        diagnostics.set_nonblocking(true)?; // an answer waits as soon as the question is sent
        Ok(Self { diagnostics, listener, piece: vec![0; PIECE].into() })
    }

    /// How many handshakes are under way. A handshake that ends goes into the backlog. So ask first, and then take in the
    /// backlog.
    ///
    /// The kernel goes through the table of connections of the whole machine. That takes a fifth of a millisecond where
    /// there are few, and one to three where there are 10,000 connections (20,000 ends).
    pub fn under_way(&mut self) -> io::Result<usize> {
        self.diagnostics.send(&question(self.listener))?;
        let mut under_way = 0;
        loop {
            let length = (&self.diagnostics).read(&mut self.piece)?;
            let mut rest = &self.piece[..length];
            while let Some((kind, message, next)) = first_message(rest) {
                match i32::from(kind) {
                    libc::NLMSG_DONE => return Ok(under_way),
                    libc::NLMSG_ERROR => return Err(error(message)),
                    _ => under_way += usize::from(self.is_ours(message)),
                }
                rest = next;
            }
            if length == 0 || !rest.is_empty() {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }

    /// The kernel selects by port alone. Other sockets may listen on the same port, each on its own address.
    fn is_ours(&self, message: &[u8]) -> bool {
        let is_at = |octets: &[u8]| message.get(LOCAL_ADDRESS..).is_some_and(|from| from.starts_with(octets));
        match self.listener.ip() {
            ip if ip.is_unspecified() => true,
            IpAddr::V4(ip) => is_at(&ip.octets()),
            IpAddr::V6(ip) => is_at(&ip.octets()),
        }
    }
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`. They ask for all sockets of this family, state and local port. The
/// family is the listener's; an IPv4 client of an IPv6 listener belongs to it too.
fn question(listener: SocketAddr) -> Vec<u8> {
    const LENGTH: u32 = HEADER as u32 + 56;
    const FLAGS: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    let family = if listener.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut question = LENGTH.to_ne_bytes().to_vec();
    question.extend([SOCK_DIAG_BY_FAMILY, FLAGS].map(u16::to_ne_bytes).concat());
    question.extend([0; 8]); // no sequence number, and the kernel knows whose it is
    question.extend([family as u8, libc::IPPROTO_TCP as u8, 0, 0]);
    question.extend((1_u32 << TCP_SYN_RECV).to_ne_bytes());
    question.extend(listener.port().to_be_bytes());
    question.resize(LENGTH as usize, 0); // any remote port, and the rest is not looked at
    question
}

/// The kind of the first message, its content, and the bytes behind it. `None` if no whole message is there.
fn first_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, bytes.get(HEADER..length)?, next))
}

/// The errno, negative, that a message of the kind `NLMSG_ERROR` carries.
fn error(message: &[u8]) -> io::Error {
    let errno = message.first_chunk().map_or(0, |errno| i32::from_ne_bytes(*errno));
    io::Error::from_raw_os_error(-errno)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use crate::{server::listener::Listener, settings::ListenSettings};
    use std::{
        net::TcpStream,
        os::fd::AsRawFd,
        thread,
        time::{Duration, Instant},
    };

    fn listen(address: &str) -> (Listener, SocketAddr, Handshakes) {
        let settings = ListenSettings {
            address: address.parse().expect("a literal"),
            backlog: 1024,
            ..Settings::default().listen
        };
        let listener = Listener::bind(&settings).expect("it is free");
        let address = listener.address().expect("it is bound");
        (listener, address, Handshakes::of(address).expect("it needs no privilege"))
    }

    /// Refuses packets with fewer hops left than this. A packet from this machine never has 255.
    #[expect(unsafe_code, reason = "socket2 has no such option")]
    fn require_hops_left(client: &Socket, hops: libc::c_int) {
        let v6 = client.domain().unwrap() == Domain::IPV6;
        let (level, option) =
            if v6 { (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT) } else { (libc::IPPROTO_IP, libc::IP_MINTTL) };
        let length = size_of_val(&hops) as libc::socklen_t;
        // SAFETY: both options read one int, which is what they are given.
        let done = unsafe { libc::setsockopt(client.as_raw_fd(), level, option, (&raw const hops).cast(), length) };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
    }

    /// A client that does not hear the server's answer, so its handshake stays under way.
    fn half_open(ip: &str, port: u16) -> Socket {
        let address = SocketAddr::new(ip.parse().expect("a literal"), port);
        let client = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        require_hops_left(&client, 255);
        client.set_nonblocking(true).unwrap();
        assert_eq!(client.connect(&address.into()).unwrap_err().raw_os_error(), Some(libc::EINPROGRESS));
        client
    }

    #[test]
    fn clients_that_are_connected_or_refused_are_not_under_way() {
        let (listener, address, mut handshakes) = listen("127.0.0.1:0");
        assert_eq!(handshakes.under_way().unwrap(), 0);
        let _accepted = (TcpStream::connect(address).expect("it listens"), listener.take().expect("a client waits"));
        let _in_the_backlog = TcpStream::connect(address).expect("it listens");
        listener.refuse().expect("it needs no privilege");
        assert!(TcpStream::connect(address).is_err());
        assert_eq!(handshakes.under_way().unwrap(), 0);
    }

    #[test]
    fn a_handshake_is_under_way_until_its_client_is_in_the_backlog() {
        let (listener, address, mut handshakes) = listen("127.0.0.1:0");
        let client = half_open("127.0.0.1", address.port());
        listener.refuse().expect("it needs no privilege");
        assert_eq!(handshakes.under_way().unwrap(), 1);
        assert_eq!(listener.take().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        // The kernel sends its answer again after a second.
        require_hops_left(&client, 0);
        let begun = Instant::now();
        while handshakes.under_way().unwrap() == 1 {
            assert!(begun.elapsed() < Duration::from_secs(30), "it is never completed");
            thread::yield_now();
        }
        listener.take().expect("it is in the backlog");
    }

    #[test]
    fn a_listener_of_both_families_has_handshakes_of_both() {
        let (_listener, address, mut handshakes) = listen("[::]:0");
        let _clients = ["127.0.0.1", "::1"].map(|ip| half_open(ip, address.port()));
        assert_eq!(handshakes.under_way().unwrap(), 2);
    }

    #[test]
    fn another_listener_on_the_same_port_has_its_own() {
        for [ours, theirs] in [["127.0.0.1", "127.0.0.2"], ["[::1]", "127.0.0.2"], ["127.0.0.2", "[::1]"]] {
            let (_listener, address, mut handshakes) = listen(&format!("{ours}:0"));
            let (_other, other, mut others_handshakes) = listen(&format!("{theirs}:{}", address.port()));
            let _client = half_open(&other.ip().to_string(), address.port());
            assert_eq!((handshakes.under_way().unwrap(), others_handshakes.under_way().unwrap()), (0, 1), "{ours}");
        }
    }

    #[test]
    fn many_are_counted_though_they_come_in_pieces() {
        let (_listener, address, mut handshakes) = listen("0.0.0.0:0");
        let _clients = [(); 600].map(|()| half_open("127.0.0.1", address.port()));
        for _ in 0..2 {
            assert_eq!(handshakes.under_way().unwrap(), 600);
        }
    }

    #[test]
    fn an_answer_that_is_cut_off_is_no_message() {
        let whole = question(([127, 0, 0, 1], 1).into());
        assert!(first_message(&whole).is_some_and(|(_, message, rest)| message.len() == 56 && rest.is_empty()));
        for length in 0..whole.len() {
            assert!(first_message(&whole[..length]).is_none(), "{length}");
        }
    }
}
