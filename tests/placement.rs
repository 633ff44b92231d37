//! On which Worker's thread a client lives, and what a blocked thread means for the others.

mod common;

use common::*;
use std::{
    collections::BTreeMap,
    io::Write,
    net::TcpStream,
    sync::mpsc::{Receiver, Sender},
};

/// How many connections each Worker has been given, by the log.
fn by_worker(log: &mut Log, clients: &[TcpStream]) -> BTreeMap<u64, usize> {
    let mut connections = BTreeMap::new();
    for client in clients {
        let opened = log.wait_of("connection opened", client);
        *connections.entry(number(&opened, "worker")).or_default() += 1;
    }
    connections
}

#[test]
fn long_lived_clients_are_spread_evenly_over_all_workers_and_over_those_that_accept() {
    for workers in ["1", "2", "8"] {
        let mut server = Server::start(&[("supervisor.workers", workers), ("log.level", "debug")]);
        let mut clients: Vec<_> = (0..400).map(|_| server.connect()).collect();
        clients.iter_mut().for_each(round_trip);
        let connections = by_worker(&mut server.log, &clients);
        let (most, mean) = (connections.values().max().unwrap(), 400 / workers.parse::<usize>().unwrap());
        assert_eq!(connections.len().to_string(), workers);
        assert!(*most <= mean + mean / 16 + 3, "{connections:?}");
        drop(clients);
        server.stop().log.assert_all_accounted_for();
    }
}

/// A server with clients on its two accepting threads, and only these.
struct Accepting {
    server: InProcess,
    /// A client of Worker 1 and one of Worker 2.
    clients: [TcpStream; 2],
    blocks: Receiver<Sender<()>>,
}

impl Accepting {
    fn start(workers: usize) -> Self {
        let (service, blocks) = blocking();
        let mut settings = settings();
        settings.supervisor.workers = workers;
        let mut server = InProcess::start(settings, service);
        let mut clients = [None, None];
        let mut others = Vec::new();
        while clients.iter().any(Option::is_none) {
            let client = connect(server.address);
            let worker = number(&server.log.wait_of("connection opened", &client), "worker") as usize;
            match clients.get_mut(worker - 1) {
                Some(none @ None) => *none = Some(client),
                _ => others.push(client),
            }
        }
        for other in others {
            let name = other.local_addr().unwrap();
            drop(other);
            server.log.wait_of("connection closed", &name);
        }
        Self { server, clients: clients.map(Option::unwrap), blocks }
    }

    /// Blocks the thread of the first or the second client until what it gives is dropped.
    fn block(&mut self, client: usize) -> Sender<()> {
        self.clients[client].write_all(b"#").unwrap();
        self.blocks.recv_timeout(PATIENCE).unwrap()
    }

    fn stop(self) {
        self.server.handle.stop();
        for mut client in self.clients {
            assert!(read_to_eof(&mut client).is_empty());
        }
        let (report, _) = self.server.end();
        assert_eq!((report.forced, report.exit_code()), (0, 0));
    }
}

#[test]
fn while_a_service_blocks_the_thread_of_one_acceptor_the_other_one_accepts() {
    for (workers, blocked) in [(2, 0), (2, 1), (4, 0), (4, 1)] {
        let mut accepting = Accepting::start(workers);
        let blocking = accepting.block(blocked);
        let mut clients = [(); 3].map(|()| connect(accepting.server.address));
        clients.iter_mut().for_each(round_trip);
        drop((blocking, clients));
        accepting.stop();
    }
}

#[test]
fn while_services_block_the_threads_of_all_acceptors_the_supervisor_accepts() {
    let mut accepting = Accepting::start(4);
    let blocking = [accepting.block(0), accepting.block(1)];
    let mut clients = [(); 6].map(|()| connect(accepting.server.address));
    clients.iter_mut().for_each(round_trip);
    drop((blocking, clients));
    accepting.stop();
}
