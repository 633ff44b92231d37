//! The built programs as processes. A test runs one to its end, or starts, signals, measures and awaits it.

use super::{PATIENCE, kernel};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Resource, Rlimit, Signal, kill_process_group, pidfd_open, pidfd_send_signal, prlimit},
};
use std::{
    env, fs,
    io::Read,
    os::{fd::OwnedFd, unix::process::CommandExt},
    process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc::channel,
    thread,
    time::Duration,
};

pub const SERVER: &str = env!("CARGO_BIN_EXE_echo-server");
pub const CLIENT: &str = env!("CARGO_BIN_EXE_echo-client");

/// A program without the `ECHO_` variables that this process may have been given.
pub fn command(program: &str) -> Command {
    without_settings(Command::new(program))
}

/// Removes the `ECHO_` variables of this process.
pub fn without_settings(mut command: Command) -> Command {
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ECHO_")) {
        command.env_remove(name);
    }
    command
}

/// What a program has left behind.
#[derive(Debug)]
pub struct Finished {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Runs a command to its end.
pub fn finish(command: &mut Command) -> Finished {
    finish_with(command, Stdio::null())
}

/// As `finish`, with this standard input.
pub fn finish_with(command: &mut Command, stdin: impl Into<Stdio>) -> Finished {
    let child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn();
    let child = child.unwrap();
    let group = Pid::from_child(&child);
    let (sender, output) = channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = output.recv_timeout(PATIENCE) else {
        let _ = kill_process_group(group, Signal::KILL);
        panic!("{command:?} does not end");
    };
    let output = output.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Finished {
        code: output.status.code().expect("it was not killed"),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// A running process. Killed if it is still there at the end of the test.
pub struct Process {
    child: Child,
    pub pidfd: OwnedFd,
}

impl Process {
    #[expect(unsafe_code, reason = "what runs between fork and exec is for the caller to answer for")]
    pub fn spawn(mut command: Command) -> (Self, ChildStdout) {
        // If the tests themselves ignore SIGHUP, as under `nohup`, a program would inherit that.
        // SAFETY: between fork and exec it only makes one system call.
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGHUP, libc::SIG_DFL);
                Ok(())
            })
        };
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        (Self { child, pidfd }, stdout)
    }

    /// Its standard error. A test that reads it before the end takes it.
    pub fn stderr(&mut self) -> ChildStderr {
        self.child.stderr.take().expect("it is taken once")
    }

    pub fn signal(&self, signal: Signal) {
        pidfd_send_signal(&self.pidfd, signal).unwrap();
    }

    /// Sends one more signal that counts as new. It waits first: a signal that comes too soon is an echo of the last one.
    pub fn signal_again(&self, signal: Signal) {
        std::thread::sleep(Duration::from_millis(300));
        self.signal(signal);
    }

    /// Waits until it has ended by itself. Gives its exit code, and what it wrote to standard error, if that was not taken.
    pub fn exit(self) -> (Option<i32>, String) {
        let (status, errors) = self.status();
        (status.code(), errors)
    }

    /// As `exit`, for a process that a signal may have killed.
    pub fn status(mut self) -> (ExitStatus, String) {
        let patience = Timespec::try_from(PATIENCE).unwrap();
        let ended = poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&patience)).unwrap();
        assert_eq!(ended, 1, "it does not end");
        let mut errors = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut errors).unwrap();
        }
        (self.child.wait().unwrap(), errors)
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// How many handles of a socket it has open.
    pub fn handles(&self, socket: &str) -> usize {
        kernel::descriptors(self.pid()).iter().filter(|(_, is)| is == socket).count()
    }

    /// How many ends of pipes it has open.
    pub fn pipe_ends(&self) -> usize {
        kernel::descriptors(self.pid()).iter().filter(|(_, is)| is.starts_with("pipe:")).count()
    }

    /// The numbers of its open descriptors.
    pub fn descriptors(&self) -> Vec<i32> {
        kernel::descriptors(self.pid()).into_iter().map(|(fd, _)| fd).collect()
    }

    /// The processor time that it has used.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The program's name may have blanks, so fields are counted from its end. Linux gives times in hundredths of a second.
        let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks = |field: usize| fields[field].parse::<u64>().unwrap();
        Duration::from_millis(10 * (ticks(11) + ticks(12)))
    }

    /// Sets the soft limit of its descriptors. Those that are open stay open. Gives the limit from before.
    pub fn limit_descriptors(&self, soft: u64) -> u64 {
        let maximum = rlimit::Resource::NOFILE.get_hard().unwrap();
        prlimit(Some(self.pid()), Resource::Nofile, Rlimit { current: Some(soft), maximum: Some(maximum) })
            .unwrap()
            .current
            .unwrap()
    }

    /// The memory that it occupies, in bytes, without what the kernel keeps for its sockets.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
