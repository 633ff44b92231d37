//! What the kernel knows of a socket: the evidence that a client or its connection is in a state.
//!
//! The server under test runs in this process, so its sockets can be asked as well as the clients'. They are never duplicated:
//! a second descriptor would keep a connection open that the server has closed.
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

/// Bytes that have arrived and are not read.
pub fn unread(socket: &impl AsRawFd) -> u64 {
    ask(socket.as_raw_fd(), libc::FIONREAD)
}

/// Bytes that the other side has not acknowledged. A FIN counts as one.
pub fn unacknowledged(socket: &impl AsRawFd) -> u64 {
    ask(socket.as_raw_fd(), libc::TIOCOUTQ)
}

/// Of these, the bytes that have not been sent once.
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

/// Silences a client for good: what comes for it is thrown away unseen, so it acknowledges and answers nothing. It takes no
/// privilege. One that has unacknowledged bytes of its own would still send them again.
pub fn vanish(client: &TcpStream) {
    let hops: c_int = 255; // what comes from this machine has fewer left
    let length = size_of_val(&hops) as libc::socklen_t;
    // SAFETY: IP_MINTTL reads one int, which is what it is given.
    let done = unsafe {
        libc::setsockopt(client.as_raw_fd(), libc::IPPROTO_IP, libc::IP_MINTTL, (&raw const hops).cast(), length)
    };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}

/// What the server's socket of one connection looks like.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub state: u8,
    pub unread: u64,
    pub unacknowledged: u64,
    pub writable: bool,
}

/// The server's socket of one connection, as long as it is that connection's.
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
        // SAFETY: it is one pollfd, and this does not wait.
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
        // SAFETY: it is asked for one option, and not kept.
        address(fd, libc::getsockname) == Some(at)
            && socket2::SockRef::from(&unsafe { BorrowedFd::borrow_raw(fd) }).is_listener().unwrap_or(false)
    };
    sockets().find(listens).expect("it listens")
}
