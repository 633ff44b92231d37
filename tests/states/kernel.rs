//! What the kernel knows of a socket. It is the evidence that a client or its connection is in its state.
//!
//! The server under test runs in this process, so a test can ask about the server's sockets as well. It never duplicates them: a
//! second descriptor would keep a connection open that the server has closed.
#![expect(unsafe_code, reason = "what the kernel knows of a socket is asked by system calls")]

use libc::c_int;
use std::{
    fs, io,
    mem::zeroed,
    net::{SocketAddr, TcpStream},
    os::fd::{AsRawFd, BorrowedFd, RawFd},
};

/// States of a TCP socket, as the kernel numbers them.
pub const FIN_WAIT_1: u8 = 4;
pub const FIN_WAIT_2: u8 = 5;
pub const LAST_ACK: u8 = 9;

fn ask(fd: RawFd, request: libc::Ioctl) -> u64 {
    let mut answer: c_int = 0;
    // SAFETY: each of these requests writes one int.
    unsafe { libc::ioctl(fd, request, &raw mut answer) };
    u64::try_from(answer).unwrap_or(0)
}

/// Bytes that have arrived and have not been read.
pub fn unread(socket: &impl AsRawFd) -> u64 {
    ask(socket.as_raw_fd(), libc::FIONREAD)
}

/// Bytes that the other side has not acknowledged. A FIN counts as one.
pub fn unacknowledged(socket: &impl AsRawFd) -> u64 {
    ask(socket.as_raw_fd(), libc::TIOCOUTQ)
}

/// Bytes among these that have never been sent.
pub fn unsent(socket: &impl AsRawFd) -> u64 {
    const SIOCOUTQNSD: libc::Ioctl = 0x894B;
    ask(socket.as_raw_fd(), SIOCOUTQNSD)
}

fn info(fd: RawFd) -> libc::tcp_info {
    // SAFETY: all fields are numbers.
    let mut info: libc::tcp_info = unsafe { zeroed() };
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes.
    unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast(), &raw mut length) };
    info
}

pub fn state(socket: &impl AsRawFd) -> u8 {
    info(socket.as_raw_fd()).tcpi_state
}

/// Clients that a listener has not accepted.
pub fn backlog(listener: RawFd) -> u32 {
    info(listener).tcpi_unacked
}

/// Makes a client silent for good. The kernel drops every packet that comes for it, so it acknowledges and answers nothing. This
/// needs no privilege. A client with unacknowledged bytes of its own would still send them again.
pub fn vanish(client: &TcpStream) {
    let hops: c_int = 255; // packets from this machine have fewer left
    let length = size_of_val(&hops) as libc::socklen_t;
    // SAFETY: IP_MINTTL reads one int, and it is given one.
    let done = unsafe {
        libc::setsockopt(client.as_raw_fd(), libc::IPPROTO_IP, libc::IP_MINTTL, (&raw const hops).cast(), length)
    };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}

/// The state of the server's socket of one connection.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub state: u8,
    pub unread: u64,
    pub unacknowledged: u64,
    pub writable: bool,
}

/// The server's socket of one connection. Its descriptor may be closed and used again, so each look makes sure of it.
#[derive(Debug, Clone, Copy)]
pub struct Served {
    fd: RawFd,
    peer: SocketAddr,
}

impl Served {
    /// `None` once it is closed or reset.
    pub fn look(&self) -> Option<Seen> {
        if address(self.fd, libc::getpeername) != Some(self.peer) {
            return None;
        }
        let mut poll = libc::pollfd { fd: self.fd, events: libc::POLLOUT, revents: 0 };
        // SAFETY: it is given one pollfd, and it does not wait.
        let writable = unsafe { libc::poll(&raw mut poll, 1, 0) } == 1;
        let (unread, unacknowledged) = (unread(&self.fd), unacknowledged(&self.fd));
        Some(Seen { state: info(self.fd).tcpi_state, unread, unacknowledged, writable })
    }
}

fn sockets() -> impl Iterator<Item = RawFd> {
    let entries = fs::read_dir("/proc/self/fd").unwrap().map_while(Result::ok);
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

type Ask = unsafe extern "C" fn(c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> c_int;

fn address(fd: RawFd, ask: Ask) -> Option<SocketAddr> {
    // SAFETY: the storage is as long as its length says.
    let told = unsafe {
        socket2::SockAddr::try_init(|storage, length| match ask(fd, storage.cast(), length) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        })
    };
    told.ok()?.1.as_socket()
}

/// The server's socket for the client at `peer`.
pub fn served(server: SocketAddr, peer: SocketAddr) -> Option<Served> {
    let is_it =
        |&fd: &RawFd| address(fd, libc::getpeername) == Some(peer) && address(fd, libc::getsockname) == Some(server);
    sockets().find(is_it).map(|fd| Served { fd, peer })
}

/// The listening socket at `address`.
pub fn listener(at: SocketAddr) -> RawFd {
    let listens = |&fd: &RawFd| {
        // SAFETY: the descriptor is only asked for one option, and is not kept.
        address(fd, libc::getsockname) == Some(at)
            && socket2::SockRef::from(&unsafe { BorrowedFd::borrow_raw(fd) }).is_listener().unwrap_or(false)
    };
    sockets().find(listens).expect("it listens")
}
