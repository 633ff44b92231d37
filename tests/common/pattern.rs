//! A stream of bytes in which a lost, doubled or changed piece shows, and clients that send it and check what comes back.

use super::{PATIENCE, connect, kernel::receive_queue, round_trip};
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
        mpsc::Sender,
    },
    thread,
    time::Instant,
};

/// How many bytes a client reads or writes at once. The server takes less at once, so it reads and writes more often.
const PIECE: usize = 256 * 1024;

/// What a client sends from this offset on. Its period divides no buffer's size, so a lost or doubled piece shows.
pub fn pattern(from: u64, length: usize) -> &'static [u8] {
    static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| (0..=250).cycle().take(251 + PIECE).collect());
    &PATTERN[(from % 251) as usize..][..length]
}

/// Reads the pattern from this offset on, and gives how much came before the end or the error.
pub fn read_pattern(client: &mut TcpStream, from: u64, mut progress: impl FnMut(usize)) -> (u64, io::Result<()>) {
    let (mut got, mut piece) = (0, vec![0; PIECE]);
    loop {
        match client.read(&mut piece) {
            Ok(0) => return (got, Ok(())),
            Ok(n) => {
                assert!(piece[..n] == *pattern(from + got, n), "wrong echo after {} bytes", from + got);
                got += n as u64;
                progress(n);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return (got, Err(error)),
        }
    }
}

/// Sends the pattern and reads nothing. It ends when the server reads no more, or when `most` bytes are sent. Gives how many were
/// sent. `other` is a client on the same and only Worker: its round trip shows that the Worker has had a turn.
pub fn fill_buffers(client: &mut TcpStream, other: &mut TcpStream, most: u64) -> u64 {
    let unread = |client: &TcpStream| {
        let (server, client) = (client.peer_addr().unwrap().port(), client.local_addr().unwrap().port());
        receive_queue(server, client).expect("it is connected")
    };
    client.set_nonblocking(true).unwrap();
    let (mut sent, mut in_vain, deadline) = (0, 0, Instant::now() + PATIENCE);
    // A delayed acknowledgement also keeps a client from sending. But in that case the server has left nothing unread.
    while sent < most && (in_vain < 20 || unread(client) == 0) {
        assert!(Instant::now() < deadline, "neither taken nor left unread: {sent}");
        match client.write(pattern(sent, PIECE.min((most - sent) as usize))) {
            Ok(n) => (sent, in_vain) = (sent + n as u64, 0),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                round_trip(other);
                in_vain += 1;
            }
        }
    }
    client.set_nonblocking(false).unwrap();
    sent
}

/// What a streaming client got back.
#[derive(Debug)]
pub struct Streamed {
    pub peer: SocketAddr,
    pub got: u64,
    pub end: io::Result<()>,
}

/// Sends without a pause, and checks every byte that comes back until EOF. Reports when the first byte has come.
pub fn stream(address: SocketAddr, flowing: Sender<()>, progress: impl Fn(usize)) -> Streamed {
    let mut client = connect(address);
    let mut out = client.try_clone().unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut sent = 0;
            // The reading side sees an error, too, and reports it.
            while !done.load(Ordering::Relaxed)
                && let Ok(n) = out.write(pattern(sent, PIECE))
            {
                sent += n as u64;
            }
        });
        let mut flowing = Some(flowing);
        let (got, end) = read_pattern(&mut client, 0, |n| {
            progress(n);
            flowing.take().into_iter().for_each(|flowing| flowing.send(()).unwrap());
        });
        done.store(true, Ordering::Relaxed);
        let peer = client.local_addr().unwrap();
        let _ = client.shutdown(Shutdown::Write);
        Streamed { peer, got, end }
    })
}
