//! Asks a running server for one echo.
//!
//! It relies on nothing of the server but its protocol: a message that nobody else sends must come back, whole and
//! unchanged, within two seconds. It blocks, for it is all that its process does.
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    process,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// What the whole round trip may take, the connect included.
const LIMIT: Duration = Duration::from_secs(2);

/// Makes one echo round trip to `address`, within two seconds.
///
/// It takes a slot like any client, so with every slot taken it fails: it means "cannot serve you now". An orchestrator
/// that replaces unhealthy tasks, as Docker Swarm does, would replace a server that is merely full: give that one a
/// `max_connections` with room to spare. An unspecified address (`0.0.0.0`, `[::]`) stands for its loopback.
///
/// # Errors
/// What the system said, `TimedOut` after two seconds, `UnexpectedEof` if the server closed first, or `InvalidData` if
/// the reply is not what was sent.
pub fn check(address: SocketAddr) -> io::Result<()> {
    round_trip(address, LIMIT)
}

fn round_trip(address: SocketAddr, limit: Duration) -> io::Result<()> {
    let deadline = Instant::now() + limit;
    let message = unique_message();
    let result = connect(address, deadline).and_then(|mut stream| {
        stream.set_write_timeout(Some(remaining(deadline)?))?;
        stream.write_all(message.as_bytes())?;
        expect_echo(&mut stream, message.as_bytes(), deadline)
    });
    // A socket's own timeout reads "Resource temporarily unavailable".
    result.map_err(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            io::Error::new(ErrorKind::TimedOut, format!("no echo within {limit:?}"))
        }
        _ => error,
    })
}

fn connect(address: SocketAddr, deadline: Instant) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&reachable(address), remaining(deadline)?)
}

/// Compares as it reads, so that neither an endless nor a trickling reply is waited for. One byte more than was sent
/// fits the buffer: a longer reply shows.
fn expect_echo(stream: &mut TcpStream, sent: &[u8], deadline: Instant) -> io::Result<()> {
    let mut reply = vec![0; sent.len() + 1];
    let mut received = 0;
    while received < sent.len() {
        stream.set_read_timeout(Some(remaining(deadline)?))?;
        match stream.read(&mut reply[received..]) {
            Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the server closed before the whole echo")),
            Ok(count) => received += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if !sent.starts_with(&reply[..received]) {
            return Err(io::Error::new(ErrorKind::InvalidData, "the reply is not what was sent"));
        }
    }
    Ok(())
}

/// What is left until the deadline. A socket would take a timeout of zero for none at all.
fn remaining(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// An address to listen on is not one to connect to: "any" becomes the loopback of its family.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        _ => return address,
    };
    SocketAddr::new(ip, address.port())
}

/// Differs from that of every other check, so that a server that answers from a script or a cache is found out.
fn unique_message() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("healthcheck {} {}\n", process::id(), now.as_nanos())
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    /// Serves one connection with `serve` and answers what the check says of it.
    fn checked(limit: Duration, serve: impl FnOnce(TcpStream) + Send + 'static) -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || serve(listener.accept().unwrap().0));
        let result = round_trip(address, limit);
        server.join().unwrap();
        result
    }

    fn receive(stream: &mut TcpStream) -> Vec<u8> {
        let mut message = vec![0; 1024];
        let count = stream.read(&mut message).unwrap();
        message.truncate(count);
        message
    }

    /// Waits until the check has hung up.
    fn await_end(mut stream: TcpStream) {
        while stream.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
    }

    #[test]
    fn an_echo_is_healthy() {
        let result = checked(LIMIT, |mut stream| {
            let message = receive(&mut stream);
            stream.write_all(&message).unwrap();
        });
        assert!(result.is_ok(), "{result:?}");
    }

    #[test]
    fn an_echo_in_pieces_is_healthy() {
        let result = checked(LIMIT, |mut stream| {
            stream.set_nodelay(true).unwrap();
            for byte in receive(&mut stream) {
                stream.write_all(&[byte]).unwrap();
            }
        });
        assert!(result.is_ok(), "{result:?}");
    }

    #[test]
    fn a_prefixed_echo_is_not_an_echo() {
        let result = checked(LIMIT, |mut stream| {
            let message = receive(&mut stream);
            stream.write_all(&[b"error reading data: ", &message[..]].concat()).unwrap();
            await_end(stream);
        });
        assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn an_echo_with_more_behind_it_is_not_an_echo() {
        let result = checked(LIMIT, |mut stream| {
            let message = receive(&mut stream);
            stream.write_all(&[&message[..], b"!"].concat()).unwrap();
            await_end(stream);
        });
        assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn a_wrong_reply_is_not_waited_for_to_the_end() {
        let result = checked(Duration::from_secs(600), |mut stream| {
            stream.write_all(b"x").unwrap();
            await_end(stream);
        });
        assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn a_server_that_closes_early_is_unhealthy() {
        let result = checked(LIMIT, |mut stream| {
            let message = receive(&mut stream);
            stream.write_all(&message[1..][..0]).unwrap();
        });
        assert_eq!(result.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_silent_server_is_unhealthy_at_the_limit() {
        let error = checked(Duration::from_millis(50), await_end).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(error.to_string(), "no echo within 50ms");
    }

    #[test]
    fn a_trickling_server_is_unhealthy_at_the_limit() {
        // Each byte comes in time for a timeout of its own, but the last far behind the limit.
        let started = Instant::now();
        let error = checked(Duration::from_millis(100), |mut stream| {
            for byte in receive(&mut stream) {
                if stream.write_all(&[byte]).is_err() {
                    break;
                }
                thread::sleep(Duration::from_millis(60));
            }
        });
        assert_eq!(error.unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    }

    #[test]
    fn a_closed_port_is_unhealthy() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(check(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }

    #[test]
    fn any_address_is_reached_by_its_loopback() {
        for (given, reached) in [
            ("0.0.0.0:7", "127.0.0.1:7"),
            ("[::]:7", "[::1]:7"),
            ("10.0.0.1:7", "10.0.0.1:7"),
            ("[fe80::1]:7", "[fe80::1]:7"),
        ] {
            assert_eq!(reachable(given.parse().unwrap()), reached.parse().unwrap());
        }
    }

    #[test]
    fn no_two_messages_are_alike() {
        let first = unique_message();
        let another = (0..1000).map(|_| unique_message()).find(|message| *message != first);
        assert!(another.is_some());
    }
}
