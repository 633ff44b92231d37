//! A server's process, seen from outside: started, measured, stopped.
#![expect(unsafe_code, reason = "neither std nor rustix asks for the processor time of another process")]

use crate::servers::{Contender, SERVER, WORKERS};
use rustix::{
    process::{Pid, Signal, kill_process},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};
use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::LazyLock,
    time::Duration,
};

/// Who runs on which processor.
#[derive(Clone, Copy)]
pub enum Role {
    Server,
    Load,
}

/// Keeps the calling thread, and what it starts from now on, on its role's processor. With a single one it changes nothing.
pub fn pin(role: Role) {
    static ALLOWED: LazyLock<CpuSet> = LazyLock::new(|| sched_getaffinity(None).expect("it can be asked"));
    let mut processors = (0..CpuSet::MAX_CPU).filter(|&processor| ALLOWED.is_set(processor));
    if let (Some(server), Some(load)) = (processors.next(), processors.next()) {
        let mut only = CpuSet::new();
        only.set(match role {
            Role::Server => server,
            Role::Load => load,
        });
        sched_setaffinity(None, &only).expect("it is one of those that are allowed");
    }
}

fn this_program() -> PathBuf {
    env::current_exe().expect("it has a path")
}

/// Killed when it is dropped.
pub struct Process {
    pub address: SocketAddr,
    child: Child,
}

impl Process {
    pub fn start(contender: Contender) -> Self {
        Self::start_with(contender, 1)
    }

    /// With so many Workers, if the contender has them.
    pub fn start_with(contender: Contender, workers: usize) -> Self {
        Self::spawn(Command::new(this_program()), contender, workers)
    }

    /// As the child of a tool that counts. The tool is what is measured and gets the signals.
    pub fn start_under(mut tool: Command, contender: Contender) -> Self {
        tool.arg(this_program());
        Self::spawn(tool, contender, 1)
    }

    fn spawn(mut command: Command, contender: Contender, workers: usize) -> Self {
        command.env(SERVER, contender.name()).env(WORKERS, workers.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        pin(Role::Server);
        let child = command.spawn();
        pin(Role::Load);
        let mut child = child.expect("it starts");
        let mut address = String::new();
        BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut address).expect("it is text");
        Self { address: address.trim().parse().expect("it says where it listens"), child }
    }

    /// The processor time that it has used, all its threads together.
    pub fn cpu(&self) -> Duration {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let mut clock = 0;
        // SAFETY: both calls write what they are given a pointer to, and keep none.
        let failed = unsafe {
            libc::clock_getcpuclockid(self.child.id().cast_signed(), &mut clock) != 0
                || libc::clock_gettime(clock, &mut time) != 0
        };
        assert!(!failed, "the server is gone");
        Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
    }

    /// The memory that it occupies, in bytes. What the kernel keeps for its sockets is not in it.
    pub fn memory(&self) -> u64 {
        // Exact, while the sum in `status` may lag behind on each processor.
        let pages = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id())).expect("it runs");
        let line = pages.lines().find_map(|line| line.strip_prefix("Rss:")).expect("it is listed");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("it is a number") * 1024
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it has not been waited for");
    }

    /// Waits for its end.
    pub fn end(mut self) -> ExitStatus {
        self.child.wait().expect("it is our child")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both do nothing to one that has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
