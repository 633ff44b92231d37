//! Docker Swarm replaces, adds, takes away and loses servers under traffic. The verdict over all clients, and the books of all servers,
//! say what that costs.
//!
//! Each scenario has a fresh cluster: three nodes, which are containers with an engine of their own (`compose/swarm/cluster.sh`). The
//! stack is that of the checkout. A test asks Swarm again and again whether it is done, because Swarm has no event for that. Where
//! no node can start, the tests are reported as ignored.

mod common;
mod docker;

use common::{CLIENT, Finished, Records, command, finish_with, number, run_in_turn, tests, trial};
use docker::{BUILD, Checkout, Running, must, sh};
use serde_json::Value;
use std::{
    fs::{self, File},
    path::Path,
    process::ExitCode,
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

/// The longest that Swarm may take for a change. It is longer than `PATIENCE`: it replaces one server after the other.
const CHANGE: Duration = Duration::from_secs(240);
/// The pause between two questions to Swarm: each of them starts a process in a node.
const BETWEEN: Duration = Duration::from_millis(200);
/// What the clients send, with its newline: each message as long as the others, so that messages can be compared with bytes.
const MESSAGE: &str = "0123456789\n";

fn main() -> ExitCode {
    static OBSTACLE: LazyLock<Option<String>> = LazyLock::new(obstacle);
    let tests = tests![
        a_roll_and_scaling_out_and_in_lose_nothing,
        a_roll_and_scaling_out_and_in_lose_nothing_behind_two_balancers,
        a_roll_of_the_balancers_loses_nothing,
        a_bad_release_is_taken_back_and_no_client_notices,
        a_machine_that_is_killed_is_named_and_replaced,
    ];
    let there = "docker ps --quiet --all --filter label=com.docker.compose.project=echo-nodes";
    if sh(Path::new("."), there).is_ok_and(|nodes| !nodes.is_empty()) {
        eprintln!("a cluster is there already; these tests would take it down: {NODES} down --volumes");
        return ExitCode::FAILURE;
    }
    // The nodes' names and the machine are the same for all of them.
    run_in_turn(tests.into_iter().map(|(name, test)| trial(name, || OBSTACLE.clone(), test)))
}

/// Why no cluster can run here, if none can.
fn obstacle() -> Option<String> {
    if let Some(reason) = docker::obstacle() {
        return Some(reason);
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut built =
        Running::start(here, "docker build --tag echo-node --file compose/swarm/Dockerfile.node compose/swarm");
    if !built.exit(BUILD).success() {
        return Some(format!("no image of a node: {}", built.output().lines().last().unwrap_or_default()));
    }
    let started =
        sh(here, &format!("{NODES} up --detach --wait && docker exec {FIRST} docker swarm init --advertise-addr eth0"));
    down();
    started.err().map(|error| format!("no node starts: {}", error.lines().last().unwrap_or_default()))
}

fn a_roll_and_scaling_out_and_in_lose_nothing() {
    roll_and_scale(DIRECT);
}

fn a_roll_and_scaling_out_and_in_lose_nothing_behind_two_balancers() {
    roll_and_scale(BALANCED);
}

fn roll_and_scale(variables: Variables) {
    let cluster = Cluster::start(variables);
    cluster.start_clients();
    cluster.roll("server");
    cluster.scale("server", 5);
    cluster.scale("server", 2);
    cluster.close(0).assert_nothing_lost();
}

fn a_roll_of_the_balancers_loses_nothing() {
    let cluster = Cluster::start(BALANCED);
    cluster.start_clients();
    cluster.roll("haproxy");
    cluster.roll("server");
    cluster.close(0).assert_nothing_lost();
}

fn a_bad_release_is_taken_back_and_no_client_notices() {
    let cluster = Cluster::start(DIRECT);
    cluster.start_clients();
    cluster.checkout.set("server", &[("max_connections", "\"none\"")]);
    // The service alone: to deploy the stack again would scale the clients to what its file says, to none.
    cluster.manager("config create bad /checkout/settings/server.toml");
    let settings = "--config-rm server-1 --config-add source=bad,target=/settings/server.toml";
    cluster.manager(&format!("service update --detach {settings} echo_server"));
    cluster.wait_until("rolled back", |cluster| cluster.update("server") == "rollback_completed");
    // It ended with the code for wrong settings.
    let tasks = cluster.manager("service ps echo_server --no-trunc --format '{{.CurrentState}} {{.Error}}'");
    assert!(tasks.lines().any(|task| task.contains("exit (78)")), "{tasks}");
    cluster.wait_until("three servers", |cluster| cluster.runs("server", 3));
    assert!(cluster.clients_run(), "the clients are there all the time");
    cluster.close(0).assert_nothing_lost();
}

fn a_machine_that_is_killed_is_named_and_replaced() {
    let cluster = Cluster::start(DIRECT);
    // Only servers are on the machine that is killed.
    cluster.manager("service update --detach --constraint-add node.role==manager echo_client");
    cluster.start_clients();
    must(Path::new("."), "docker kill echo-nodes-node-3");
    cluster.wait_until("Swarm knows it", |cluster| cluster.manager("node ls").contains("Down"));
    cluster.wait_until("three servers again", |cluster| {
        let running = "service ps echo_server --filter desired-state=running --format '{{.CurrentState}}'";
        cluster.manager(running).lines().filter(|task| task.starts_with("Running")).count() == 3
    });
    let books = cluster.close(1);
    assert_eq!((books.started, books.stopped, books.verdict), (4, 3, 1), "one never said that it stopped: {books:?}");
    // Each connection to the lost machine had one message out at most. Those that were out are lost, and nothing is wrong.
    assert!(books.lost > 0 && books.lost <= 24 && books.wrong == 0, "{books:?}");
    assert_eq!(books.due, books.verified + books.lost, "{books:?}");
    // What the lost machine has echoed stands in no log.
    assert!(books.echoed < books.verified * MESSAGE.len() as u64, "{books:?}");
    for named in [
        "open: 1 of 4 servers never said stopped: killed, or the log is cut off\n",
        " verified bytes are in no log: a server never said how many it echoed\n",
        "\nlost by     ",
    ] {
        assert!(books.told.contains(named), "{named}: {}", books.told);
    }
}

// The cluster.

const NODES: &str = "docker compose -f compose/swarm/nodes.yaml";
const FIRST: &str = "echo-nodes-node-1";

type Variables = &'static [(&'static str, &'static str)];
/// The clients take the addresses of the servers by turns.
const DIRECT: Variables = &[("SERVER", "server:12345"), ("BALANCERS", "0"), ("DURATION", "0s")];
const BALANCED: Variables = &[("SERVER", "haproxy:12345"), ("BALANCERS", "2"), ("DURATION", "0s")];

/// A swarm of three nodes with the stack of a checkout. It is taken down when the test ends.
struct Cluster {
    checkout: Checkout,
}

impl Cluster {
    fn start(variables: Variables) -> Self {
        static IMAGES: LazyLock<()> = LazyLock::new(|| {
            for (image, of) in [
                ("echo-server", "--file Dockerfile.server ."),
                ("echo-client", "--file Dockerfile.client ."),
                ("echo-haproxy", "compose/haproxy"),
            ] {
                let here = Path::new(env!("CARGO_MANIFEST_DIR"));
                let mut built = Running::start(here, &format!("docker build --tag {image} {of}"));
                assert!(built.exit(BUILD).success(), "{}", built.output());
            }
        });
        LazyLock::force(&IMAGES);
        let checkout = Checkout::copy();
        checkout.set("client", &[("message", &format!("{:?}", MESSAGE.trim_end()))]);
        let images = "echo-server echo-client echo-haproxy";
        let mut started = Running::start(checkout.path(), &format!("sh compose/swarm/cluster.sh 3 {images}"));
        if !started.exit(CHANGE).success() {
            down();
            panic!("{}", started.output());
        }
        let cluster = Self { checkout };
        cluster.deploy(variables);
        cluster.wait_until("three servers", |cluster| cluster.runs("server", 3));
        let balancers = variables.iter().find(|(name, _)| *name == "BALANCERS").expect("it is said").1.parse().unwrap();
        cluster.wait_until("the balancers", |cluster| cluster.runs("haproxy", balancers));
        cluster
    }

    fn deploy(&self, variables: &[(&str, &str)]) {
        let variables: String = variables.iter().map(|(name, value)| format!("--env {name}={value} ")).collect();
        let deploy = "docker stack deploy --compose-file /checkout/compose/swarm/stack.yaml echo";
        must(self.checkout.path(), &format!("docker exec {variables} {FIRST} {deploy}"));
    }

    /// Runs a command of the manager's Docker.
    fn manager(&self, line: &str) -> String {
        must(Path::new("."), &format!("docker exec {FIRST} docker {line}"))
    }

    fn runs(&self, service: &str, replicas: usize) -> bool {
        self.replicas(service) == format!("{replicas}/{replicas}")
    }

    /// How many of a service run, and how many are wanted: `2/3`.
    fn replicas(&self, service: &str) -> String {
        self.manager(&format!("service ls --filter name=echo_{service} --format '{{{{.Replicas}}}}'"))
    }

    /// Swarm does not start a client again, so one that did not start is made up for by one more.
    fn start_clients(&self) {
        self.wait_until("six clients", |cluster| {
            let wanted = 6 + cluster.not_started("client");
            if !cluster.replicas("client").ends_with(&format!("/{wanted}")) {
                cluster.order("client", wanted);
            }
            cluster.clients_run()
        });
    }

    /// Containers that did not start because their engine could not give them their settings. That is rare:
    /// <https://github.com/moby/moby/issues/48783>.
    fn not_started(&self, service: &str) -> usize {
        let errors = self.manager(&format!("service ps --no-trunc --format '{{{{.Error}}}}' echo_{service}"));
        errors.lines().filter(|error| error.contains("unable to remount")).count()
    }

    fn clients_run(&self) -> bool {
        self.replicas("client") == format!("6/{}", 6 + self.not_started("client"))
    }

    /// Where its last update stands. `service update` returns before it is done.
    fn update(&self, service: &str) -> String {
        self.manager(&format!(
            "service inspect --format '{{{{with .UpdateStatus}}}}{{{{.State}}}}{{{{end}}}}' echo_{service}"
        ))
    }

    fn order(&self, service: &str, replicas: usize) {
        self.manager(&format!("service scale --detach echo_{service}={replicas}"));
    }

    fn scale(&self, service: &str, replicas: usize) {
        self.order(service, replicas);
        self.wait_until(&format!("{replicas} of {service}"), |cluster| cluster.runs(service, replicas));
    }

    /// Replaces all its tasks, one after the other. Swarm takes this back if one does not start.
    fn roll(&self, service: &str) {
        let replace = || self.manager(&format!("service update --detach --force echo_{service}"));
        replace();
        self.wait_until(&format!("{service} is rolled"), |cluster| {
            let state = cluster.update(service);
            if state == "rollback_completed" && cluster.not_started(service) > 0 {
                replace();
            }
            state == "completed"
        });
    }

    fn wait_until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + CHANGE;
        while !is_so(self) {
            if Instant::now() > deadline {
                panic!(
                    "not so: {what}\n{}",
                    self.manager("service ps --no-trunc echo_server echo_haproxy echo_client")
                );
            }
            thread::sleep(BETWEEN);
        }
    }

    /// The lines of every container that has run on a node, also on one that was killed.
    fn log(&self) -> Vec<String> {
        must(Path::new("."), &format!("docker exec {FIRST} sh -c 'cat /logs/*'")).lines().map(str::to_owned).collect()
    }

    /// Ends the clients, then the servers. Gives the books, once all servers but `lost` have said that they have stopped.
    fn close(self, lost: usize) -> Books {
        self.scale("client", 0);
        self.wait_until("six reports", |cluster| reports(&cluster.log()).len() == 6);
        self.order("server", 0);
        self.wait_until("all have stopped", |cluster| {
            let records = records(&cluster.log());
            records.of("stopped").len() + lost == records.of("listening").len()
        });
        let log = self.log();
        let verdict = finish_with(command(CLIENT).args(["merge", "--expect", "6", "-"]), self.saved(&log));
        let books = Books::of(&reports(&log), &records(&log), verdict);
        println!("{}{books:#?}", books.told);
        books
    }

    /// A file with these lines, to be read.
    fn saved(&self, lines: &[String]) -> File {
        let path = self.checkout.path().join("log");
        fs::write(&path, lines.join("\n")).unwrap();
        File::open(path).unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        down();
    }
}

fn down() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut down = Running::start(here, &format!("{NODES} down --volumes --timeout 0"));
    assert!(down.exit(CHANGE).success(), "{}", down.output());
}

// The books.

/// The records of a log that also has lines of other programs.
fn records(log: &[String]) -> Records {
    Records(log.iter().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// The clients' reports.
fn reports(log: &[String]) -> Vec<Value> {
    records(log).0.into_iter().filter(|record| record["schema"] == "echo-client/1").collect()
}

/// What the clients and the servers say of the same traffic.
#[derive(Debug, PartialEq)]
struct Books {
    due: u64,
    verified: u64,
    wrong: u64,
    lost: u64,
    /// Bytes, over the servers that have said that they stopped, without those of their own health checks.
    echoed: u64,
    discarded: u64,
    /// Connections that the clients have made.
    connections: u64,
    /// Connects that an address has refused, or has not answered.
    failed_connects: u64,
    /// The longest round trip, in microseconds.
    longest_us: u64,
    started: usize,
    stopped: usize,
    /// The exit code of `echo-client merge`.
    verdict: i32,
    /// The table of `echo-client merge`.
    told: String,
}

impl Books {
    fn of(reports: &[Value], servers: &Records, verdict: Finished) -> Self {
        let sum = |field: &str| reports.iter().map(|report| number(report, field)).sum();
        let connects = |field: &str| reports.iter().map(|report| number(&report["connections"], field)).sum::<u64>();
        let bytes = |field: &str| servers.of("stopped").into_iter().map(|stopped| number(stopped, field)).sum();
        Self {
            due: sum("due"),
            verified: sum("verified"),
            wrong: sum("wrong"),
            lost: sum("lost"),
            echoed: bytes("echoed_total"),
            discarded: bytes("discarded_total"),
            connections: connects("made"),
            failed_connects: connects("refused") + connects("unanswered"),
            longest_us: reports.iter().map(|report| number(report, "max_us")).max().unwrap_or_default(),
            started: servers.of("listening").len(),
            stopped: servers.of("stopped").len(),
            verdict: verdict.code,
            told: verdict.out,
        }
    }

    fn assert_nothing_lost(&self) {
        let &Self { due, verified, wrong, lost, failed_connects, echoed, discarded, started, stopped, verdict, .. } =
            self;
        assert!(verified > 0, "{self:?}");
        assert_eq!((due, wrong, lost, discarded, failed_connects), (verified, 0, 0, 0, 0), "{self:?}");
        assert_eq!(echoed, verified * MESSAGE.len() as u64, "to the byte: {self:?}");
        assert_eq!((started, verdict), (stopped, 0), "{self:?}");
    }
}
