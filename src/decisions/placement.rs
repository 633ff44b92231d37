//! Decides on which Worker a client lives.
//!
//! The load is even: no Worker has many more connections than another one. It does not matter which thread accepts the clients.
//! Pure; the gate asks it in the same locked step as the [`admission`](super::admission), and passes the time.

use crate::decisions::ids::WorkerId;
use std::time::Duration;

/// How many Workers accept. Every thread that accepts wakes for each new client, so a connect gets dearer with each. With two
/// of them clients still come in while one thread is busy.
const ACCEPTORS: usize = 2;
/// A Worker that leaves a client on its way for longer than this has a thread that is blocked or overloaded.
const PATIENCE: Duration = Duration::from_millis(100);

/// Whether this Worker has an Acceptor.
pub fn accepts(worker: WorkerId) -> bool {
    worker.0 <= ACCEPTORS
}

/// How many connections each Worker has, and which Workers take their clients in.
///
/// ```
/// use std::time::Duration;
/// use supervised_echo::{WorkerId, decisions::placement::Placement};
///
/// let mut placement = Placement::new(2);
/// let lives = |placement: &mut Placement| placement.place(Some(WorkerId(1)), Duration::ZERO).0;
/// // Its own thread is preferred, but not for long.
/// assert_eq!([(); 4].map(|()| lives(&mut placement)), [1, 1, 1, 2]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Placement {
    /// In the order of the Workers' ids, which begin with 1.
    loads: Vec<Load>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Load {
    connections: usize,
    /// Of these, the clients that come from another thread and are not there yet.
    on_their_way: usize,
    /// Since when one is on its way and no other one has arrived.
    since: Duration,
}

impl Load {
    fn is_behind(&self, now: Duration) -> bool {
        self.on_their_way > 0 && now.saturating_sub(self.since) > PATIENCE
    }
}

impl Placement {
    /// Workers 1 to `workers`, without connections.
    pub fn new(workers: usize) -> Self {
        Self { loads: vec![Load::default(); workers] }
    }

    /// Gives a new client its Worker: the one with the fewest connections. The `accepting` Worker is preferred while it has
    /// hardly more, because the way to another thread costs time. A Worker that is behind with taking in clients gets none
    /// while there is another.
    ///
    /// `accepting` is `None` if no Worker has accepted the client: the threads that accept may be blocked, so they come last. `now` is
    /// counted from any fixed moment.
    pub fn place(&mut self, accepting: Option<WorkerId>, now: Duration) -> WorkerId {
        // The accepting thread runs, so it is not behind, though clients may be on their way to it.
        let behind = |worker, load: &Load| Some(worker) != accepting && load.is_behind(now);
        let may_be_blocked = |worker| accepting.is_none() && accepts(worker);
        let (_, _, least, worker) = self
            .workers()
            .map(|(worker, load)| (behind(worker, load), may_be_blocked(worker), load.connections, worker))
            .min()
            .expect("a server has a Worker");
        let hardly_more = least + least / 16 + 2;
        let own = accepting.filter(|&own| self.connections(own) <= hardly_more);
        let lives = own.unwrap_or(worker);
        self.enter(lives);
        if Some(lives) != accepting {
            let load = self.load(lives);
            if load.on_their_way == 0 {
                load.since = now;
            }
            load.on_their_way += 1;
        }
        lives
    }

    /// A client that was placed on another thread than the accepting one has come there.
    pub fn arrived(&mut self, worker: WorkerId, now: Duration) {
        let load = self.load(worker);
        load.on_their_way -= 1;
        load.since = now;
    }

    /// One more connection, on a Worker that was chosen otherwise.
    pub fn enter(&mut self, worker: WorkerId) {
        self.load(worker).connections += 1;
    }

    /// A connection has ended.
    pub fn leave(&mut self, worker: WorkerId) {
        self.load(worker).connections -= 1;
    }

    /// How many connections a Worker has, with those on their way to it.
    pub fn connections(&self, worker: WorkerId) -> usize {
        self.loads[worker.0 - 1].connections
    }

    fn workers(&self) -> impl Iterator<Item = (WorkerId, &Load)> {
        (1..).map(WorkerId).zip(&self.loads)
    }

    fn load(&mut self, worker: WorkerId) -> &mut Load {
        &mut self.loads[worker.0 - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Duration = Duration::ZERO;
    const OTHER: WorkerId = WorkerId(2);

    /// The most and the mean of the connections of a Worker.
    fn spread(placement: &Placement) -> (usize, f64) {
        let connections = || placement.loads.iter().map(|load| load.connections);
        (connections().max().unwrap(), connections().sum::<usize>() as f64 / placement.loads.len() as f64)
    }

    proptest! {
        #[test]
        fn no_worker_has_many_more_than_the_mean_however_the_kernel_wakes_the_acceptors(
            workers in 1_usize..80,
            accepting in prop::collection::vec(1..=ACCEPTORS, 1..2_000),
        ) {
            let mut placement = Placement::new(workers);
            for accepting in accepting {
                let lives = placement.place(Some(WorkerId(accepting.min(workers))), NOW);
                if lives.0 != accepting.min(workers) {
                    placement.arrived(lives, NOW);
                }
                let (most, mean) = spread(&placement);
                prop_assert!(most as f64 <= mean * 17.0 / 16.0 + 3.0, "{most} of {mean}");
            }
        }

        #[test]
        fn those_that_go_are_replaced_where_they_are_missed(gone in prop::collection::vec(1_usize..=8, 300)) {
            let mut placement = Placement::new(8);
            for _ in 0..3_000 {
                placement.place(Some(WorkerId(1)), NOW);
            }
            for &gone in &gone {
                placement.leave(WorkerId(gone));
            }
            for _ in &gone {
                placement.place(Some(OTHER), NOW);
            }
            let (most, mean) = spread(&placement);
            prop_assert!(most as f64 <= mean * 1.06 + 3.0, "{most} of {mean}");
        }
    }

    #[test]
    fn a_worker_that_is_behind_gets_no_client_until_it_takes_one_in() {
        let mut placement = Placement::new(2);
        while placement.place(Some(WorkerId(1)), NOW) != OTHER {}
        let later = NOW + PATIENCE + Duration::from_millis(1);
        for _ in 0..100 {
            assert_eq!(placement.place(Some(WorkerId(1)), later), WorkerId(1));
        }
        placement.arrived(OTHER, later);
        assert_eq!(placement.place(Some(WorkerId(1)), later), OTHER);
    }

    #[test]
    fn a_worker_that_accepts_itself_is_not_behind() {
        let mut placement = Placement::new(2);
        placement.place(None, NOW);
        placement.place(None, NOW);
        let later = NOW + 2 * PATIENCE;
        assert_eq!(placement.place(Some(OTHER), later), OTHER);
    }

    #[test]
    fn if_every_worker_is_behind_the_one_with_the_fewest_gets_the_client() {
        let mut placement = Placement::new(2);
        let lives: Vec<_> = (0..3).map(|_| placement.place(None, NOW).0).collect();
        assert_eq!(lives, [1, 2, 1]);
        assert_eq!(placement.place(None, NOW + 2 * PATIENCE), OTHER);
    }

    #[test]
    fn without_an_acceptor_that_accepts_their_workers_come_last() {
        let mut placement = Placement::new(4);
        let lives: Vec<_> = (0..6).map(|_| placement.place(None, NOW).0).collect();
        assert_eq!(lives, [3, 4, 3, 4, 3, 4]);
    }

    #[test]
    fn one_worker_has_everything() {
        let mut placement = Placement::new(1);
        for n in 1..100 {
            assert_eq!(placement.place(Some(WorkerId(1)), NOW), WorkerId(1));
            assert_eq!(placement.connections(WorkerId(1)), n);
        }
    }
}
