//! `cargo bench -- instructions`: what an echo takes of the processor in user space, and of the kernel in calls.
//!
//! Times drift by the minute; these counts do not. callgrind counts the instructions of a server, strace its system calls. Of
//! two runs the longer has more echoes and is otherwise the same, so the difference is that of the echoes alone.
//!
//! Relies on `valgrind` and `strace` in the `PATH`.

use crate::{
    load::{Load, Shape},
    process::Process,
    servers::Contender,
};
use rustix::process::Signal;
use std::{fs, process::Command};

/// What a shorter run and a longer one have, over all connections.
const ECHOES: [u64; 2] = [4_000, 132_000];

/// Runs the programs and prints the table.
pub fn count() {
    println!("| an echo of 64 B | supervised-echo | tokio | ratio |\n|---|---|---|---|");
    for (name, tool) in [("instructions", callgrind as fn(&str) -> Command), ("system calls", strace)] {
        for connections in [1, 64, 1000] {
            let [ours, tokio] = [Contender::SupervisedEcho, Contender::Tokio].map(|contender| {
                let [short, long] = ECHOES.map(|echoes| total(contender, connections, echoes, tool));
                (long - short) / (ECHOES[1] - ECHOES[0]) as f64
            });
            println!("| {name}, {connections} connections | {ours:.2} | {tokio:.2} | {:.3} |", ours / tokio);
        }
    }
}

fn callgrind(file: &str) -> Command {
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--tool=callgrind", &format!("--callgrind-out-file={file}")]);
    command
}

/// It ends by the signal that ends it as a user's program: `-I waiting`.
fn strace(file: &str) -> Command {
    let mut command = Command::new("strace");
    command.args(["--interruptible=waiting", "-f", "-c", "-U", "name,calls", "-o", file]);
    command
}

/// What the tool has counted from the server's start to its end.
fn total(contender: Contender, connections: usize, echoes: u64, tool: fn(&str) -> Command) -> f64 {
    let file = concat!(env!("CARGO_TARGET_TMPDIR"), "/instructions");
    let shape = Shape { connections, size: 64, reconnect: false };
    let server = Process::start_under(tool(file), contender);
    let mut load = Load::connect(server.address, &shape).expect("it serves");
    load.run(echoes / connections as u64).expect("it echoes");
    drop(load);
    server.signal(Signal::TERM);
    server.end();
    let counted = fs::read_to_string(file).expect("the tool has written it");
    let total = counted.lines().rev().find_map(|line| line.trim_start().strip_prefix("total"));
    let figure = total.and_then(|line| line.trim_start_matches(['s', ':']).trim().parse().ok());
    figure.expect("the tool has written the sum")
}
