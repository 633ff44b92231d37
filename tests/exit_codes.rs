//! The server's exit codes, what it does with few descriptors, the health check against it, and the addresses it serves. 78
//! and 2 have their tests in `settings.rs`, and that a stop exits with 0 is asserted in every test of one.

mod common;

use common::*;
use std::{
    io::Write,
    net::{Shutdown, SocketAddr, TcpListener},
    process::Command,
};

/// Exit code of a health check.
fn health(address: SocketAddr) -> i32 {
    finish(program(&[]).arg("healthcheck").arg(address.to_string())).code
}

/// The server under a hard limit of descriptors.
fn limited(descriptors: u64, settings: &[(&str, &str)]) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -n {descriptors} && exec \"$0\""), SERVER]);
    with_settings(shell, settings)
}

#[test]
fn an_occupied_address_exits_with_1_and_is_named() {
    let occupied = TcpListener::bind(free_address()).unwrap();
    let address = occupied.local_addr().unwrap().to_string();
    let Finished { code, out, err } = finish(&mut program(&[("listen.address", &address)]));
    assert_eq!((code, &*out), (1, ""));
    assert_eq!(err, format!("echo-server: cannot listen on {address}: Address already in use (os error 98)\n"));
}

#[test]
fn giving_up_exits_with_1_even_if_connections_had_to_be_forced_after_it() {
    let mut server = Server::start(&[("supervisor.max_restarts", "0"), ("supervisor.shutdown_timeout", "0s")]);
    let mut client = server.connect();
    round_trip(&mut client);
    server.listener().0.shutdown(Shutdown::Both).unwrap();
    server.log.wait("acceptor given up");
    let ended = server.end();
    assert_eq!((ended.code, number(ended.log.one("stopped"), "forced")), (Some(1), 1));
    assert_eq!(ended.log.one("stopping")["reason"], "restarts");
    ended.log.assert_all_accounted_for();
}

#[test]
fn a_connection_that_is_forced_exits_with_3() {
    let mut server = Server::start(&[("supervisor.shutdown_timeout", "0s")]);
    let mut client = server.connect();
    round_trip(&mut client);
    server.signal(Signal::TERM);
    server.log.wait_of("connection closed", &client);
    let ended = server.end();
    assert_eq!((ended.code, number(ended.log.one("stopped"), "forced")), (Some(3), 1));
    let warning = ended.log.one("questionable settings");
    assert_eq!(warning["level"], "warn");
    assert!(
        warning["problem"].as_str().unwrap().starts_with("supervisor.shutdown_timeout, 0s, is shorter"),
        "{warning}"
    );
}

#[test]
fn few_descriptors_lower_max_pending_first_then_max_connections_and_a_warning_has_all_the_numbers() {
    for (asked, asked_pending) in [("30", "100"), ("1000", "100")] {
        let settings = [
            ("supervisor.workers", "2"),
            ("supervisor.max_connections", asked),
            ("supervisor.max_pending", asked_pending),
            ("log.level", "debug"),
        ];
        let mut server = Server::run(limited(100, &settings));
        let warning = server.log.wait("caps lowered to fit the descriptor limit");
        assert_eq!((warning["level"].as_str(), number(&warning, "limit")), (Some("warn"), 100));
        let room = 100 - number(&warning, "reserved");
        let asked: u64 = asked.parse().unwrap();
        let connections = asked.min(room);
        assert!(0 < room && room < 100 - 16, "16 are spare: {warning}");
        assert_eq!((number(&warning, "max_connections_asked"), number(&warning, "max_pending_asked")), (asked, 100));
        for told in [&warning, &server.listening] {
            let caps = (number(told, "max_connections"), number(told, "max_pending"));
            assert_eq!(caps, (connections, room - connections));
        }

        // The promise is kept: all that fit are let in, and it never runs out.
        let clients: Vec<_> = (0..room + 2).map(|_| server.connect()).collect();
        let (served, waiting) = clients[..room as usize].split_at(connections as usize);
        for client in served {
            server.log.wait_of("connection opened", client);
        }
        for client in waiting {
            server.log.wait_of("connection waiting", client);
        }
        drop(clients);
        let ended = server.stop();
        assert_eq!(ended.code, Some(0));
        assert!(ended.log.of("accept paused").is_empty(), "{:?}", ended.log);
    }
}

#[test]
fn enough_descriptors_lower_nothing() {
    let server = Server::run(limited(
        100,
        &[("supervisor.workers", "1"), ("supervisor.max_connections", "10"), ("supervisor.max_pending", "10")],
    ));
    assert_eq!(number(&server.listening, "max_connections"), 10);
    assert_eq!(server.stop().log.messages()[0], "listening");
}

#[test]
fn descriptors_for_not_even_one_connection_exit_with_1() {
    let Finished { code, out, err } = finish(&mut limited(24, &[("supervisor.workers", "2")]));
    assert_eq!((code, &*out), (1, ""));
    assert!(err.starts_with("echo-server: the limit of 24 file descriptors leaves none for a connection"), "{err}");
    assert_eq!(err.lines().count(), 1);
}

#[test]
fn the_health_check_exits_with_0_if_it_is_served_and_with_1_if_it_is_not() {
    let mut server =
        Server::start(&[("supervisor.max_connections", "1"), ("supervisor.max_pending", "1"), ("log.level", "debug")]);
    assert_eq!(health(server.address), 0);
    let client = server.connect();
    server.log.wait_of("connection opened", &client);
    assert_eq!(health(server.address), 1, "a full house cannot serve it");
    drop(client);
    assert_eq!(health(server.address), 0);
    let address = server.address;
    assert_eq!(server.stop().code, Some(0));
    assert_eq!(health(address), 1, "nothing listens there");
}

#[test]
fn a_full_house_is_alive_and_one_without_an_admin_cannot_be_asked() {
    let admin = free_address().to_string();
    let mut server = Server::start(&[
        ("admin.address", &admin),
        ("supervisor.max_connections", "1"),
        ("supervisor.max_pending", "1"),
    ]);
    let admin = server.log.wait("admin listening")["address"].as_str().unwrap().to_owned();
    let settings = [("admin.address", &*admin)];
    let mut client = server.connect();
    round_trip(&mut client);
    let live =
        |settings: &[(&str, &str)], args: &[&str]| finish(program(settings).args(["healthcheck", "--live"]).args(args));
    assert_eq!(health(server.address), 1, "no echo");
    for (settings, args) in [(&settings[..], &[][..]), (&[], &[&*admin])] {
        let Finished { code, out, err } = live(settings, args);
        assert_eq!((code, &*out, &*err), (0, "", ""));
    }
    let Finished { code, err, .. } = live(&[], &[]);
    assert_eq!(
        (code, &*err),
        (78, "echo-server: admin.address: not set, so no one can say whether the server is alive\n")
    );
    assert_eq!(server.stop().code, Some(0));
    let Finished { code, err, .. } = live(&settings, &[]);
    assert_eq!(code, 1);
    assert!(err.starts_with(&format!("echo-server: healthcheck of {admin}: Connection refused")), "{err}");
}

/// Whether this system has IPv6 at all.
fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

#[test]
fn ipv6_is_served() {
    if !has_ipv6() {
        return eprintln!("not tested: no IPv6 here");
    }
    let mut server = Server::start(&[("listen.address", "[::1]:0"), ("log.level", "debug")]);
    let mut client = server.connect_served();
    client.write_all(b"owed").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_eof(&mut client), b"owed");
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn a_dual_stack_server_serves_both_families_and_names_ipv4_peers_as_such() {
    if !has_ipv6() {
        return eprintln!("not tested: no IPv6 here");
    }
    let mut server = Server::start(&[("listen.address", "[::]:0"), ("log.level", "debug")]);
    let port = server.address.port();
    for address in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        let mut client = connect(address.parse().unwrap());
        server.log.wait_of("connection opened", &client);
        round_trip(&mut client);
        let name = client.local_addr().unwrap();
        drop(client);
        server.log.wait_of("connection closed", &name);
    }
    assert_eq!(server.stop().code, Some(0));
}
