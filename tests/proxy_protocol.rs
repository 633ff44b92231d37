//! PROXY headers: a balancer tells the address of its client, and the server believes those that it trusts.
//!
//! The headers are what HAProxy has sent: see `captures/README.md`.

mod common;

use common::*;
use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
};
use supervised_echo::{
    Echo, Settings,
    decisions::proxy_header::{More, Step, decide},
    settings::ProxyProtocol::{self, Optional, Required},
};

const SENT: &[u8] = b"hello";

/// What HAProxy has sent, and for which client.
struct Capture {
    name: &'static str,
    bytes: Vec<u8>,
    client: Option<SocketAddr>,
}

impl Capture {
    fn of(name: &'static str, client: Option<&str>) -> Self {
        let text = fs::read_to_string(format!("tests/captures/{name}.hex")).unwrap();
        let digits: Vec<u8> = text.trim().chars().map(|digit| digit.to_digit(16).unwrap() as u8).collect();
        let bytes = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        Self { name, bytes, client: client.map(|client| client.parse().unwrap()) }
    }

    fn all() -> Vec<Self> {
        vec![
            Self::of("v1-ipv4", Some("127.9.8.7:40001")),
            Self::of("v1-ipv6", Some("[::1]:40004")),
            Self::of("v2-ipv4", Some("127.9.8.7:40002")),
            Self::of("v2-ipv6", Some("[::1]:40005")),
            Self::of("v2-tlvs", Some("127.9.8.7:40003")),
            Self::of("v2-local-check", None),
        ]
    }

    fn header(&self) -> &[u8] {
        self.bytes.strip_suffix(SENT).unwrap_or(&self.bytes)
    }
}

fn start(proxy_protocol: ProxyProtocol, change: impl FnOnce(&mut Settings)) -> InProcess {
    let mut settings = settings();
    settings.supervisor.workers = 1;
    settings.listen.proxy_protocol = proxy_protocol;
    settings.connection.linger = PATIENCE / 3;
    settings.supervisor.shutdown_timeout = PATIENCE / 2;
    settings.admin.address = Some(free_address());
    change(&mut settings);
    InProcess::start(settings, Echo)
}

fn connect_with(server: &InProcess, bytes: &[u8]) -> TcpStream {
    let mut client = connect(server.address);
    client.write_all(bytes).unwrap();
    client
}

/// The only connection of a listing.
fn listed(server: &InProcess) -> serde_json::Value {
    let listing = get(server.admin.unwrap(), "/v1/connections").json();
    let [connection] = &listing["connections"].as_array().unwrap()[..] else { panic!("not one: {listing}") };
    connection.clone()
}

fn is_reset(client: &mut TcpStream) -> bool {
    client.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

#[test]
fn what_haproxy_sends_is_read_whole_and_in_any_pieces() {
    for capture in Capture::all() {
        let (length, client) = (capture.header().len(), capture.client);
        for n in 0..length {
            assert_eq!(decide(&capture.bytes[..n], true, More::Open), Ok(Step::Wait), "{} {n}", capture.name);
        }
        for n in length..=capture.bytes.len() {
            let step = decide(&capture.bytes[..n], true, More::Open);
            assert_eq!(step, Ok(Step::Serve { length, client }), "{} {n}", capture.name);
        }
    }
}

#[test]
fn the_true_peer_is_in_log_tree_and_listing_and_bytes_are_counted_behind_the_header() {
    let mut server = start(Required, |_| {});
    for capture in Capture::all() {
        let mut client = connect_with(&server, capture.header());
        client.write_all(SENT).unwrap();
        client.read_exact(&mut [0; SENT.len()]).unwrap();
        let peer = capture.client.unwrap_or_else(|| client.local_addr().unwrap()).to_string();
        let connection = listed(&server);
        assert_eq!(
            (&connection["peer"], &connection["received"]),
            (&peer.clone().into(), &5.into()),
            "{}",
            capture.name
        );
        let tree = get(server.admin.unwrap(), "/v1/tree").json();
        assert_eq!(tree["workers"][0]["connections"][0]["peer"], peer);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_eof(&mut client), b"");
        assert_eq!(server.log.wait("connection opened")["peer"], peer);
        let close = server.log.wait("connection closed");
        assert_eq!((&close["peer"], &close["reason"]), (&peer.into(), &"client".into()));
        assert_eq!((number(&close, "received"), number(&close, "echoed"), number(&close, "discarded")), (5, 5, 0));
    }
    server.handle.stop();
    server.report();
    let stopped = server.log.wait("stopped");
    assert_eq!((number(&stopped, "received_total"), number(&stopped, "echoed_total")), (30, 30));
}

#[test]
fn a_header_that_comes_in_two_pieces_is_taken_wherever_it_is_cut() {
    let server = start(Required, |_| {});
    for capture in Capture::all() {
        for cut in 1..capture.header().len() {
            let (first, rest) = capture.bytes.split_at(cut);
            let mut client = connect_with(&server, first);
            wait_until_arrived(&client);
            client.write_all(rest).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let sent = capture.bytes.strip_prefix(capture.header()).unwrap();
            assert_eq!(read_to_eof(&mut client), sent, "{} {cut}", capture.name);
        }
    }
}

#[test]
fn a_connection_with_a_wrong_header_is_reset_and_the_log_says_why() {
    let untrusted = |settings: &mut Settings| settings.listen.proxy_trusted = vec!["192.0.2.0/24".parse().unwrap()];
    let version_3 = [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x31, 0x11, 0, 12], &[1; 12]].concat();
    let too_long = [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x21, 0x11, 0xff, 0xff]].concat();
    let whole = Capture::of("v1-ipv4", None).bytes;
    for (sent, trusts, error) in [
        (&b"PROXY TCP4 1.2.3.4 nonsense 1 2\r\n"[..], true, "a malformed PROXY header"),
        (&version_3, true, "a malformed PROXY header"),
        (&too_long, true, "too long a PROXY header"),
        (SENT, true, "no PROXY header"),
        (&whole, false, "not from a trusted network"),
    ] {
        let mut server = start(Required, |settings| {
            if !trusts {
                untrusted(settings)
            }
        });
        let mut client = connect_with(&server, sent);
        assert!(is_reset(&mut client), "{error}");
        let close = server.log.wait_of("connection closed", &client);
        assert_eq!((&close["reason"], &close["level"]), (&"header".into(), &"WARN".into()));
        assert_eq!((&close["error"], &close["received"]), (&error.into(), &0.into()));
        let closed = get(server.admin.unwrap(), "/v1/tree").json()["totals"]["closed"]["header"].clone();
        assert_eq!(closed, 1);
        server.handle.stop();
        assert_eq!(server.report().exit_code(), 0);
    }
}

#[test]
fn a_header_cut_short_by_the_end_of_input_is_malformed_and_a_client_that_says_nothing_ends_well() {
    let mut server = start(Required, |_| {});
    let mut cut = connect_with(&server, b"PROXY TCP4 ");
    cut.shutdown(Shutdown::Write).unwrap();
    assert!(is_reset(&mut cut));
    assert_eq!(server.log.wait("connection closed")["error"], "a malformed PROXY header");
    let mut silent = connect(server.address);
    silent.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_eof(&mut silent), b"");
    assert_eq!(server.log.wait_of("connection closed", &silent)["reason"], "client");
}

#[test]
fn slow_headers_hold_up_no_other_client_and_are_reset_in_the_end() {
    let mut server = start(Required, |_| {});
    let capture = Capture::of("v2-ipv4", None);
    let mut slow: Vec<_> = (0..20).map(|n| connect_with(&server, &capture.header()[..n])).collect();
    let mut client = connect_with(&server, &capture.bytes);
    client.read_exact(&mut [0; SENT.len()]).unwrap();
    round_trip(&mut client);
    for client in &mut slow {
        assert!(is_reset(client));
        let close = server.log.wait_of("connection closed", client);
        let error = "a PROXY header that did not come in time";
        assert_eq!((&close["reason"], &close["error"]), (&"header".into(), &error.into()));
    }
    round_trip(&mut client);
}

#[test]
fn where_a_header_is_optional_a_client_without_one_is_served_and_one_that_is_not_trusted_is_not_believed() {
    let mut server = start(Optional, |_| {});
    let mut plain = connect(server.address);
    round_trip(&mut plain);
    server.log.wait_of("connection opened", &plain);
    let capture = Capture::of("v1-ipv4", Some("127.9.8.7:40001"));
    let mut proxied = connect_with(&server, &capture.bytes);
    proxied.read_exact(&mut [0; SENT.len()]).unwrap();
    assert_eq!(server.log.wait("connection opened")["peer"], "127.9.8.7:40001");
    // It is served when it has said nothing for some seconds.
    let silent = connect(server.address);
    server.log.wait_of("connection opened", &silent);

    let server = start(Optional, |settings| settings.listen.proxy_trusted = vec!["::1".parse().unwrap()]);
    let mut untrusted = connect_with(&server, &capture.bytes);
    untrusted.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_eof(&mut untrusted), capture.bytes, "it is data");
}

#[test]
fn a_client_in_the_queue_is_known_by_its_header_and_at_a_stop_its_header_is_not_due() {
    let mut server = start(Required, |settings| {
        settings.supervisor.max_connections = 1;
        settings.connection.last_word = PATIENCE;
    });
    let [v1, v2] = [Capture::of("v1-ipv4", None), Capture::of("v2-ipv4", None)];
    let mut served = connect_with(&server, &v1.bytes);
    served.read_exact(&mut [0; SENT.len()]).unwrap();
    let mut sent = connect_with(&server, &v2.bytes);
    assert_eq!(server.log.wait("connection waiting")["peer"], "127.9.8.7:40002");
    // This one has sent its header and nothing else.
    let mut quiet = connect_with(&server, v1.header());
    assert_eq!(server.log.wait("connection waiting")["peer"], "127.9.8.7:40001");
    // These have sent no header, or a part of one, when the stop comes.
    let mut silent = connect(server.address);
    let mut part = connect_with(&server, &v2.bytes[..20]);
    wait_until_arrived(&part);
    wait_until("all are accepted", || server.handle.status().waiting == 4);
    server.handle.stop();
    assert_eq!(read_to_eof(&mut sent), SENT);
    for client in [&mut served, &mut quiet] {
        round_trip(client);
        assert_eq!(read_to_eof(client), b"");
    }
    silent.write_all(&v1.bytes).unwrap();
    assert_eq!(read_to_eof(&mut silent), SENT);
    part.write_all(&v2.bytes[20..]).unwrap();
    assert_eq!(read_to_eof(&mut part), SENT);
    drop((served, sent, quiet, silent, part));
    let report = server.report();
    assert_eq!((report.acknowledged, report.forced, report.reset), (5, 0, 0));
}

#[test]
fn at_a_stop_without_last_words_a_client_without_a_header_gets_its_end_at_once() {
    let server = start(Required, |settings| {
        settings.supervisor.max_connections = 1;
        settings.supervisor.max_pending = 1;
    });
    let served = connect(server.address);
    wait_until("it is accepted", || server.handle.status().served == 1);
    let waits = connect(server.address);
    wait_until("it is accepted", || server.handle.status().waiting == 1);
    let mut clients = [served, waits, connect(server.address)];
    server.handle.stop();
    clients.iter_mut().for_each(|client| assert_eq!(read_to_eof(client), b""));
    drop(clients);
    assert_eq!(server.report().acknowledged, 3);
}

#[test]
fn a_health_check_sends_the_header_that_its_settings_require() {
    let server = start(Required, |_| {});
    let check = |required: &str| {
        let mut check = command(SERVER);
        check.env("ECHO_SERVER_LISTEN__PROXY_PROTOCOL", required);
        finish(check.args(["healthcheck", &server.address.to_string()])).code
    };
    assert_eq!((check("required"), check("off")), (0, 1));
    server.handle.stop();
    let report = server.report();
    assert_eq!((report.total.received, report.total.echoed), (0, 0), "a health check is in no sum");
}
