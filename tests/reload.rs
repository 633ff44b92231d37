//! SIGHUP reads the settings again while the server runs, and the service manager hears of it.

mod common;

use common::*;
use serde_json::{Value, json};
use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixDatagram,
    process::Command,
};

/// A server with a settings file of its own.
struct Reloadable {
    server: Server,
    place: Place,
}

impl Reloadable {
    fn start(test: &str, settings: &str) -> Self {
        Self::start_with(test, settings, |_| {})
    }

    fn start_with(test: &str, settings: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        let place = Place::new(test).with("a.toml", settings);
        let mut command = program(&[]);
        command.env("ECHO_SERVER_SETTINGS", place.path().join("a.toml"));
        prepare(&mut command);
        Self { server: Server::run(command), place }
    }

    /// With an Admin, and where that is.
    fn start_with_admin(test: &str, settings: &str, prepare: impl FnOnce(&mut Command)) -> (Self, SocketAddr) {
        let mut running = Self::start_with(test, settings, |command| {
            command.env("ECHO_SERVER_ADMIN__ADDRESS", "127.0.0.1:0");
            prepare(command);
        });
        let admin = running.server.log.wait("admin listening")["address"].as_str().unwrap().parse().unwrap();
        (running, admin)
    }

    fn reload(&mut self, settings: &str) {
        fs::write(self.place.path().join("a.toml"), settings).unwrap();
        self.server.signal(Signal::HUP);
    }

    /// Reloads, and gives the keys that the log says have changed.
    fn reloaded(&mut self, settings: &str) -> String {
        self.reload(settings);
        self.server.log.wait("settings reloaded")["changed"].as_str().unwrap().to_owned()
    }

    fn refused(&mut self) -> String {
        self.server.log.wait("settings not reloaded")["reason"].as_str().unwrap().to_owned()
    }
}

/// Says a line, and gives the line that comes back.
fn answer(client: &mut TcpStream, line: &str) -> String {
    client.write_all(line.as_bytes()).unwrap();
    let mut answer = vec![0; line.len()];
    client.read_exact(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

#[test]
fn a_raised_cap_serves_those_that_wait_and_a_lowered_one_throws_no_client_out() {
    let caps = |slots: usize, places: usize| {
        format!("supervisor.max_connections = {slots}\nsupervisor.max_pending = {places}\n")
    };
    let mut running = Reloadable::start("caps", &(caps(1, 2) + "log.level = \"debug\"\n"));
    let mut served = running.server.connect_served();
    let mut waits = [running.server.connect(), running.server.connect()];
    waits.iter().for_each(|client| drop(running.server.log.wait_of("connection waiting", client)));
    assert_eq!(running.reloaded(&caps(3, 0)), "supervisor.max_connections, supervisor.max_pending, log.level");
    waits.iter_mut().for_each(round_trip);
    assert_eq!(running.reloaded(&caps(1, 1)), "supervisor.max_connections, supervisor.max_pending");
    round_trip(&mut served);
    waits.iter_mut().for_each(round_trip);
    drop((served, waits));
    let mut next = running.server.connect();
    round_trip(&mut next);
    drop(next);
    running.server.stop().log.assert_all_accounted_for();
}

#[test]
fn each_key_that_can_be_in_force_at_once_is_told_of() {
    let mut running = Reloadable::start("keys", "");
    for (key, value) in [
        ("supervisor.max_connections", "7"),
        ("supervisor.max_pending", "7"),
        ("supervisor.max_restarts", "7"),
        ("supervisor.restart_window", "\"7s\""),
        ("supervisor.lame_duck", "\"1ms\""),
        ("supervisor.shutdown_timeout", "\"77s\""),
        ("connection.idle_timeout", "\"7h\""),
        ("connection.linger", "\"17s\""),
        ("connection.last_word", "\"7s\""),
        ("listen.proxy_protocol", "\"optional\""),
        ("listen.proxy_trusted", "[\"192.0.2.0/24\"]"),
        ("fault.delay", "\"7s\""),
        ("fault.wrong", "0.7"),
        ("fault.close", "0.7"),
        ("fault.crash", "0.7"),
        ("fault.ask", "true"),
        ("log.level", "\"debug\""),
    ] {
        let previous = running.reloaded(&format!("{key} = {value}\n"));
        // What the file said before is the default again.
        assert!(previous.contains(key), "{previous}");
    }
    // The log's new level is in force, and is reset by the next reading.
    let client = running.server.connect();
    running.server.log.wait_of("connection opened", &client);
    assert_eq!(
        running.reloaded("supervisor.lame_duck = \"1ms\"\nsupervisor.shutdown_timeout = \"77s\"\n").split(", ").count(),
        3
    );
    running.server.signal(Signal::TERM);
    assert_eq!(number(&running.server.log.wait("lame duck"), "for_ms"), 1);
    assert_eq!(number(&running.server.log.wait("stopping"), "timeout_ms"), 77_000);
    running.reload("");
    assert_eq!(running.refused(), "the server stops");
    drop(client);
    assert_eq!(running.server.end().code, Some(0));
}

#[test]
fn each_key_of_a_connection_is_in_force_for_the_next_one() {
    let mut running = Reloadable::start_with("next", "log.level = \"debug\"\n", |command| {
        command.env("ECHO_SERVER_SUPERVISOR__WORKERS", "1");
    });
    let mut stderr = running.server.process.stderr();
    // Reloads, and gives the next connection. What the file said before is the default again.
    let next = |running: &mut Reloadable, settings: &str| {
        running.reloaded(&format!("log.level = \"debug\"\n{settings}"));
        running.server.connect()
    };

    let mut idle = next(&mut running, "connection.idle_timeout = \"1ms\"\nconnection.linger = \"1h\"\n");
    assert_eq!(read_to_eof(&mut idle), b"");
    // This one is closed though its client is not.
    let left = next(&mut running, "connection.idle_timeout = \"1ms\"\nconnection.linger = \"1ms\"\n");
    assert_eq!(running.server.log.wait_of("connection closed", &left)["reason"], "idle");
    drop((idle, left));

    let header = "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n";
    let optional = "listen.proxy_protocol = \"optional\"\n";
    let mut balancer = next(&mut running, optional);
    balancer.write_all(header.as_bytes()).unwrap();
    round_trip(&mut balancer);
    running.server.log.wait_of("connection opened", &SocketAddr::from(([192, 0, 2, 1], 1)));
    let mut stranger = next(&mut running, &format!("{optional}listen.proxy_trusted = [\"192.0.2.0/24\"]\n"));
    assert_eq!(answer(&mut stranger, header), header, "it is data");
    drop((balancer, stranger));

    let mut wrong = next(&mut running, "fault.wrong = 1.0\n");
    assert_eq!(answer(&mut wrong, "message\n"), "Message\n");
    let mut closes = next(&mut running, "fault.close = 1.0\n");
    closes.write_all(b"message\n").unwrap();
    assert_eq!(read_to_eof(&mut closes), b"");
    let mut crashes = next(&mut running, "fault.crash = 1.0\n");
    crashes.write_all(b"message\n").unwrap();
    assert_eq!(crashes.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    drop((wrong, closes, crashes));

    let mut talks = next(&mut running, "connection.last_word = \"1h\"\n");
    round_trip(&mut talks);
    running.server.signal(Signal::TERM);
    // A Worker tells its connections first, and then its Acceptor.
    running.server.log.wait("acceptor stopped");
    round_trip(&mut talks);
    assert_eq!(read_to_eof(&mut talks), b"");
    drop(talks);
    assert_eq!(running.server.end().code, Some(0));
    let mut panics = String::new();
    stderr.read_to_string(&mut panics).unwrap();
    assert_eq!(panics.matches("panicked").count(), 1, "{panics}");
}

#[test]
fn faults_are_on_or_off_for_the_connections_that_come_after_a_reload() {
    let mut running = Reloadable::start("faults", "");
    let answer = |client: &mut TcpStream| answer(client, "fault: wrong\n");
    let (plain, wrong) = ("fault: wrong\n", "Fault: wrong\n");
    let mut before = running.server.connect();
    assert_eq!(answer(&mut before), plain);
    assert_eq!(running.reloaded("fault.ask = true\n"), "fault.ask");
    running.server.log.wait("faults on purpose");
    let mut faulty = running.server.connect();
    assert_eq!((answer(&mut before).as_str(), answer(&mut faulty).as_str()), (plain, wrong));
    assert_eq!(running.reloaded(""), "fault.ask");
    let mut after = running.server.connect();
    assert_eq!((answer(&mut before).as_str(), answer(&mut faulty).as_str()), (plain, wrong));
    assert_eq!(answer(&mut after), plain);
    drop((before, faulty, after));
    assert_eq!(running.server.stop().log.of("faults on purpose").len(), 1);
}

#[test]
fn what_needs_a_restart_is_named_at_each_reload_and_stays_as_it_is() {
    let mut running = Reloadable::start("restart", "supervisor.workers = 2\n");
    for _ in 0..2 {
        running.reload("supervisor.workers = 3\nlisten.backlog = 7\n");
        assert_eq!(running.server.log.wait("settings reloaded")["changed"], "");
        assert_eq!(running.server.log.wait("restart needed")["keys"], "listen.backlog, supervisor.workers");
    }
    let ended = running.server.stop();
    assert_eq!(ended.log.of("worker stopped").len(), 2);
}

#[test]
fn a_reload_warns_of_questionable_settings_as_a_start_does() {
    let mut running = Reloadable::start("questionable", "");
    assert_eq!(running.reloaded("supervisor.shutdown_timeout = \"1s\"\n"), "supervisor.shutdown_timeout");
    let warning = running.server.log.wait_next("questionable settings");
    assert!(warning["problem"].as_str().unwrap().contains("shutdown_timeout"), "{warning}");
    running.server.stop();
}

#[test]
fn a_file_that_is_wrong_in_any_way_changes_nothing_and_says_why() {
    let mut running = Reloadable::start("wrong", "supervisor.max_connections = 2\n");
    for (content, why) in [
        ("supervisor.max_connections = 0\n", "supervisor.max_connections"),
        ("supervisor.max_conections = 3\n", "max_conections"),
        ("[supervisor\n", "a.toml"),
        ("log.level = \"loud\"\n", "log.level"),
        ("connection.linger = 5\n", "connection.linger"),
        ("\u{0}", "a.toml"),
    ] {
        running.reload(content);
        let reason = running.refused();
        assert!(reason.contains(why) && !reason.contains('\n'), "{content:?}: {reason}");
    }
    let file = running.place.path().join("a.toml");
    fs::remove_file(&file).unwrap();
    running.server.signal(Signal::HUP);
    assert!(running.refused().contains("a.toml"));
    fs::create_dir(&file).unwrap();
    running.server.signal(Signal::HUP);
    assert!(running.refused().contains("a.toml"));
    round_trip(&mut running.server.connect());
    assert_eq!(running.server.stop().code, Some(0));
}

/// What the Admin shows of the settings, and whether they could be read last.
fn shown(admin: SocketAddr) -> (Value, f64) {
    let metrics = get(admin, "/metrics");
    (get(admin, "/v1/settings").json(), metrics.metric("echo_server_config_last_reload_successful")[""])
}

#[test]
fn a_reload_during_a_stop_changes_nothing_at_all_and_says_so() {
    let place = Place::new("stop-manager");
    let manager = UnixDatagram::bind(place.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let heard = || {
        let mut message = [0; 1024];
        manager.recv(&mut message).map(|n| String::from_utf8(message[..n].to_vec()).unwrap())
    };
    let at_first = "supervisor.shutdown_timeout = \"1h\"\nconnection.linger = \"1h\"\n";
    let (mut running, admin) = Reloadable::start_with_admin("stop", at_first, |command| {
        command.env("NOTIFY_SOCKET", place.path().join("notify"));
    });
    let mut client = running.server.connect();
    round_trip(&mut client);
    running.server.signal(Signal::TERM);
    running.server.log.wait("stopping");
    while !heard().unwrap().starts_with("STOPPING=1") {}
    let before = shown(admin);
    for content in
        ["log.level = \"critical\"\nfault.ask = true\nsupervisor.max_connections = 7\n", "log.level = \"loud\"\n"]
    {
        running.reload(content);
        assert_eq!(running.refused(), "the server stops");
        assert_eq!(shown(admin), before);
    }
    manager.set_nonblocking(true).unwrap();
    assert_eq!(heard().unwrap_err().kind(), ErrorKind::WouldBlock, "the manager hears of no reload");
    drop(client);
    let ended = running.server.end();
    assert_eq!(ended.code, Some(0));
    // The level is as it was, and no fault is on.
    ended.log.one("stopped");
    assert_eq!(ended.log.of("faults on purpose").len(), 0);
}

#[test]
fn a_lame_duck_serves_and_reloads_as_ever() {
    let (mut running, admin) = Reloadable::start_with_admin("duck", "supervisor.lame_duck = \"1h\"\n", |_| {});
    running.server.signal(Signal::TERM);
    running.server.log.wait("lame duck");
    let changed = running.reloaded("supervisor.shutdown_timeout = \"77s\"\nfault.ask = true\n");
    assert_eq!(changed, "supervisor.lame_duck, supervisor.shutdown_timeout, fault.ask");
    assert_eq!(shown(admin).0["settings"]["supervisor"]["shutdown_timeout"]["value"], "77s");
    let mut client = running.server.connect();
    client.write_all(b"fault: close\n").unwrap();
    assert_eq!(read_to_eof(&mut client), b"");
    running.server.signal_again(Signal::TERM);
    assert_eq!(number(&running.server.log.wait("stopping"), "timeout_ms"), 77_000);
    assert_eq!(running.server.end().code, Some(0));
}

#[test]
fn what_waits_for_a_restart_is_shown_with_the_value_that_is_in_force() {
    let at_first = "supervisor.workers = 2\nsupervisor.max_pending = 2\n";
    let (mut running, admin) = Reloadable::start_with_admin("waits", at_first, |_| {});
    let from = running.place.path().join("a.toml").display().to_string();
    for workers in [3, 4] {
        running.reloaded(&format!("supervisor.workers = {workers}\nsupervisor.max_pending = {workers}\n"));
        let (shown, successful) = shown(admin);
        let supervisor = &shown["settings"]["supervisor"];
        assert_eq!(supervisor["workers"], json!({ "value": 2, "from": from }));
        assert_eq!(supervisor["max_pending"]["value"], workers);
        assert_eq!((&shown["restart_needed"], successful), (&json!(["supervisor.workers"]), 1.0));
    }
    running.reloaded(at_first);
    assert_eq!(shown(admin).0["restart_needed"], json!([]));
    running.server.stop();
}

#[test]
fn a_storm_of_reloads_loses_no_message() {
    let mut running = Reloadable::start("storm", "");
    let address = running.server.address;
    let load = Client::start(address, &["--connections", "20", "--messages", "0", "--duration", "2s"]);
    for n in 0..200 {
        running.reload(&format!("supervisor.max_connections = {}\n", 20 + n % 3));
    }
    // Signals that come together are one, so there are fewer records.
    running.server.log.wait("settings reloaded");
    let run = load.end();
    assert_eq!((run.code, &run.report["lost"], &run.report["wrong"]), (0, &0.into(), &0.into()));
    running.server.stop().log.assert_totals_add_up();
}

#[test]
fn the_service_manager_hears_of_the_start_a_reload_and_the_stop() {
    let place = Place::new("manager");
    let path = place.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let heard = || {
        let mut message = [0; 1024];
        let n = manager.recv(&mut message).unwrap();
        String::from_utf8(message[..n].to_vec()).unwrap()
    };
    let mut running = Reloadable::start_with("managed", "", |command| {
        command.env("NOTIFY_SOCKET", &path);
    });
    assert_eq!(heard(), "READY=1\nSTATUS=serving\n");
    let mut client = running.server.connect();
    round_trip(&mut client);
    running.reload("supervisor.lame_duck = \"1h\"\n");
    let reloading = heard();
    let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    assert!(since.trim_end().parse::<u64>().unwrap() > 0, "{reloading}");
    assert_eq!(heard(), "READY=1\n");
    running.server.log.wait("settings reloaded");
    running.server.signal(Signal::TERM);
    assert_eq!(heard(), "STATUS=lame duck: not ready, still serving\n");
    running.server.signal_again(Signal::TERM);
    assert_eq!(heard(), "STOPPING=1\nSTATUS=stopping, connections to drain: 1\n");
    drop(client);
    assert_eq!(running.server.end().code, Some(0));
}
