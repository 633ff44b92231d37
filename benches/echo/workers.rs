//! How this server does with many Workers: what a connect costs, and how evenly long-lived clients are spread.

use crate::{
    load::{Load, Shape},
    process::Process,
    servers::{self, Contender},
    table::median,
};
use criterion::{Criterion, SamplingMode};
use std::{
    fmt::Write,
    io::{Read, Write as _},
    net::{SocketAddr, TcpStream},
    sync::mpsc::channel,
    thread,
    time::Duration,
};
use supervised_echo::{Echo, Handle, Server, watch::Watch};

const WORKERS: [usize; 4] = [1, 2, 8, 64];
const CONNECTS: Shape = Shape { connections: 8, size: 64, reconnect: true };
const CLIENTS: usize = 3_000;
/// Of these, those that are closed and replaced.
const REPLACED: usize = 300;

/// One benchmark, in which servers with different numbers of Workers take turns. Gives a table.
pub fn connects(criterion: &mut Criterion) -> String {
    let mut servers = None;
    let mut rounds: Vec<(u64, [f64; WORKERS.len()])> = Vec::new();
    let mut group = criterion.benchmark_group("workers");
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function("connect-echo-close", |bencher| {
        let servers = servers.get_or_insert_with(|| {
            WORKERS.map(|workers| {
                let server = Process::start_with(Contender::SupervisedEcho, workers);
                let load = Load::connect(server.address, &CONNECTS).expect("it serves");
                (server, load)
            })
        });
        bencher.iter_custom(|iterations| {
            let mut all = Duration::ZERO;
            let round = std::array::from_fn(|n| {
                let (server, load) = &mut servers[n];
                let before = server.cpu();
                load.run(iterations).expect("it echoes");
                let cpu = server.cpu() - before;
                all += cpu;
                cpu.as_secs_f64() * 1e6 / (iterations as f64 * CONNECTS.connections as f64)
            });
            rounds.push((iterations, round));
            all
        });
    });
    // Warming up, criterion tries its way to the number of iterations that all samples have.
    let Some(&(iterations, _)) = rounds.last().filter(|_| rounds.len() > 1) else { return String::new() };
    rounds.retain(|round| round.0 == iterations);
    let mut table = String::from("| Workers | CPU per connect-echo-close, µs | ratio to 1 Worker |\n|---|---|---|\n");
    for (n, workers) in WORKERS.iter().enumerate() {
        let cpu: Vec<_> = rounds.iter().map(|(_, round)| round[n]).collect();
        let ratios: Vec<_> = rounds.iter().map(|(_, round)| round[n] / round[0]).collect();
        let _ = writeln!(table, "| {workers} | {:.1} | {:.2} |", median(&cpu), median(&ratios));
    }
    table
}

/// The connections of the fullest Worker, divided by the mean. Counted, not timed. Gives a table.
pub fn balance(criterion: &mut Criterion) -> String {
    let mut table = String::new();
    let mut group = criterion.benchmark_group("workers");
    // What counts is the count. criterion times the connects besides, as often as it must.
    group.sampling_mode(SamplingMode::Flat).sample_size(10).warm_up_time(Duration::from_nanos(1));
    group.measurement_time(Duration::from_secs(30));
    group.bench_function("balance", |bencher| {
        bencher.iter(|| {
            table = String::from("| Workers | one by one | in bursts | 300 closed and replaced |\n|---|---|---|---|\n");
            for workers in [2, 8, 64] {
                let (one_by_one, bursts, replaced) = spread(workers);
                let _ = writeln!(table, "| {workers} | {one_by_one:.2} | {bursts:.2} | {replaced:.2} |");
            }
        });
    });
    table
}

fn spread(workers: usize) -> (f64, f64, f64) {
    let (address, handle, watch) = start(workers);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| connect(address)).collect();
    let one_by_one = most_by_mean(&watch);
    clients.retain({
        let mut n = 0;
        move |_| {
            n += 1;
            n % (CLIENTS / REPLACED) != 0
        }
    });
    let closed = || watch.totals().closed.values().sum::<u64>();
    while closed() < REPLACED as u64 {
        thread::yield_now();
    }
    clients.extend((0..REPLACED).map(|_| connect(address)));
    let replaced = most_by_mean(&watch);
    drop(clients);
    handle.stop();

    let (address, handle, watch) = start(workers);
    let load = Load::connect(address, &Shape { connections: CLIENTS, size: 64, reconnect: false });
    let bursts = most_by_mean(&watch);
    drop(load);
    handle.stop();
    (one_by_one, bursts, replaced)
}

/// A server in this process: it is looked into, and not timed.
fn start(workers: usize) -> (SocketAddr, Handle, Watch) {
    let (started, start) = channel();
    thread::spawn(move || {
        actix::System::new().block_on(async {
            let server = Server::bind(servers::settings(workers), Echo).expect("port 0 is free");
            started.send((server.address(), server.handle(), server.watch())).expect("the benchmark waits");
            server.run().await.expect("it serves");
        });
    });
    start.recv().expect("it starts")
}

fn connect(address: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(address).expect("it listens");
    client.write_all(&[0]).expect("it is open");
    client.read_exact(&mut [0]).expect("it echoes");
    client
}

fn most_by_mean(watch: &Watch) -> f64 {
    let open: Vec<u64> = watch.counts().iter().map(|counts| counts.open.iter().sum()).collect();
    let mean = open.iter().sum::<u64>() as f64 / open.len() as f64;
    open.iter().copied().max().unwrap_or(0) as f64 / mean
}
