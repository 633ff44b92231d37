//! Both programs at every small limit of descriptors, memory and threads: each start serves, or says in one line which limit
//! it was, and exits with 1. A server that runs stops well though there is nothing more to be had.

mod common;

use common::*;
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::SocketAddr,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// What a program is started with.
#[derive(Debug, Clone, Copy, Default)]
struct Limits {
    descriptors: Option<u64>,
    /// Descriptors that it inherits, besides the three.
    inherited: u32,
    /// Of address space, in bytes.
    memory: Option<u64>,
    threads: Option<u64>,
    /// Who it is to be; `None` for the user of this test.
    user: Option<u32>,
}

/// How a start went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Start {
    /// The system could not even load it, or Rust could not set itself up: it never came to its `main`.
    Died,
    /// It said in one line which limit it was, and exited with 1.
    Refused,
    /// It served, or was served, and ended well.
    Ran,
}

/// A user who has no process. Threads are counted by user, and those of root are not limited.
fn new_user() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    1_000_000 + std::process::id() % 1_000_000 * 1000 + COUNT.fetch_add(1, Ordering::Relaxed)
}

/// A program under these limits.
fn limited(command: &Command, limits: Limits) -> Command {
    let mut script: String = (3..3 + limits.inherited).map(|fd| format!("exec {fd}<&0; ")).collect();
    for (flag, limit) in
        [("n", limits.descriptors), ("v", limits.memory.map(|bytes| bytes / KIB)), ("u", limits.threads)]
    {
        if let Some(limit) = limit {
            script += &format!("ulimit -{flag} {limit} && ");
        }
    }
    let mut shell = Command::new("bash");
    shell.args(["-c", &format!("{script}exec \"$0\" \"$@\"")]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    if let Some(user) = limits.user {
        shell.uid(user).gid(user);
    }
    // Under a limit of address space the printing of a backtrace may hang.
    shell.env_remove("RUST_BACKTRACE");
    shell
}

/// How a program ended that did not run.
fn refusal(program: &str, process: Process) -> Result<Start, String> {
    let (status, errors) = process.status();
    let [line] = errors.lines().collect::<Vec<_>>()[..] else {
        // Without its `main` it writes nothing of its own, and neither unwinds nor exits.
        let died = status.signal().is_some();
        return if died { Ok(Start::Died) } else { Err(format!("{status}: {errors}")) };
    };
    match status.code() {
        Some(1) if line.starts_with(&format!("{program}: ")) && line.contains("limit of") => Ok(Start::Refused),
        Some(127) if line.contains("error while loading shared libraries") => Ok(Start::Died),
        None => Ok(Start::Died),
        _ => Err(format!("{status}: {errors}")),
    }
}

/// Starts a server, has a client served by it if it starts, and stops it.
fn serve(limits: Limits) -> Result<Start, String> {
    let settings = [("supervisor.workers", "2")];
    let (process, stdout) = Process::spawn(limited(&program(&settings), limits));
    let mut log = BufReader::new(stdout).lines().map_while(Result::ok);
    let Some(listening) = log.find(|line| line.contains(r#""msg":"listening""#)) else {
        return refusal("echo-server", process);
    };
    let listening: serde_json::Value = serde_json::from_str(&listening).unwrap();
    let mut client = connect(listening["address"].as_str().unwrap().parse().unwrap());
    let served = client.write_all(b"echo").and_then(|()| client.read_exact(&mut [0; 4]));
    process.signal(Signal::TERM);
    let end = served.and_then(|()| client.read(&mut [0]));
    drop(client);
    let stopped = log.last().unwrap_or_default();
    let (status, errors) = process.status();
    let well = matches!(end, Ok(0)) && stopped.contains(r#""msg":"stopped","acknowledged":1,"forced":0"#);
    if well && status.code() == Some(0) && errors.is_empty() {
        Ok(Start::Ran)
    } else {
        Err(format!("{status}, {end:?}, {stopped}: {errors}"))
    }
}

/// Starts a client of this server.
fn send(server: &str, limits: Limits) -> Result<Start, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_echo-client"));
    command.args(["--server", server, "--messages", "1", "--log-level", "critical", "--connect-timeout", "300ms"]);
    let (process, mut stdout) = Process::spawn(limited(&command, limits));
    let mut report = String::new();
    stdout.read_to_string(&mut report).unwrap();
    if !report.contains("verified    1\n") {
        return refusal("echo-client", process);
    }
    let (status, errors) = process.status();
    if status.code() == Some(0) && errors.is_empty() { Ok(Start::Ran) } else { Err(format!("{status}: {errors}")) }
}

/// Starts a program under each of these limits, a few at a time. Gives how the starts went, in order.
fn starts(what: &str, limits: Vec<Limits>, start: impl Fn(Limits) -> Result<Start, String> + Sync) -> Vec<Start> {
    let (next, ends) = (Mutex::new(limits.iter().copied().enumerate()), Mutex::new(BTreeMap::new()));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some((n, limits)) = { next.lock().unwrap() }.next() {
                    ends.lock().unwrap().insert(n, start(limits));
                }
            });
        }
    });
    let ends: Vec<_> = ends.into_inner().unwrap().into_values().collect();
    assert_eq!(ends.len(), limits.len());
    let failed: Vec<_> =
        limits.iter().zip(&ends).filter_map(|(limits, end)| Some((limits, end.as_ref().err()?))).collect();
    let count = |start| ends.iter().filter(|end| **end == Ok(start)).count();
    eprintln!(
        "{what}: {} starts, {} ran, {} refused, {} before main, {} wrong",
        limits.len(),
        count(Start::Ran),
        count(Start::Refused),
        count(Start::Died),
        failed.len()
    );
    assert!(failed.is_empty(), "{what}: {failed:#?}");
    ends.into_iter().map(Result::unwrap).collect()
}

/// A server for clients to be served by, without limits.
fn server() -> (Server, SocketAddr) {
    // Where a name may lead.
    let server = Server::start(&[("listen.address", "127.0.0.1:0")]);
    let address = server.address;
    (server, address)
}

fn few_descriptors() -> Vec<Limits> {
    let limits = (3..=60).flat_map(|descriptors| [0, 20].map(|inherited| (descriptors, inherited)));
    limits
        .map(|(descriptors, inherited)| Limits { descriptors: Some(descriptors), inherited, ..Limits::default() })
        .collect()
}

fn little_memory() -> Vec<Limits> {
    // An odd step, so that the ends of the mappings fall everywhere.
    let small = (6 * MIB..40 * MIB).step_by(404 * KIB as usize);
    let large = (40 * MIB..400 * MIB).step_by(12 * MIB as usize + 4 * KIB as usize);
    small.chain(large).map(|memory| Limits { memory: Some(memory), ..Limits::default() }).collect()
}

fn few_threads() -> Vec<Limits> {
    (1..=8).map(|n| Limits { threads: Some(n), user: Some(new_user()), ..Limits::default() }).collect()
}

/// Whether this user may start a program as another one.
fn may_change_user() -> bool {
    let user = new_user();
    let may = Command::new("true").uid(user).gid(user).status().is_ok();
    if !may {
        eprintln!("not tested with few threads: it takes root");
    }
    may
}

/// What never came to its `main` lies below all that did: from some limit on, it always has a say.
fn assert_a_bound(limits: &[Limits], starts: &[Start]) {
    let say = starts.iter().position(|start| *start != Start::Died).expect("some limit suffices");
    assert!(!starts[say..].contains(&Start::Died), "from {:?} on it has a say: {starts:?}", limits[say]);
    eprintln!("from {:?} on it has a say", limits[say]);
    assert_eq!(starts.last(), Some(&Start::Ran));
}

#[test]
fn a_server_with_few_descriptors_serves_or_says_so() {
    let starts = starts("descriptors, server", few_descriptors(), serve);
    assert!(starts.contains(&Start::Refused) && starts.contains(&Start::Ran));
}

#[test]
fn a_client_with_few_descriptors_is_served_or_says_so() {
    let (_server, address) = server();
    let starts = starts("descriptors, client", few_descriptors(), |limits| send(&address.to_string(), limits));
    assert!(starts.contains(&Start::Refused) && starts.contains(&Start::Ran));
}

#[test]
fn a_server_with_little_memory_serves_or_says_so() {
    assert_a_bound(&little_memory(), &starts("memory, server", little_memory(), serve));
}

#[test]
fn a_client_with_little_memory_is_served_or_says_so() {
    let (_server, address) = server();
    let starts = starts("memory, client", little_memory(), |limits| send(&address.to_string(), limits));
    assert_a_bound(&little_memory(), &starts);
}

#[test]
fn a_server_with_few_threads_serves_or_says_so() {
    if may_change_user() {
        let starts = starts("threads, server", few_threads(), serve);
        assert_eq!(starts, [[Start::Refused; 3].as_slice(), &[Start::Ran; 5]].concat());
    }
}

#[test]
fn a_client_with_few_threads_is_served_or_says_so() {
    if may_change_user() {
        let (_server, address) = server();
        let by_address = starts("threads, client", few_threads(), |limits| send(&address.to_string(), limits));
        assert_eq!(by_address, [[Start::Refused; 1].as_slice(), &[Start::Ran; 7]].concat());
        let name = format!("localhost:{}", address.port());
        let by_name = starts("threads, client that looks a name up", few_threads(), |limits| send(&name, limits));
        assert_eq!(by_name[..2], [Start::Refused; 2]);
    }
}

/// Nothing, each alone, and all at once.
const EXHAUSTED: [&[&str]; 5] =
    [&[], &["--nofile=0"], &["--nproc=0"], &["--as=0"], &["--nofile=0", "--nproc=0", "--as=0", "--data=0"]];

/// A running program gets no more of these than it has.
fn exhaust(process: &Process, limits: Limits, exhausted: &[&str]) {
    // The system's program, for a privilege is needed to limit another user's process, but none to be that user.
    let mut command = Command::new("prlimit");
    command.arg("--pid").arg(process.pid().to_string()).args(exhausted);
    if let Some(user) = limits.user {
        command.uid(user).gid(user);
    }
    if !exhausted.is_empty() {
        assert!(command.status().unwrap().success());
    }
}

/// No limits, as a user of its own where that can be.
fn alone() -> Limits {
    Limits { user: may_change_user().then(new_user), ..Limits::default() }
}

#[test]
fn a_server_that_gets_nothing_more_stops_as_well_as_any() {
    for exhausted in EXHAUSTED {
        let alone = alone();
        let mut server = Server::run(limited(&program(&[("supervisor.workers", "3")]), alone));
        let mut clients = [(); 5].map(|()| server.connect());
        clients.iter_mut().for_each(round_trip);
        exhaust(&server.process, alone, exhausted);
        server.signal(Signal::TERM);
        assert_eq!(server.log.wait("stopping")["connections"], 5);
        clients.iter_mut().for_each(|client| assert!(read_to_eof(client).is_empty()));
        drop(clients);
        let ended = server.end();
        assert_eq!((ended.code, ended.log.of("arbiter joined").len()), (Some(0), 3), "{exhausted:?}: {:?}", ended.log);
        ended.log.assert_all_accounted_for();
    }
}

#[test]
fn a_client_that_gets_nothing_more_stops_as_well_as_any() {
    let (mut server, address) = server();
    for exhausted in EXHAUSTED {
        let alone = alone();
        let mut command = Command::new(env!("CARGO_BIN_EXE_echo-client"));
        command.args(["--server", &address.to_string(), "--messages", "0", "--period", "10ms", "--log-format", "json"]);
        let (mut process, mut report) = Process::spawn(limited(&command, alone));
        let mut log = Log::of(process.stderr());
        log.wait("echo verified");
        exhaust(&process, alone, exhausted);
        log.wait("echo verified");
        process.signal(Signal::TERM);
        log.wait("finished");
        let mut told = String::new();
        report.read_to_string(&mut told).unwrap();
        assert_eq!(process.exit().0, Some(0), "{exhausted:?}: {told}");
        assert!(told.contains("lost        0\n") && told.ends_with("stopped     SIGTERM\n"), "{told}");
    }
    server.signal(Signal::TERM);
    server.log.wait("stopped");
}
