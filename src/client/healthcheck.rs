//! Asks a running server for one echo, or its Admin whether it is alive.
//!
//! The first uses the client's own exchange once. A message that no other client sends must come back whole and unchanged. It
//! relies on nothing of the server but its protocol.

use crate::{
    client::{
        connect::{Connect, TcpServer},
        exchange::{Failure, echo},
        tally::Lost,
        verify::Difference,
    },
    decisions::{health_check, proxy_header},
    settings::ProxyProtocol,
};
use std::{
    io::{self, ErrorKind},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    process,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

/// The limit of the whole check, including the connect.
const LIMIT: Duration = Duration::from_secs(2);
/// The most bytes that are read of the Admin's answer.
const LONGEST_ANSWER: u64 = 16 << 10;

/// Makes one echo round trip to `address`, within two seconds.
///
/// It takes a slot like any client, so it fails while every slot is taken: it means "cannot serve you now". An orchestrator
/// that replaces unhealthy tasks, as Docker Swarm does, would replace a server that is merely full: ask [`live`] there. An
/// unspecified address (`0.0.0.0`, `[::]`) stands for its loopback. To a server that
/// requires a PROXY header it sends one that speaks for no other client.
///
/// # Errors
/// What the system said of the connect, `TimedOut` after two seconds, `UnexpectedEof` or `ConnectionReset` if the server ended
/// the connection first, or `InvalidData` if the reply is not what was sent.
pub async fn check(address: SocketAddr, proxy_protocol: ProxyProtocol) -> io::Result<()> {
    let header = if proxy_protocol == ProxyProtocol::Required { &proxy_header::LOCAL[..] } else { &[] };
    round_trip(&TcpServer::new(reachable(address).to_string()), header, LIMIT).await
}

/// Asks the Admin at `address` whether the server is alive: `GET /livez`, answered within two seconds.
///
/// It takes no slot, so a server that is merely full is alive. An unspecified address stands for its loopback.
///
/// # Errors
/// What the system said of the connect, `TimedOut` after two seconds, or `InvalidData` with the answer if that is not 200.
pub async fn live(address: SocketAddr) -> io::Result<()> {
    let asked = async {
        let mut stream = TcpStream::connect(reachable(address)).await?;
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.take(LONGEST_ANSWER).read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let no_answer = || io::Error::new(ErrorKind::TimedOut, format!("no answer within {LIMIT:?}"));
    let answer = timeout(LIMIT, asked).await.unwrap_or_else(|_| Err(no_answer()))?;
    if answer.starts_with("HTTP/1.1 200 ") {
        return Ok(());
    }
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let said = if body.is_empty() { head.lines().next().unwrap_or("nothing") } else { body.trim_end() };
    Err(io::Error::new(ErrorKind::InvalidData, format!("not alive: {said}")))
}

async fn round_trip<C: Connect>(server: &C, header: &[u8], limit: Duration) -> io::Result<()> {
    let deadline = Instant::now() + limit;
    let message = unique_message();
    let echoed = async {
        let (mut stream, _) = server.connect(deadline, |_, _| ()).await?;
        stream.write_all(header).await?;
        echo(&mut stream, message.as_bytes()).await.map_err(reason)
    };
    let echoed = timeout_at(deadline, echoed).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
    echoed.map_err(|error| match error.kind() {
        ErrorKind::TimedOut => io::Error::new(ErrorKind::TimedOut, format!("no echo within {limit:?}")),
        _ => error,
    })
}

/// What came instead of the echo, for people.
fn reason(failure: Failure) -> io::Error {
    match failure {
        Failure::Wrong(Difference { offset, expected, got }) => io::Error::new(
            ErrorKind::InvalidData,
            format!("the reply is not what was sent: at byte {offset} \"{got}\" instead of \"{expected}\""),
        ),
        Failure::Lost(Lost::Closed) => {
            io::Error::new(ErrorKind::UnexpectedEof, "the server closed before the whole echo")
        }
        Failure::Lost(Lost::Reset) => {
            io::Error::new(ErrorKind::ConnectionReset, "the server reset the connection before the whole echo")
        }
        // One message is neither behind another nor waits for room.
        Failure::Lost(Lost::Timeout | Lost::Unsent | Lost::Abandoned) => ErrorKind::TimedOut.into(),
    }
}

/// Turns an address to listen on into one to connect to: "any" becomes the loopback of its family.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        _ => return address,
    };
    SocketAddr::new(ip, address.port())
}

/// The message differs from that of every other check. So a server that answers from a script or a cache is found out.
fn unique_message() -> String {
    health_check::message(process::id(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::{expect_end, receive, scripted};
    use std::net::TcpListener;
    use tokio::{io::DuplexStream, time::sleep};

    /// Serves one connection with `serve` and gives what the check says of it.
    async fn checked(limit: Duration, serve: impl AsyncFnOnce(DuplexStream)) -> io::Result<()> {
        let (server, mut clients) = scripted();
        let serving = async { serve(clients.accept().await).await };
        tokio::join!(round_trip(&*server, &[], limit), serving).0
    }

    /// Serves one connection with a reply to the message. The check hangs up.
    async fn replied(reply: impl Fn(&str) -> String) -> io::Result<()> {
        let serve = async |mut stream: DuplexStream| {
            let message = receive(&mut stream).await;
            stream.write_all(reply(&message).as_bytes()).await.unwrap();
            expect_end(stream).await;
        };
        checked(LIMIT, serve).await
    }

    #[tokio::test(start_paused = true)]
    async fn an_echo_is_healthy() {
        let result = replied(str::to_owned).await;
        assert!(result.is_ok(), "{result:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_echo_in_pieces_is_healthy() {
        let pieces = async |mut stream: DuplexStream| {
            for byte in receive(&mut stream).await.bytes() {
                stream.write_all(&[byte]).await.unwrap();
                sleep(Duration::from_millis(1)).await;
            }
        };
        let result = checked(LIMIT, pieces).await;
        assert!(result.is_ok(), "{result:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_prefixed_echo_is_not_an_echo_and_the_first_difference_is_named() {
        let error = replied(|message| format!("error reading data: {}", &message[..20])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        let said = error.to_string();
        assert!(
            said.starts_with("the reply is not what was sent: at byte 0 \"error reading da\" instead of"),
            "{said}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_echo_with_more_behind_it_is_not_an_echo() {
        let error = replied(|message| format!("{message}!")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(error.to_string().ends_with("\"!\" instead of \"\""), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wrong_reply_is_not_waited_for_to_the_end() {
        let started = Instant::now();
        let result = checked(Duration::from_secs(600), async |mut stream| {
            receive(&mut stream).await;
            stream.write_all(b"x").await.unwrap();
            expect_end(stream).await;
        });
        assert_eq!(result.await.unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_closes_early_is_unhealthy() {
        let error = checked(LIMIT, async |mut stream| drop(receive(&mut stream).await)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        assert_eq!(error.to_string(), "the server closed before the whole echo");
    }

    #[tokio::test]
    async fn a_server_that_resets_is_unhealthy() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            stream.peek(&mut [0]).unwrap();
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        });
        let error = check(address, ProxyProtocol::Off).await.unwrap_err();
        server.join().unwrap();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(error.to_string(), "the server reset the connection before the whole echo");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_is_unhealthy_at_the_limit() {
        let started = Instant::now();
        let silent = async |mut stream: DuplexStream| {
            receive(&mut stream).await;
            expect_end(stream).await;
        };
        let error = checked(LIMIT, silent).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(error.to_string(), "no echo within 2s");
        assert_eq!(started.elapsed(), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_does_not_answer_the_connect_is_unhealthy_at_the_limit() {
        let (server, _clients) = scripted();
        server.hangs.set(true);
        let error = round_trip(&*server, &[], LIMIT).await.unwrap_err();
        assert_eq!(error.to_string(), "no echo within 2s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickling_server_is_unhealthy_at_the_limit() {
        // Each byte comes within a timeout of its own, but the last one comes far behind the limit.
        let started = Instant::now();
        let trickling = async |mut stream: DuplexStream| {
            for byte in receive(&mut stream).await.bytes() {
                if stream.write_all(&[byte]).await.is_err() {
                    break;
                }
                sleep(Duration::from_millis(600)).await;
            }
        };
        let error = checked(LIMIT, trickling).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(started.elapsed() < 2 * LIMIT, "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn a_closed_port_is_unhealthy() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(check(address, ProxyProtocol::Off).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }

    /// What the check says of an Admin that answers with these bytes.
    async fn answered(answer: &'static [u8]) -> io::Result<()> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            assert!(request.starts_with(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n"));
            stream.write_all(answer).await.unwrap();
        };
        tokio::join!(live(address), serve).0
    }

    #[tokio::test]
    async fn an_admin_that_answers_200_says_that_the_server_is_alive_and_any_other_answer_is_named() {
        assert!(answered(b"HTTP/1.1 200 OK\r\n\r\nok\n").await.is_ok());
        for (answer, said) in [
            (
                &b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 22\r\n\r\nworker 2: no answer\n"[..],
                "worker 2: no answer",
            ),
            (b"HTTP/1.1 403 Forbidden\r\n\r\n", "HTTP/1.1 403 Forbidden"),
            (b"SSH-2.0\r\n", "SSH-2.0"),
            (b"", "nothing"),
        ] {
            let error = answered(answer).await.unwrap_err();
            assert_eq!((error.kind(), error.to_string()), (ErrorKind::InvalidData, format!("not alive: {said}")));
        }
    }

    #[tokio::test]
    async fn an_admin_that_answers_nothing_is_waited_for_up_to_the_limit() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = live(listener.local_addr().unwrap()).await.unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::TimedOut, "no answer within 2s".into()));
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
