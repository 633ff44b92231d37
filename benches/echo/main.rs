//! `cargo bench`: this server beside raw tokio and `actix-server`, under the same load.
//!
//! On a machine with other work a figure drifts by the minute; the ratio of two that were taken within a second does not. So
//! the servers take turns. criterion finishes one benchmark before it begins the next, so a row is one benchmark, and the
//! turns are inside of it: in every sample each server serves the same load, one after the other. What criterion reports is
//! this server's time per iteration, with its change since the last run; beside the others it is put by the table at the end.
//!
//! Each server is a process of its own, this program run once more, so that its processor time and memory are its own too.
//! Servers run on the first processor, with one worker thread each, and the load on the second.
//!
//! The stop is graceful where there is one: raw tokio dies of the signal, and `actix-server` waits for idle clients until its
//! timeout, 30 s by default.
//!
//! * `cargo bench -- ping/64` picks rows, by a regular expression; `-- --list` names them.
//! * `cargo bench -- instructions` counts instructions and system calls instead: see `instructions`.
//! * `cargo bench -- --sample-size 50 --measurement-time 60` takes more rounds (10 at least), and seconds, for each row but
//!   the last, `idle`.

mod instructions;
mod load;
mod process;
mod servers;
mod table;
mod workers;

use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, measurement::WallTime};
use load::{Load, Shape};
use process::{Process, pin};
use rustix::process::Signal;
use servers::Contender;
use std::{
    env,
    time::{Duration, Instant},
};
use table::{Line, Table};

const SHAPES: [(&str, &str, Shape); 6] = [
    ("ping", "1x64B", Shape { connections: 1, size: 64, reconnect: false }),
    ("ping", "64x64B", Shape { connections: 64, size: 64, reconnect: false }),
    ("ping", "1000x64B", Shape { connections: 1000, size: 64, reconnect: false }),
    ("ping", "8x16KiB", Shape { connections: 8, size: 16 << 10, reconnect: false }),
    ("ping", "8x256KiB", Shape { connections: 8, size: 256 << 10, reconnect: false }),
    ("connect-echo-close", "8x64B", Shape { connections: 8, size: 64, reconnect: true }),
];

/// How many connections idle, and are stopped.
const CROWD: usize = 10_000;
/// How long the stop of `actix-server` is waited for: its own timeout is 30 s.
const PATIENCE: Duration = Duration::from_secs(35);

fn main() {
    if let Some(contender) = Contender::asked_for() {
        return contender.serve();
    }
    rlimit::increase_nofile_limit(u64::MAX).expect("the limit can be raised to the hard one");
    pin(process::Role::Load);
    if env::args().any(|argument| argument == "instructions") {
        return instructions::count();
    }
    let criterion = Criterion::default().without_plots().sample_size(20);
    let criterion = criterion.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(12));
    let mut criterion = criterion.configure_from_args();
    let mut table = Table::default();
    for (group, id, shape) in SHAPES {
        table.extend(echoes(criterion.benchmark_group(group), &format!("{group}/{id}"), id, &shape));
    }
    table.extend(crowd(criterion.benchmark_group("idle")));
    let workers = [workers::connects(&mut criterion), workers::balance(&mut criterion)];
    criterion.final_summary();
    print!("{table}");
    for table in workers.iter().filter(|table| !table.is_empty()) {
        print!("\n{table}");
    }
}

/// The turns of one round, in the order of `Contender::ALL`.
type Round<T> = [T; Contender::ALL.len()];

/// One server's turn at echoing.
#[derive(Clone, Copy, Default)]
struct Turn {
    iterations: u64,
    elapsed: Duration,
    cpu: Duration,
}

fn echoes(mut group: BenchmarkGroup<'_, WallTime>, name: &str, id: &str, shape: &Shape) -> Vec<Line> {
    // Started by the first sample, as a filter may leave this row out.
    let mut servers: Option<Round<_>> = None;
    let mut rounds: Vec<Round<Turn>> = Vec::new();
    group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(shape.connections as u64));
    group.bench_function(id, |bencher| {
        let servers = servers.get_or_insert_with(|| {
            Contender::ALL.map(|contender| {
                let server = Process::start(contender);
                let load = Load::connect(server.address, shape).expect("it serves");
                (server, load)
            })
        });
        bencher.iter_custom(|iterations| {
            let mut round = Round::default();
            for n in in_turn(rounds.len()) {
                let (server, load) = &mut servers[n];
                let (start, cpu) = (Instant::now(), server.cpu());
                load.run(iterations).expect("it echoes");
                round[n] = Turn { iterations, elapsed: start.elapsed(), cpu: server.cpu() - cpu };
            }
            rounds.push(round);
            round[0].elapsed
        });
    });
    // Warming up, criterion tries its way to the number of iterations that all samples have.
    let iterations = rounds.last().map_or(0, |round| round[0].iterations);
    rounds.retain(|round| round[0].iterations == iterations);
    let echoes = iterations as f64 * shape.connections as f64;
    let cpu = |turn: &Turn| turn.cpu.as_secs_f64() * 1e6 / echoes;
    let rate = |turn: &Turn| echoes / turn.elapsed.as_secs_f64() / 1e3;
    vec![
        Line::new(format!("{name}: CPU per echo, µs"), 2, &rounds, cpu),
        Line::new(format!("{name}: 1000 echoes/s"), 1, &rounds, rate),
    ]
}

/// Each round begins with another one: who comes first may find the caches cold.
fn in_turn(round: usize) -> impl Iterator<Item = usize> {
    (0..Contender::ALL.len()).map(move |n| (n + round) % Contender::ALL.len())
}

/// One server's turn with the crowd.
#[derive(Clone, Copy, Default)]
struct Crowd {
    memory: f64,
    stop: Duration,
}

fn crowd(mut group: BenchmarkGroup<'_, WallTime>) -> Vec<Line> {
    let mut rounds: Vec<Round<Crowd>> = Vec::new();
    // One iteration takes seconds: as few samples as criterion allows, and none to warm up but the one that it needs.
    group.sampling_mode(SamplingMode::Flat).sample_size(10).warm_up_time(Duration::from_nanos(1));
    group.measurement_time(Duration::from_secs(60));
    group.bench_function("10000", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut stops = Duration::ZERO;
            for _ in 0..iterations {
                let mut round = Round::default();
                for n in in_turn(rounds.len()) {
                    round[n] = idle_and_stop(Contender::ALL[n], Contender::ALL[n] != Contender::ActixServer);
                }
                rounds.push(round);
                stops += round[0].stop;
            }
            stops
        });
    });
    let memory = Line::new("idle/10000: bytes per connection".into(), 0, &rounds, |turn| turn.memory);
    let mut stop = Line::new("idle/10000: ms to stop".into(), 0, &rounds, |turn| turn.stop.as_secs_f64() * 1e3);
    // It waits for its clients to leave, until its timeout: once is enough.
    if rounds.len() > 1 {
        let once = idle_and_stop(Contender::ActixServer, true);
        stop.replace(Contender::ActixServer, once.stop.as_secs_f64() * 1e3);
    }
    vec![memory, stop]
}

/// What an idle connection costs a server in memory, and how long it takes to stop with all of them.
fn idle_and_stop(contender: Contender, stop: bool) -> Crowd {
    let server = Process::start(contender);
    let connect = |connections| Load::connect(server.address, &Shape { connections, size: 64, reconnect: false });
    // What comes with the first echoes, it does not come with every connection.
    let mut first = connect(1).expect("it serves");
    first.run(1000).expect("it echoes");
    let before = server.memory();
    let crowd = connect(CROWD).expect("it serves");
    let memory = (server.memory() - before) as f64 / CROWD as f64;
    drop(first);
    if !stop {
        return Crowd { memory, stop: Duration::ZERO };
    }
    let start = Instant::now();
    server.signal(Signal::TERM);
    let ends = crowd.ends(PATIENCE).expect("the connections end");
    let status = server.end();
    let stop = start.elapsed();
    if contender == Contender::SupervisedEcho {
        assert!(status.success() && ends.clean == CROWD, "not every stop was acknowledged: {status}, {ends:?}");
    }
    Crowd { memory, stop }
}
