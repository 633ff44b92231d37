//! A closed loop: every connection sends a message, waits for as many bytes to come back, and sends the next.
//!
//! It must cost less than the server does, or it would be the load that is measured: one thread over epoll, edge-triggered.
//! One event is one read and one write.

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    fd::OwnedFd,
};
use socket2::{Domain, Socket, Type};
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

/// Connections that are opened before their echoes are waited for: every backlog has room for them, and on a busy machine a
/// server gets its turn once for all of them.
const BATCH: usize = 500;

/// What is sent.
pub struct Shape {
    pub connections: usize,
    /// Bytes of a message.
    pub size: usize,
    /// Every message has a connection of its own, which is closed by FIN, as most are, and answered by FIN.
    pub reconnect: bool,
}

pub struct Load {
    address: SocketAddr,
    reconnect: bool,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    message: Vec<u8>,
    echo: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    sent: usize,
    received: usize,
    /// Echoes that are still to come.
    left: u64,
}

/// How the server ended the connections.
#[derive(Debug)]
pub struct Ends {
    pub clean: usize,
    pub reset: usize,
}

impl Load {
    /// Connects; each connection has had an echo, so it is not in the backlog.
    pub fn connect(address: SocketAddr, shape: &Shape) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut connections = Vec::with_capacity(shape.connections);
        while connections.len() < shape.connections {
            let connect = |_| {
                let mut stream = TcpStream::connect(address)?;
                stream.write_all(&[0])?;
                Ok(stream)
            };
            let batch = (connections.len()..shape.connections).take(BATCH).map(connect);
            for mut stream in batch.collect::<io::Result<Vec<_>>>()? {
                stream.read_exact(&mut [0])?;
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                watch(&epoll, &stream, connections.len())?;
                connections.push(Connection { stream, sent: 0, received: 0, left: 0 });
            }
        }
        let (message, echo) = (vec![b'x'; shape.size], vec![0; shape.size]);
        Ok(Self { address, reconnect: shape.reconnect, epoll, connections, message, echo })
    }

    /// Every connection makes this many echoes, one after the other.
    pub fn run(&mut self, echoes: u64) -> io::Result<()> {
        for n in 0..self.connections.len() {
            self.connections[n].left = echoes;
            self.begin(n)?;
        }
        let (mut running, mut events) = (self.connections.len(), Vec::<Event>::with_capacity(256));
        while running > 0 {
            epoll::wait(&self.epoll, spare_capacity(&mut events), None)?;
            for event in events.drain(..) {
                running -= usize::from(self.advance(event.data.u64() as usize, event.flags)?);
            }
        }
        Ok(())
    }

    fn begin(&mut self, n: usize) -> io::Result<()> {
        let connection = &mut self.connections[n];
        (connection.sent, connection.received) = (0, 0);
        if self.reconnect {
            connection.stream = begin_to_connect(self.address)?;
            watch(&self.epoll, &connection.stream, n)?;
        }
        connection.send(&self.message)
    }

    /// Goes on with one connection as far as it can, and says whether that was its last echo. A short read has emptied the
    /// socket, so the next edge is sure to come.
    fn advance(&mut self, n: usize, ready: EventFlags) -> io::Result<bool> {
        let (connection, size) = (&mut self.connections[n], self.message.len());
        if connection.left == 0 {
            return Ok(false);
        }
        if ready.contains(EventFlags::OUT) && connection.sent < size {
            connection.send(&self.message)?;
        }
        if !ready.contains(EventFlags::IN) {
            return Ok(false);
        }
        let room = (size - connection.received).max(1); // at least one, to see the end
        let ended = match or_would_block(connection.stream.read(&mut self.echo[..room]))? {
            None => return Ok(false),
            Some(0) if self.reconnect && connection.received == size => true,
            Some(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Some(read) => {
                connection.received += read;
                false
            }
        };
        if connection.received < size {
            return Ok(false);
        }
        if self.reconnect && !ended {
            connection.stream.shutdown(Shutdown::Write)?;
            return Ok(false);
        }
        connection.left -= 1;
        let last = connection.left == 0;
        if !last {
            self.begin(n)?;
        }
        Ok(last)
    }

    /// Waits until the server has ended all connections, closes each when it ends, and gives how they ended. Those that have
    /// not after `patience` without any end are in neither count.
    pub fn ends(self, patience: Duration) -> io::Result<Ends> {
        let patience = Timespec::try_from(patience).expect("it is short");
        let mut streams: Vec<_> = self.connections.into_iter().map(|connection| Some(connection.stream)).collect();
        let (mut ends, mut events) = (Ends { clean: 0, reset: 0 }, Vec::<Event>::with_capacity(256));
        while ends.clean + ends.reset < streams.len() {
            if epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&patience))? == 0 {
                break;
            }
            for event in events.drain(..) {
                let stream = &mut streams[event.data.u64() as usize];
                match stream.as_ref().map(|mut stream| stream.read(&mut [0])) {
                    Some(Ok(0)) => ends.clean += 1,
                    Some(Err(error)) if error.kind() == ErrorKind::ConnectionReset => ends.reset += 1,
                    Some(Err(error)) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                    _ => continue,
                }
                *stream = None;
            }
        }
        Ok(ends)
    }
}

impl Connection {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.sent += or_would_block(self.stream.write(&message[self.sent..]))?.unwrap_or(0);
        Ok(())
    }
}

fn begin_to_connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

fn watch(epoll: &OwnedFd, stream: &TcpStream, n: usize) -> io::Result<()> {
    let both = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
    Ok(epoll::add(epoll, stream, EventData::new_u64(n as u64), both)?)
}

fn or_would_block(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        result => result.map(Some),
    }
}
