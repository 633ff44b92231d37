//! What the Admin answers over HTTP, and what it refuses; and that its numbers, its events, the log and the report say the same.

mod common;

use common::*;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};
use supervised_echo::{Echo, Service, Settings, Socket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ENDPOINTS: [&str; 8] =
    ["/", "/livez", "/readyz", "/metrics", "/v1/tree", "/v1/connections", "/v1/events", "/v1/settings"];

/// The built server with an Admin, and where that is.
fn start(settings: &[(&str, &str)]) -> (Server, SocketAddr) {
    let address = free_address().to_string();
    let mut server = Server::start(&[&[("admin.address", &*address), ("log.level", "debug")], settings].concat());
    let admin = server.log.wait("admin listening")["address"].as_str().unwrap().parse().unwrap();
    wait_until("it is ready", || status(admin, "/readyz").0 == 200);
    (server, admin)
}

/// Settings for a server in this process, with an Admin.
fn shown() -> Settings {
    let mut settings = settings();
    settings.admin.address = Some(free_address());
    settings
}

fn status(admin: SocketAddr, path: &str) -> (u16, String) {
    let answer = get(admin, path);
    (answer.status, answer.body)
}

/// How many open connections a Worker of a tree has.
fn open(worker: &Value) -> u64 {
    worker["count"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum()
}

/// The lines of a refusal.
fn refused(admin: SocketAddr, request: &str) -> (u16, String) {
    let answer = ask(admin, request);
    (answer.status, answer.body)
}

// What is answered.

#[test]
fn every_endpoint_answers_get_and_head_with_the_same_headers() {
    let (server, admin) = start(&[]);
    for path in ENDPOINTS {
        let answer = |method, http| {
            let mut client = connect(admin);
            let request = format!("{method} {path} {http}\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            client.write_all(request.as_bytes()).unwrap();
            client
        };
        let head = Answer::read(answer("HEAD", "HTTP/1.1"));
        let mut headers = BTreeMap::new();
        if path == "/v1/events" {
            drop(Events::over(connect(admin)));
        } else {
            let get = Answer::read(answer("GET", "HTTP/1.1"));
            assert_eq!(
                (get.status, get.body.len().to_string()),
                (200, get.headers["content-length"].clone()),
                "{path}"
            );
            // Metrics and tree tell the time.
            let tells_time = ["/metrics", "/v1/tree"].contains(&path);
            assert!(tells_time || get.headers["content-length"] == head.headers["content-length"], "{path}");
            headers = get.headers;
        }
        assert_eq!((head.status, &*head.body), (200, ""), "{path}");
        for (name, value) in headers.into_iter().filter(|(name, _)| !["date", "content-length"].contains(&&**name)) {
            assert_eq!(head.headers.get(&name), Some(&value), "{path}");
        }
        assert_eq!(
            (&*head.headers["cache-control"], &*head.headers["x-content-type-options"]),
            ("no-store", "nosniff")
        );
    }
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn the_page_comes_with_a_policy_that_lets_nothing_else_in() {
    let (server, admin) = start(&[]);
    let page = get(admin, "/");
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    assert!(page.body.starts_with("<!doctype html>"));
    let policy = &page.headers["content-security-policy"];
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
    server.stop();
}

#[test]
fn a_tree_and_a_page_of_connections_are_as_their_schemas_say() {
    let (mut server, admin) = start(&[("supervisor.workers", "2"), ("supervisor.max_connections", "3")]);
    let mut clients: Vec<_> = (0..3).map(|_| server.connect_served()).collect();
    clients.iter_mut().for_each(round_trip);
    clients.push(server.connect());
    wait_until("one waits", || get(admin, "/v1/tree").json()["admission"]["waiting"] == 1);

    let tree = get(admin, "/v1/tree").json();
    assert_schema("tree.json", &tree);
    assert_eq!((&tree["phase"], &tree["stop"]), (&json!("running"), &Value::Null));
    assert_eq!(tree["server"]["listen"], server.address.to_string());
    assert_eq!((&tree["admission"]["served"], &tree["totals"]["accepted"]), (&json!(3), &json!(4)));
    let listed = |tree: &Value| -> Vec<Value> {
        let workers = tree["workers"].as_array().unwrap();
        workers.iter().flat_map(|worker| worker["connections"].as_array().unwrap().clone()).collect()
    };
    assert_eq!(listed(&tree).len(), 4);
    for (path, most) in [("/v1/tree?connections=0", 0), ("/v1/tree?connections=1", 1)] {
        let tree = get(admin, path).json();
        assert_schema("tree.json", &tree);
        for worker in tree["workers"].as_array().unwrap() {
            let (open, listed) = (open(worker), worker["connections"].as_array().unwrap().len() as u64);
            assert_eq!((listed, number(worker, "more")), (open.min(most), open - open.min(most)));
        }
    }

    let page = |query: &str| {
        let page = get(admin, &format!("/v1/connections{query}")).json();
        assert_schema("connections.json", &page);
        let ids: Vec<_> = page["connections"].as_array().unwrap().iter().map(|c| number(c, "connection")).collect();
        (ids, page["next"].as_u64())
    };
    assert_eq!(page(""), (vec![1, 2, 3, 4], None));
    assert_eq!(page("?limit=2"), (vec![1, 2], Some(2)));
    assert_eq!(page("?after=2&limit=2"), (vec![3, 4], None));
    assert_eq!(page("?after=0&limit=1"), (vec![1], Some(1)));
    assert_eq!(page("?state=waiting"), (vec![4], None));
    assert_eq!(page("?state=closing"), (vec![], None));
    for worker in tree["workers"].as_array().unwrap() {
        assert_eq!(page(&format!("?worker={}", worker["worker"])).0.len() as u64, open(worker));
    }
    assert_eq!(page("?worker=3"), (vec![], None));
    drop(clients);
    server.stop();
}

#[test]
fn the_settings_in_force_are_shown_with_their_origins() {
    let (server, admin) = start(&[("supervisor.max_pending", "7"), ("admin.hosts", "a.example, b.example")]);
    let shown = get(admin, "/v1/settings").json();
    assert_schema("settings.json", &shown);
    let [value, hosts] = [&shown["settings"]["supervisor"]["max_pending"], &shown["settings"]["admin"]["hosts"]];
    assert_eq!(value, &json!({ "value": 7, "from": "environment ECHO_SERVER_SUPERVISOR__MAX_PENDING" }));
    assert_eq!(hosts["value"], json!(["a.example", "b.example"]));
    assert_eq!(shown["settings"]["connection"]["linger"], json!({ "value": "1s", "from": "default" }));
    assert_eq!(shown["restart_needed"], json!([]));
    server.stop();

    // A server that was handed none has none to show.
    let server = InProcess::start(shown_with_workers(1), Echo);
    assert_eq!(status(server.admin.unwrap(), "/v1/settings"), (404, "no settings were handed in\n".into()));
    server.handle.stop();
    server.end();
}

fn shown_with_workers(workers: usize) -> Settings {
    let mut settings = shown();
    settings.supervisor.workers = workers;
    settings
}

// What is refused.

#[test]
fn what_is_refused_says_why_in_one_line() {
    let (server, admin) = start(&[("admin.hosts", "echo.example")]);
    let request = |line: &str, host: &str| format!("{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    for (line, host, expected) in [
        ("POST /livez", "localhost", 405),
        ("PUT /v1/tree", "localhost", 405),
        ("DELETE /", "localhost", 405),
        ("OPTIONS *", "localhost", 405),
        ("STOP /nowhere", "localhost", 405),
        ("GET /nowhere", "localhost", 404),
        ("GET /livez/", "localhost", 404),
        ("GET //", "localhost", 404),
        ("GET /v1/tree?connections=513", "localhost", 400),
        ("GET /v1/tree?connections=-1", "localhost", 400),
        ("GET /v1/tree?connections=", "localhost", 400),
        ("GET /v1/tree?connections=1&connections=2", "localhost", 400),
        ("GET /v1/tree?limit=1", "localhost", 400),
        ("GET /v1/connections?limit=0", "localhost", 400),
        ("GET /v1/connections?limit=1001", "localhost", 400),
        ("GET /v1/connections?after=x", "localhost", 400),
        ("GET /v1/connections?worker=0", "localhost", 400),
        ("GET /v1/connections?state=open", "localhost", 400),
        ("GET /readyz?exclude=everything", "localhost", 400),
        ("GET /livez?verbose", "localhost", 400),
        ("GET /metrics?x=1", "localhost", 400),
        ("GET /?x", "localhost", 400),
        ("GET /livez", "evil.example", 403),
        ("GET /livez", "localhost.evil.example", 403),
        ("POST /livez", "evil.example", 403),
        ("GET http://evil.example/livez", "localhost", 403),
    ] {
        let answer = ask(admin, &request(line, host));
        assert_eq!((answer.status, answer.body.lines().count()), (expected, 1), "{line} {host}: {answer:?}");
        assert_eq!(answer.headers.get("allow").map(|allow| &**allow), (expected == 405).then_some("GET, HEAD"));
    }
    for host in ["localhost:80", "127.0.0.1", "[::1]:8080", "ECHO.example"] {
        assert_eq!(refused(admin, &request("GET /livez", host)), (200, "ok\n".into()), "{host}");
    }
    assert_eq!(refused(admin, "GET /livez HTTP/1.0\r\n\r\n"), (200, "ok\n".into()), "no browser asks like this");
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn headers_that_are_too_large_are_refused() {
    let (server, admin) = start(&[]);
    for request in [
        format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(9000)),
        format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: x\r\n".repeat(200)),
    ] {
        let mut client = connect(admin);
        client.write_all(request.as_bytes()).unwrap();
        let mut first = [0; 12];
        client.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"HTTP/1.1 431");
    }
    server.stop();
}

#[test]
fn a_client_that_is_slow_with_its_headers_is_let_go() {
    let (server, admin) = start(&[]);
    for said in [&b""[..], b"GET /livez HTTP/1.1\r\nHost:", b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        let mut client = connect(admin);
        client.write_all(said).unwrap();
        // The last one has its answer, and that is all that one connection is for.
        read_to_eof(&mut client);
    }
    server.stop();
}

#[test]
fn more_clients_than_sixteen_wait_in_the_backlog() {
    let (server, admin) = start(&[]);
    let mut clients: Vec<_> = (0..17).map(|_| connect(admin)).collect();
    let waiting = || receive_queue(admin.port(), 0).expect("it listens");
    wait_until("sixteen are accepted", || waiting() == 1);
    clients[16].write_all(b"GET /livez HTTP/1.0\r\n\r\n").unwrap();
    drop(clients.remove(0));
    assert_eq!(Answer::read(clients.pop().unwrap()).status, 200);
    server.stop();
}

/// Asks for the connections again and again, until no one hears of the answers. As a browser does, it asks over the connection that
/// it has, as long as the server keeps that.
fn poll(admin: SocketAddr, answered: &Sender<()>) {
    loop {
        let mut client = connect(admin);
        let mut kept = true;
        while kept {
            client.write_all(b"GET /v1/connections HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            let answer = Answer::read(client.try_clone().unwrap());
            kept = answer.headers.get("connection").is_none_or(|connection| connection != "close");
            if answered.send(()).is_err() {
                return;
            }
        }
    }
}

#[test]
fn eight_pages_that_ask_all_the_time_leave_a_place_for_a_health_check() {
    let (server, admin) = start(&[]);
    let streams: Vec<_> = (0..8).map(|_| Events::of(admin)).collect();
    let (pages, answered): (Vec<_>, Vec<_>) = (0..8)
        .map(|_| {
            let (answered, heard) = channel();
            (thread::spawn(move || poll(admin, &answered)), heard)
        })
        .unzip();
    answered.iter().for_each(|page| page.recv().unwrap());
    assert_eq!(status(admin, "/livez"), (200, "ok\n".into()));
    drop(answered);
    pages.into_iter().for_each(|page| page.join().unwrap());
    drop(streams);
    server.stop();
}

#[test]
fn the_ninth_watcher_is_refused_until_another_one_goes() {
    let (server, admin) = start(&[]);
    let mut watchers: Vec<_> = (0..8).map(|_| Events::of(admin)).collect();
    let ninth = get(admin, "/v1/events");
    assert_eq!((ninth.status, &*ninth.body), (503, "8 others watch already\n"));
    assert!(ninth.headers["retry-after"].parse::<u32>().is_ok());
    assert_eq!(get(admin, "/metrics").metric("echo_server_watchers")[""], 8.0);
    watchers.pop();
    wait_until("there is a place", || {
        let mut client = connect(admin);
        client.write_all(b"HEAD /v1/events HTTP/1.0\r\n\r\n").unwrap();
        Answer::read(client).status == 200
    });
    assert_eq!(Events::of(admin).next().unwrap().0, "tree");
    server.stop();
}

#[test]
fn an_address_that_cannot_be_had_is_said_before_a_client_is_served() {
    let taken = std::net::TcpListener::bind(free_address()).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let run = finish(&mut program(&[("admin.address", &address)]));
    assert_eq!((run.code, &*run.out), (1, ""));
    assert!(run.err.starts_with(&format!("echo-server: cannot listen on {address}: ")), "{}", run.err);
    assert_eq!(run.err.lines().count(), 1);
}

#[test]
fn the_descriptors_of_an_admin_are_counted_if_it_is_on() {
    let reserved = |settings: &[(&str, &str)]| {
        let mut server = Server::run(with_settings(limited(), settings));
        number(&server.log.wait("caps lowered to fit the descriptor limit"), "reserved")
    };
    let address = free_address().to_string();
    assert_eq!(reserved(&[("admin.address", &address)]), reserved(&[]) + 22);
}

/// The server with a limit of descriptors that does not hold its caps.
fn limited() -> std::process::Command {
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -n 100; exec \"$0\"", SERVER]);
    command
}

// Health.

#[test]
fn a_full_house_is_not_ready_but_alive() {
    let (mut server, admin) = start(&[("supervisor.max_connections", "1"), ("supervisor.max_pending", "1")]);
    assert_eq!(status(admin, "/readyz"), (200, "ok\n".into()));
    let _served = server.connect_served();
    assert_eq!(status(admin, "/readyz"), (200, "ok\n".into()));
    let waiting = server.connect();
    wait_until("it is full", || status(admin, "/readyz") == (503, "room: 1 served, 1 waiting\n".into()));
    assert_eq!(status(admin, "/readyz?exclude=room"), (200, "ok\n".into()));
    assert_eq!(status(admin, "/livez"), (200, "ok\n".into()));
    drop(waiting);
    wait_until("there is room", || status(admin, "/readyz").0 == 200);
    server.stop();
}

#[test]
fn a_server_without_descriptors_is_not_ready() {
    let (mut server, admin) = start(&[("supervisor.workers", "1")]);
    assert_eq!(status(admin, "/readyz").0, 200);
    // These are accepted before, so the Admin needs no descriptor to answer them.
    let mut early = [connect(admin), connect(admin)].into_iter();
    wait_until("they are accepted", || receive_queue(admin.port(), 0) == Some(0));
    let mut readyz = || {
        let mut client = early.next().unwrap();
        client.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").unwrap();
        let answer = Answer::read(client);
        (answer.status, answer.body)
    };
    let soft = server.process.limit_descriptors(3);
    let _client = server.connect();
    server.log.wait("accept paused");
    assert_eq!(readyz(), (503, "descriptors: exhausted\n".into()));
    server.process.limit_descriptors(soft);
    server.log.wait("accept resumed");
    assert_eq!(readyz(), (200, "ok\n".into()));
    server.stop();
}

#[test]
fn while_it_stops_a_server_lives_and_is_not_ready() {
    let (server, admin) = start(&[LONG_LINGER, LONG_TIMEOUT, ("supervisor.workers", "1")]);
    let mut client = server.connect();
    round_trip(&mut client);
    server.signal(Signal::TERM);
    wait_until("it is not ready", || status(admin, "/readyz").0 == 503);
    wait_until("no Acceptor is left", || {
        status(admin, "/readyz") == (503, "phase: stopping\nacceptor: none accepts\n".into())
    });
    assert_eq!(status(admin, "/livez"), (200, "ok\n".into()));
    let tree = get(admin, "/v1/tree").json();
    assert_schema("tree.json", &tree);
    assert_eq!((&tree["phase"], &tree["stop"]["reason"]), (&json!("stopping"), &json!("SIGTERM")));
    assert_eq!(get(admin, "/metrics").metric("echo_server_phase")[r#"{phase="stopping"}"#], 1.0);
    drop(client);
    assert_eq!(server.end().code, Some(0));
    assert!(TcpStream::connect(admin).is_err(), "it is the last to go, and it goes");
}

/// Echoes; at a `!` it panics, at a `#` it holds its thread up until it may go on.
struct Moody {
    held: Sender<()>,
    go_on: Mutex<Receiver<()>>,
}

fn moody() -> (Moody, Receiver<()>, Sender<()>) {
    let ((held, is_held), (go_on, may_go_on)) = (channel(), channel());
    (Moody { held, go_on: Mutex::new(may_go_on) }, is_held, go_on)
}

impl Service for Moody {
    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        let mut bytes = [0; 64];
        loop {
            let n = socket.read(&mut bytes).await?;
            match bytes.get(..n.min(1)) {
                Some(b"!") => panic!("told to"),
                Some(b"#") => {
                    let _ = self.held.send(());
                    let _ = self.go_on.lock().unwrap().recv();
                }
                Some(b"") | None => return Ok(()),
                _ => socket.write_all(&bytes[..n]).await?,
            }
        }
    }
}

#[test]
fn a_worker_that_is_held_up_is_counted_though_it_does_not_answer() {
    let (service, held, go_on) = moody();
    let server = InProcess::start(shown_with_workers(2), service);
    let admin = server.admin.unwrap();
    let mut clients = [connect(server.address), connect(server.address)];
    clients.iter_mut().for_each(round_trip);
    clients[0].write_all(b"#").unwrap();
    held.recv().unwrap();
    let tree = get(admin, "/v1/tree").json();
    assert_schema("tree.json", &tree);
    let workers = tree["workers"].as_array().unwrap();
    let (silent, other): (Vec<_>, Vec<_>) = workers.iter().partition(|worker| worker["answered"] == false);
    let ([silent], [other]) = (&silent[..], &other[..]) else { panic!("one is held up: {tree}") };
    assert_eq!((&silent["connections"], number(silent, "more")), (&json!([]), open(silent)));
    assert_eq!(open(silent) + open(other), 2);
    assert_eq!(other["connections"].as_array().unwrap().len() as u64, open(other));
    let page = get(admin, "/v1/connections").json();
    assert_schema("connections.json", &page);
    assert_eq!(page["silent"], json!([silent["worker"]]));
    let metrics = get(admin, "/metrics");
    for worker in [silent, other] {
        let labels = format!(r#"{{worker="{}",state="serving"}}"#, worker["worker"]);
        assert_eq!(metrics.metric("echo_server_connections")[&*labels], open(worker) as f64);
    }
    assert_eq!(status(admin, "/livez"), (200, "ok\n".into()), "the other one answers");
    go_on.send(()).unwrap();
    drop(clients);
    server.handle.stop();
    server.end();
}

#[test]
fn a_server_of_which_all_threads_are_held_up_does_not_live() {
    let (service, held, go_on) = moody();
    let server = InProcess::start(shown_with_workers(1), service);
    let admin = server.admin.unwrap();
    let mut client = connect(server.address);
    client.write_all(b"#").unwrap();
    held.recv().unwrap();
    assert_eq!(status(admin, "/livez"), (503, "workers: no answer of any\n".into()));
    go_on.send(()).unwrap();
    wait_until("it lives again", || status(admin, "/livez").0 == 200);
    drop(client);
    server.handle.stop();
    server.end();
}

#[test]
fn clients_of_the_admin_that_ask_nothing_do_not_hold_up_an_end_by_force() {
    let (service, held, _go_on) = moody();
    let server = InProcess::start(shown_with_workers(1), service);
    let admin = server.admin.unwrap();
    let mut client = connect(server.address);
    client.write_all(b"#").unwrap();
    held.recv().unwrap();
    let _silent = connect(admin);
    let mut slow = connect(admin);
    slow.write_all(b"GET /livez HT").unwrap();
    let watcher = Events::of(admin);
    let abort = Instant::now();
    server.handle.abort();
    // The Worker is stuck, which alone takes half a second.
    assert_eq!(server.report().stuck.len(), 1);
    assert!(abort.elapsed() < Duration::from_secs(1), "{:?}", abort.elapsed());
    assert_eq!(watcher.last().unwrap().0, "report");
}

#[test]
fn a_server_of_which_the_main_thread_is_held_up_does_not_live() {
    let ((held, is_held), (go_on, may_go_on)) = (channel(), channel::<()>());
    let (held, may_go_on) = (Mutex::new(held), Mutex::new(may_go_on));
    let server = InProcess::start_with(shown_with_workers(1), Echo, move |record| {
        if record.msg().to_string() == "stopping" {
            held.lock().unwrap().send(()).unwrap();
            let _ = may_go_on.lock().unwrap().recv();
        }
    });
    let admin = server.admin.unwrap();
    let _client = connect(server.address);
    server.handle.stop();
    is_held.recv().unwrap();
    assert_eq!(status(admin, "/livez"), (503, "main: no answer\n".into()));
    go_on.send(()).unwrap();
    server.end();
}

// Events.

/// What a watcher knows from the events, and what must be true of their order.
#[derive(Default)]
struct Watcher {
    names: Vec<String>,
    /// The last change of each Worker.
    n: BTreeMap<u64, u64>,
    /// How many connections each Worker has.
    open: BTreeMap<u64, u64>,
    /// The last sums.
    sums: Value,
    last: Value,
}

impl Watcher {
    fn hear(&mut self, name: String, data: Value) {
        assert_schema("events.json", &json!({ "event": name, "data": data }));
        match &*name {
            "tree" => {
                let workers = data["workers"].as_array().unwrap();
                self.n = workers.iter().map(|worker| (number(worker, "worker"), number(worker, "n"))).collect();
                let open =
                    |worker: &Value| worker["count"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
                self.open = workers.iter().map(|worker| (number(worker, "worker"), open(worker))).collect();
            }
            "changes" => data.as_array().unwrap().iter().for_each(|change| self.change(change)),
            "totals" => self.sums = data,
            "report" => self.last = data,
            other => panic!("{other}"),
        }
        self.names.push(name);
    }

    fn change(&mut self, change: &Value) {
        let Some(worker) = change["worker"].as_u64() else { return };
        let (n, last) = (number(change, "n"), self.n.get_mut(&worker).expect("a tree came first"));
        if n <= *last {
            return; // it is in the tree already
        }
        assert_eq!(n, *last + 1, "a change is missing: {change}");
        *last = n;
        let open = self.open.get_mut(&worker).unwrap();
        match change["type"].as_str().unwrap() {
            "opened" => *open += 1,
            "closed" => *open -= 1,
            _ => {}
        }
    }

    /// Hears everything. It is heard in full before it is looked at: a watcher that is slow at the end is not waited for.
    fn to_the_end(events: impl Iterator<Item = (String, Value)>) -> Self {
        let mut watcher = Self::default();
        let all: Vec<_> = events.collect();
        all.into_iter().for_each(|(name, data)| watcher.hear(name, data));
        assert_eq!(watcher.names.first().map(|name| &**name), Some("tree"));
        assert_eq!(watcher.names.iter().filter(|name| *name == "report").count(), 1);
        assert_eq!(watcher.names.last().map(|name| &**name), Some("report"));
        assert!(watcher.open.values().all(|open| *open == 0), "{:?}", watcher.open);
        watcher
    }
}

#[test]
fn a_watcher_sees_the_tree_then_its_changes_and_at_the_end_the_report() {
    let (mut server, admin) = start(&[LONG_LINGER, LONG_TIMEOUT]);
    let mut events = Events::of(admin);
    let mut heard = vec![events.next().unwrap()];
    let client = server.connect_served();
    server.signal(Signal::TERM);
    while !heard.last().unwrap().1.to_string().contains(r#""step":"drain""#) {
        heard.push(events.next().unwrap());
    }
    drop(client);
    let code = server.end().code;
    heard.extend(events);
    let kinds: Vec<_> = heard.iter().map(|(name, _)| &**name).filter(|name| *name != "totals").collect();
    assert_eq!((kinds[0], kinds[kinds.len() - 1]), ("tree", "report"));
    assert!(kinds[1..kinds.len() - 1].iter().all(|kind| *kind == "changes"), "{kinds:?}");
    let changes: Vec<&Value> =
        heard.iter().filter(|(name, _)| name == "changes").flat_map(|(_, data)| data.as_array().unwrap()).collect();
    let at = |wanted: &Value| {
        let is = |change: &&Value| wanted.as_object().unwrap().iter().all(|(key, value)| change[key] == *value);
        changes.iter().position(is).unwrap_or_else(|| panic!("no {wanted} in {changes:?}"))
    };
    let order = [
        json!({ "type": "opened", "connection": 1 }),
        json!({ "type": "phase", "phase": "stopping", "reason": "SIGTERM", "owed": 1 }),
        json!({ "type": "step", "step": "drain" }),
        json!({ "type": "closed", "connection": 1 }),
        json!({ "type": "listener", "state": "closed" }),
        json!({ "type": "worker", "state": "stopped" }),
        json!({ "type": "phase", "phase": "stopped" }),
    ];
    let places: Vec<_> = order.iter().map(at).collect();
    assert!(places.is_sorted(), "{places:?} {changes:?}");
    // The last sums are those of the whole life.
    let [.., (name, sums), (_, report)] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!((&**name, &sums["totals"]["closed"]["stopped"]), ("totals", &json!(1)));
    assert_eq!((&sums["stop"]["owed"], &sums["stop"]["acknowledged"]), (&json!(1), &json!(1)));
    assert_eq!((number(report, "exit_code"), number(report, "acknowledged")), (code.unwrap() as u64, 1));
    heard.into_iter().for_each({
        let mut watcher = Watcher::default();
        move |(name, data)| watcher.hear(name, data)
    });
}

#[test]
fn sums_are_told_while_nothing_happens() {
    let (server, admin) = start(&[]);
    let events = Events::of(admin);
    // The last Acceptors may begin only now.
    let names: Vec<_> = events.map(|(name, _)| name).filter(|name| name != "changes").take(3).collect();
    assert_eq!(names, ["tree", "totals", "totals"]);
    server.stop();
}

#[test]
fn a_watcher_that_is_too_slow_gets_the_whole_tree_anew_and_goes_on_from_there() {
    let (server, admin) = start(&[]);
    let mut slow = Events::over(connect_with_small_buffer(admin));
    let address = server.address;
    for _ in 0..4000 {
        round_trip(&mut connect(address));
    }
    let mut heard = vec![slow.next().unwrap()];
    // It has lost something, so the tree comes once more.
    while heard.len() < 2 || heard.last().unwrap().0 != "tree" {
        heard.push(slow.next().unwrap());
    }
    server.signal(Signal::TERM);
    let watcher = Watcher::to_the_end(heard.into_iter().chain(slow));
    assert_eq!(number(&watcher.last, "exit_code"), 0);
    server.end();
}

#[test]
fn eight_watchers_see_a_stop_of_two_thousand_connections_to_its_report() {
    let (server, admin) = start(&[("supervisor.max_connections", "2000"), LONG_LINGER, LONG_TIMEOUT]);
    let watchers: Vec<_> = (0..8).map(|_| Events::of(admin)).collect();
    let mut clients: Vec<_> = (0..2000).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(round_trip);
    let hearing: Vec<_> =
        watchers.into_iter().map(|events| thread::spawn(move || Watcher::to_the_end(events))).collect();
    server.signal(Signal::TERM);
    clients.iter_mut().for_each(|client| assert!(read_to_eof(client).is_empty()));
    drop(clients);
    let ended = server.end();
    assert_eq!(ended.code, Some(0));
    let watchers: Vec<_> = hearing.into_iter().map(|watcher| watcher.join().unwrap()).collect();
    for watcher in &watchers {
        assert_eq!((number(&watcher.last, "acknowledged"), &watcher.n), (2000, &watchers[0].n));
    }
}

#[test]
fn tree_metrics_events_log_and_report_count_the_same_after_a_storm_with_crashes_and_a_stop() {
    const CLIENTS: u64 = 10_000;
    let (service, ..) = moody();
    let server = InProcess::start(shown_with_workers(2), service);
    let (address, admin) = (server.address, server.admin.unwrap());
    let events = Events::of(admin);
    let hearing = thread::spawn(move || Watcher::to_the_end(events));
    let storms = (0..4).map(|storm| {
        thread::spawn(move || {
            for n in 0..CLIENTS / 4 {
                let mut client = connect(address);
                round_trip(&mut client);
                match (storm + n) % 4 {
                    0 => reset(client),
                    1 => {
                        client.write_all(b"!").unwrap();
                        client.read(&mut [0]).unwrap_err();
                    }
                    _ => {}
                }
            }
        })
    });
    storms.collect::<Vec<_>>().into_iter().for_each(|storm| storm.join().unwrap());
    let mut staying: Vec<_> = (0..10).map(|_| connect(address)).collect();
    staying.iter_mut().for_each(round_trip);
    let sum = |closed: &Value| closed.as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum::<u64>();
    wait_until("the storm is over", || {
        sum(&get(admin, "/v1/tree?connections=0").json()["totals"]["closed"]) == CLIENTS
    });

    let (tree, metrics) = (get(admin, "/v1/tree").json(), get(admin, "/metrics"));
    let accepted: f64 = metrics.metric("echo_server_connections_accepted_total").values().sum();
    assert_eq!((accepted as u64, number(&tree["totals"], "accepted")), (CLIENTS + 10, CLIENTS + 10));
    let of_reason = |reason: &str| {
        let closed = metrics.metric("echo_server_connections_closed_total");
        closed
            .iter()
            .filter(|(labels, _)| labels.contains(&format!("\"{reason}\"")))
            .map(|(_, n)| *n as u64)
            .sum::<u64>()
    };
    let serving: f64 = metrics.metric("echo_server_connections").values().sum();
    assert_eq!(serving, 10.0);
    let bytes = ["received", "echoed", "discarded"].map(|key| number(&tree["totals"], key));
    // A message of 11 bytes each, and the `!` of every fourth one.
    assert_eq!(bytes, [(CLIENTS + 10) * 11 + CLIENTS / 4, (CLIENTS + 10) * 11, 0]);
    let measured = ["received", "sent", "discarded"]
        .map(|name| metrics.metric(&format!("echo_server_{name}_bytes_total")).values().sum::<f64>() as u64);
    assert_eq!(measured, bytes);
    let waits = metrics.metric("echo_server_wait_seconds_bucket");
    assert_eq!(waits[r#"{le="+Inf"}"#], metrics.metric("echo_server_wait_seconds_count")[""]);

    server.handle.stop();
    staying.iter_mut().for_each(|client| assert!(read_to_eof(client).is_empty()));
    drop(staying);
    let (report, log) = server.end();
    let closes = log.of("connection closed");
    for (reason, n) in tree["totals"]["closed"].as_object().unwrap() {
        let logged = closes.iter().filter(|close| close["reason"] == **reason).count() as u64;
        // The stop has ended those that stayed.
        let logged = if reason == "stopped" { logged - 10 } else { logged };
        assert_eq!((n.as_u64().unwrap(), of_reason(reason)), (logged, logged), "{reason}");
    }
    let watcher = hearing.join().unwrap();
    assert_eq!(number(&watcher.last, "acknowledged"), 10);
    let stopped = log.one("stopped");
    // No byte has come since.
    let keys = ["received", "echoed", "discarded"];
    let logged = keys.map(|key| closes.iter().map(|close| number(close, key)).sum::<u64>());
    let told = keys.map(|key| number(&watcher.sums["totals"], key));
    let summed_up = keys.map(|key| number(stopped, &format!("{key}_total")));
    assert_eq!([logged, told, summed_up], [bytes; 3]);
    assert_eq!([report.total.received, report.total.echoed, report.total.discarded], bytes);
    for (field, reported) in [
        ("acknowledged", report.acknowledged as u64),
        ("forced", report.forced as u64),
        ("crashed", report.crashed as u64),
        ("reset", report.reset as u64),
        ("failed", report.failed as u64),
        ("discarded", report.discarded),
    ] {
        assert_eq!((number(stopped, field), number(&watcher.last, field)), (reported, reported), "{field}");
    }
    assert_eq!(report.crashed as u64, number(&tree["totals"]["closed"], "crashed"));
    assert!(report.crashed > 0);
}
