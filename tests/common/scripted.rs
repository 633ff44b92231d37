//! Servers that a test writes, for the client and the health check: the test says how each connection is served.

use super::{PATIENCE, free_address};
use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    sync::mpsc::{Receiver, channel},
    thread,
};

/// What a server does with one connection.
pub type Serve = Box<dyn FnOnce(TcpStream) + Send>;

/// A server that a test has written.
pub struct Scripted {
    pub address: SocketAddr,
    /// Whether it is done.
    done: Receiver<()>,
}

impl Scripted {
    /// Serves one connection after another, each in its own way. After the last one the server is gone.
    pub fn start(connections: Vec<Serve>) -> Self {
        Self::on(free_address(), connections)
    }

    /// As `start`, on a given address.
    pub fn on(address: impl ToSocketAddrs, connections: Vec<Serve>) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (finished, done) = channel();
        thread::spawn(move || {
            for connection in connections {
                let (stream, _) = listener.accept().unwrap();
                stream.set_nodelay(true).unwrap();
                connection(stream);
            }
            drop(listener);
            finished.send(()).unwrap();
        });
        Self { address, done }
    }

    /// Waits until it has served its last connection without a failure.
    pub fn join(self) {
        self.done.recv_timeout(PATIENCE).expect("the server has served every connection");
    }
}

/// An address on which no server listens.
pub fn closed_port() -> SocketAddr {
    TcpListener::bind(free_address()).unwrap().local_addr().unwrap()
}

/// Reads the next message, with its newline.
pub fn receive(stream: &mut TcpStream) -> Vec<u8> {
    let mut message = Vec::new();
    while message.last() != Some(&b'\n') {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        message.push(byte[0]);
    }
    message
}

/// Echoes one message, and gives it.
pub fn echo(stream: &mut TcpStream) -> Vec<u8> {
    let message = receive(stream);
    stream.write_all(&message).unwrap();
    message
}

/// Waits until the client has ended or reset the connection.
pub fn await_end(mut stream: TcpStream) {
    while stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {}
}

pub fn echo_until_end(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => stream.write_all(&buffer[..count]).unwrap(),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Reads one message, never answers it, and stays until the client ends the connection. Passes the message on.
pub fn silent() -> (Serve, Receiver<Vec<u8>>) {
    let (arrived, message) = channel();
    let serve = move |mut stream: TcpStream| {
        arrived.send(receive(&mut stream)).unwrap();
        await_end(stream);
    };
    (Box::new(serve), message)
}
