//! What the tests that need a Docker engine share: commands with a bound on their time, output to wait for, and copies of the
//! checkout to edit. After each test the engine is clean.
//!
//! The project, its network and its images have fixed names, so these tests run one at a time.
#![allow(dead_code, reason = "each test file is a crate of its own and uses its part")]

use crate::common::{Lines, PATIENCE, Place, Test, finish, run_in_turn, trial};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;
use std::{
    fs, io,
    os::unix::process::CommandExt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
        mpsc::RecvTimeoutError,
    },
    time::{Duration, Instant},
};

/// The longest that a build lasts. It is longer than `PATIENCE`, because a build may compile everything.
pub const BUILD: Duration = Duration::from_secs(40 * 60);

pub const COMPOSE: &str = "docker compose -f compose/compose.yaml";

/// Filters that find the containers of the project, and those that a test has put on its network.
const OURS: [&str; 2] = ["label=com.docker.compose.project=echo", "network=echo"];

/// Runs the tests one at a time. Where there is no Docker, it reports each as ignored, with the reason.
pub fn run(tests: Vec<Test>) -> ExitCode {
    static OBSTACLE: LazyLock<Option<String>> = LazyLock::new(obstacle);
    if OBSTACLE.is_none() && !containers().is_empty() {
        eprintln!("the project `echo` exists already; these tests would take it down: docker compose -p echo down");
        return ExitCode::FAILURE;
    }
    run_in_turn(tests.into_iter().map(|(name, test)| trial(name, || OBSTACLE.clone(), || clean_after(test))))
}

/// Why these tests cannot run here, if they cannot.
pub fn obstacle() -> Option<String> {
    let answers = |args: &[&str]| {
        let mut command = Command::new("timeout");
        let output = command.args(["20", "docker"]).args(args).output();
        output.is_ok_and(|output| output.status.success())
    };
    if !answers(&["info"]) {
        Some("no Docker engine answers".into())
    } else if !answers(&["compose", "version"]) {
        Some("there is no `docker compose`".into())
    } else {
        None
    }
}

/// Runs a test and removes what it has left in the engine, however it ended.
fn clean_after(test: impl FnOnce()) {
    let result = catch_unwind(AssertUnwindSafe(test));
    if result.is_err() {
        // The containers and logs that are left explain the failure.
        let show = "docker ps -a; for c in $(docker ps -aq --filter name=echo-server-); do docker logs $c; done";
        eprintln!("{}", sh(Path::new("."), show).unwrap_or_else(|error| error));
    }
    clean();
    result.unwrap_or_else(|panic| resume_unwind(panic));
}

/// The containers that exist, also those that other programs have started.
pub fn containers() -> Vec<String> {
    let found = OURS.map(|filter| docker(&["ps", "-aq", "--filter", filter]));
    found.iter().flat_map(|ids| ids.split_whitespace()).map(str::to_owned).collect()
}

/// Removes every container, and the network.
fn clean() {
    for container in containers() {
        // A container that was found twice, or that removes itself, may be gone already.
        finish(Command::new("docker").args(["rm", "-f", &container]));
    }
    if !docker(&["network", "ls", "-q", "--filter", "name=^echo$"]).is_empty() {
        docker(&["network", "rm", "echo"]);
    }
}

// Commands.

/// Runs `docker`, which must succeed. Gives its standard output without the space around it.
pub fn docker(args: &[&str]) -> String {
    let finished = finish(Command::new("docker").args(args));
    assert_eq!(finished.code, 0, "docker {args:?}: {finished:?}");
    finished.out.trim().to_owned()
}

/// What `docker inspect` says.
pub fn inspect(name: &str) -> Value {
    let list: Value = serde_json::from_str(&docker(&["inspect", name])).unwrap();
    list[0].clone()
}

/// Runs a line of shell in a directory. Gives its output, both streams as one. If the line fails, the output is in the error.
pub fn sh(directory: &Path, line: &str) -> Result<String, String> {
    let mut running = Running::start(directory, line);
    let status = running.exit(PATIENCE);
    let output = running.output();
    if status.success() { Ok(output) } else { Err(format!("{line}\n{status}\n{output}")) }
}

/// As `sh`, and it must succeed.
pub fn must(directory: &Path, line: &str) -> String {
    sh(directory, line).unwrap_or_else(|error| panic!("{error}"))
}

/// Builds all images of a compose file. `up` builds them too, but compiling takes longer than `up` may.
pub fn build(checkout: &Checkout) {
    let mut running = Running::start(checkout.path(), &format!("{COMPOSE} build"));
    let status = running.exit(BUILD);
    assert!(status.success(), "{}", running.output());
}

/// A line of shell that runs in a process group of its own, as in a terminal. It is killed if it is still there at the end.
pub struct Running {
    child: Child,
    lines: Lines,
    heard: Vec<String>,
}

impl Running {
    pub fn start(directory: &Path, line: &str) -> Self {
        let (reader, writer) = io::pipe().unwrap();
        let mut command = Command::new("sh");
        command.args(["-euc", line]).current_dir(directory).process_group(0);
        command.stdin(Stdio::null()).stdout(writer.try_clone().unwrap()).stderr(writer);
        let child = command.spawn().unwrap();
        // The command holds the writing end of the pipe, and so would keep the output open.
        drop(command);
        Self { child, lines: Lines::of(reader), heard: Vec::new() }
    }

    /// Follows a container's log.
    pub fn logs(container: &str) -> Self {
        Self::start(Path::new("."), &format!("exec docker logs -f {container}"))
    }

    /// Reads on until the lines so far are enough.
    pub fn wait_until(&mut self, what: &str, enough: impl Fn(&[String]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !enough(&self.heard) {
            match self.lines.next(deadline) {
                Ok(line) => self.heard.push(line),
                Err(error) => panic!("not so: {what}: {error}\n{}", self.heard.join("\n")),
            }
        }
    }

    /// Reads on until this many lines contain this text.
    pub fn wait_for(&mut self, count: usize, text: &str) {
        self.wait_until(&format!("{count} × {text}"), |heard| {
            heard.iter().filter(|line| line.contains(text)).count() >= count
        });
    }

    /// Sends what Ctrl-C sends, to a line that starts with `exec`. It does not send it to the whole group: without a terminal
    /// `docker` passes the signal on to `compose`, which would take it for a second one and kill.
    pub fn interrupt(&self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
    }

    /// Waits until it has ended and its output is read. Gives its status.
    pub fn exit(&mut self, patience: Duration) -> ExitStatus {
        let deadline = Instant::now() + patience;
        loop {
            match self.lines.next(deadline) {
                Ok(line) => self.heard.push(line),
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().unwrap(),
                Err(RecvTimeoutError::Timeout) => panic!("it does not end\n{}", self.heard.join("\n")),
            }
        }
    }

    /// The lines that have been read so far.
    pub fn lines(&self) -> &[String] {
        &self.heard
    }

    /// The output that has been read so far.
    pub fn output(&self) -> String {
        self.heard.join("\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

// The checkout.

/// A copy of the checkout, for a test to edit. Its settings are those that are committed. So no test fails when a reader of the
/// walkthrough has edited the original.
pub struct Checkout(Place);

impl Checkout {
    pub fn copy() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let copy = Place::new(&format!("checkout-{count}"));
        let original = Path::new(env!("CARGO_MANIFEST_DIR"));
        // New files that are not committed are copied too.
        let mut list = Command::new("git");
        let list = finish(list.args(["ls-files", "-z", "-co", "--exclude-standard"]).current_dir(original));
        assert_eq!(list.code, 0, "{list:?}");
        for file in list.out.split_terminator('\0') {
            let (from, to) = (original.join(file), copy.path().join(file));
            if from.exists() {
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::copy(from, to).unwrap();
            }
        }
        for file in ["settings/server.toml", "settings/client.toml"] {
            let mut committed = Command::new("git");
            let committed = finish(committed.args(["show", &format!("HEAD:{file}")]).current_dir(original));
            assert_eq!(committed.code, 0, "{committed:?}");
            fs::write(copy.path().join(file), committed.out).unwrap();
        }
        Self(copy)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Sets keys of a settings file. As with an editor, a new file takes the place of the old one.
    pub fn set(&self, program: &str, settings: &[(&str, &str)]) {
        let file = self.path().join(format!("settings/{program}.toml"));
        let mut text = fs::read_to_string(&file).unwrap();
        for (key, value) in settings {
            let start = format!("{key} = ");
            assert!(text.lines().any(|line| line.starts_with(&start)), "no {key} in {file:?}");
            let line =
                |line: &str| if line.starts_with(&start) { format!("{start}{value}\n") } else { format!("{line}\n") };
            text = text.lines().map(line).collect();
        }
        let new = file.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, file).unwrap();
    }
}
