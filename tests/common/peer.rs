//! Clients that a test drives itself, one socket each: they read, reset, vanish, or take in little.
#![expect(unsafe_code, reason = "socket2 does not set the least number of hops")]

use super::PATIENCE;
use socket2::{Domain, SockRef, Socket, Type};
use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::AsRawFd,
    time::Duration,
};

pub fn connect(address: SocketAddr) -> TcpStream {
    patient(TcpStream::connect_timeout(&address, PATIENCE).unwrap())
}

/// A client with a small receive buffer.
pub fn connect_with_small_buffer(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.set_send_buffer_size(16 * 1024).unwrap();
    socket.connect(&address.into()).unwrap();
    patient(socket.into())
}

fn patient(client: TcpStream) -> TcpStream {
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    client
}

/// Sends a line and gets it back.
pub fn round_trip(client: &mut TcpStream) {
    client.write_all(b"round trip\n").unwrap();
    let mut echo = [0; 11];
    client.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"round trip\n");
}

/// Reads all that comes until EOF.
pub fn read_to_eof(client: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).unwrap_or_else(|error| panic!("after {} bytes: {error}", bytes.len()));
    bytes
}

/// Closes a connection by a reset.
pub fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// From now on this client is silent, as if its machine were gone. The kernel drops every packet that comes for it, so it
/// acknowledges and answers nothing. This needs no privilege, and `come_back` undoes it.
pub fn vanish(client: &TcpStream) {
    require_hops_left(client, 255); // packets from this machine have fewer
}

/// Undoes `vanish`.
pub fn come_back(client: &TcpStream) {
    require_hops_left(client, 0);
}

fn require_hops_left(client: &TcpStream, hops: libc::c_int) {
    let length = size_of_val(&hops) as libc::socklen_t;
    // SAFETY: IP_MINTTL reads one int, and it is given one.
    let done = unsafe {
        libc::setsockopt(client.as_raw_fd(), libc::IPPROTO_IP, libc::IP_MINTTL, (&raw const hops).cast(), length)
    };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}
