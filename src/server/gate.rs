//! The lock round the [`Admission`] and the [`Placement`], the wakers of those who wait for a slot, and the RAII permits.
//!
//! Accepting, counting, queueing and placing are one step under one lock. This makes the cap exact, the queue fair and the
//! load even over all threads. An Acceptor holds no permit while it waits for a client: it would keep a slot from a client that is already
//! there.

use crate::decisions::{
    admission::{Admission, Census, Place, Tally},
    connection::CloseReason,
    ids::{ConnectionId, WorkerId},
    placement::Placement,
};
use std::{
    collections::HashMap,
    future::poll_fn,
    io,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};
use tokio::time::Instant;

/// Where all Acceptors ask for room and all connections wait for their slots.
#[derive(Debug)]
pub struct Gate {
    state: Mutex<State>,
    started: Instant,
}

#[derive(Debug)]
struct State {
    admission: Admission,
    /// The wakers of the queued connections. The gate wakes one when it hands a slot to it.
    waiters: HashMap<ConnectionId, Waker>,
    /// The wakers of Acceptors without room. A departure wakes them all, because any of them may be the one whose thread
    /// has time.
    parked: Vec<Waker>,
    /// Its connections are the permits that are out. They count as lost if the Worker never answers.
    placement: Placement,
}

impl Gate {
    /// A gate with `max_connections` slots and a queue of `max_pending` behind them, for clients of so many Workers.
    pub fn new(max_connections: usize, max_pending: usize, workers: usize) -> Arc<Self> {
        let state = State {
            admission: Admission::new(max_connections, max_pending),
            waiters: HashMap::new(),
            parked: Vec::new(),
            placement: Placement::new(workers),
        };
        Arc::new(Self { state: Mutex::new(state), started: Instant::now() })
    }

    /// Accepts one client if there is room, and gives it its place and its Worker in the same step, so no other client can
    /// come in between. Without room the Acceptor is parked, and the next departure wakes it.
    ///
    /// `accepting` is the Worker whose Acceptor asks, or `None` for the Supervisor.
    pub fn poll_accept<T>(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        accepting: Option<WorkerId>,
        accept: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<(T, Permit, Place)>> {
        let mut state = self.lock();
        if !state.admission.has_room() {
            if !state.parked.iter().any(|parked| parked.will_wake(cx.waker())) {
                state.parked.push(cx.waker().clone());
            }
            return Poll::Pending;
        }
        let accepted = ready!(accept(cx))?;
        let (connection, place) = state.admission.arrive();
        let worker = state.placement.place(accepting, self.started.elapsed());
        Poll::Ready(Ok((accepted, self.permit(connection, worker, Some(worker) != accepting), place)))
    }

    /// Counts a client from the backlog, after the close.
    pub fn take_in(self: &Arc<Self>, worker: WorkerId) -> Permit {
        let mut state = self.lock();
        let connection = state.admission.take_in();
        state.placement.enter(worker);
        self.permit(connection, worker, false)
    }

    /// Counts a client from the backlog that no Worker takes any more, as ended by force.
    pub fn turn_away(&self) {
        let admission = &mut self.lock().admission;
        let connection = admission.take_in();
        admission.leave(connection, CloseReason::Forced, 0);
    }

    /// Changes the caps: see [`Admission::resize`].
    pub fn resize(&self, max_connections: usize, max_pending: usize) {
        let woken: Vec<_> = {
            let mut state = self.lock();
            let handed_to = state.admission.resize(max_connections, max_pending);
            let waiters = handed_to.iter().filter_map(|waiter| state.waiters.remove(waiter)).collect::<Vec<_>>();
            waiters.into_iter().chain(std::mem::take(&mut state.parked)).collect()
        };
        woken.into_iter().for_each(Waker::wake);
    }

    /// Closes the gate. Gives the census of the first close.
    pub fn close(&self) -> Census {
        self.lock().admission.close()
    }

    /// The admission as it is now.
    pub fn admission(&self) -> impl Deref<Target = Admission> {
        struct Locked<'a>(MutexGuard<'a, State>);
        impl Deref for Locked<'_> {
            type Target = Admission;

            fn deref(&self) -> &Admission {
                &self.0.admission
            }
        }
        Locked(self.lock())
    }

    /// How many have a slot, and how many wait for one.
    pub fn occupancy(&self) -> (usize, usize) {
        let admission = self.admission();
        (admission.served(), admission.waiting())
    }

    /// How many permits are out on one Worker.
    pub fn alive(&self, worker: WorkerId) -> usize {
        self.lock().placement.connections(worker)
    }

    /// What became of all connections, for the report: see [`Admission::tally`].
    pub fn tally(&self) -> Tally {
        self.lock().admission.tally()
    }

    fn permit(self: &Arc<Self>, connection: ConnectionId, worker: WorkerId, on_its_way: bool) -> Permit {
        Permit { gate: Some(self.clone()), connection, worker, on_its_way }
    }

    fn leave(&self, connection: ConnectionId, worker: WorkerId, reason: CloseReason, discarded: u64) -> bool {
        let (woken, parked, in_stop) = {
            let mut state = self.lock();
            let departure = state.admission.leave(connection, reason, discarded);
            state.placement.leave(worker);
            state.waiters.remove(&connection);
            let woken = departure.handed_to.and_then(|waiter| state.waiters.remove(&waiter));
            (woken, std::mem::take(&mut state.parked), departure.in_stop)
        };
        // Woken outside the lock: a waker runs code that this module does not know.
        woken.into_iter().chain(parked).for_each(Waker::wake);
        in_stop
    }

    /// A panic under the lock (in an injected listener) leaves a whole state, because each change is one call.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One client's slot, or its place in the queue. The permit gives it back when it is dropped, so a panic gives it back too.
#[derive(Debug)]
pub struct Permit {
    /// `None` once given back.
    gate: Option<Arc<Gate>>,
    connection: ConnectionId,
    worker: WorkerId,
    /// Whether the client comes from another thread and is not there yet.
    on_its_way: bool,
}

impl Permit {
    /// The id of the connection that holds it.
    pub fn connection(&self) -> ConnectionId {
        self.connection
    }

    /// The Worker on which the connection lives.
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// Its Worker has it, perhaps after a way from another thread. A client that is lost on its way is no longer on it either.
    pub fn arrived(&mut self) {
        if std::mem::take(&mut self.on_its_way)
            && let Some(gate) = &self.gate
        {
            gate.lock().placement.arrived(self.worker, gate.started.elapsed());
        }
    }

    /// Resolves when the connection has a slot. It never resolves if the gate closes first.
    pub fn served(&self) -> impl Future<Output = ()> + use<> {
        let (gate, connection) = (self.gate.clone(), self.connection);
        poll_fn(move |cx| {
            let Some(gate) = &gate else { return Poll::Pending };
            let mut state = gate.lock();
            if state.admission.is_served(connection) {
                return Poll::Ready(());
            }
            state.waiters.insert(connection, cx.waker().clone());
            Poll::Pending
        })
    }

    /// Gives the place back, with the close reason and the number of discarded bytes. True if the gate had closed: then the
    /// report of the stop counts this connection.
    pub fn give_back(&mut self, reason: CloseReason, discarded: u64) -> bool {
        self.arrived();
        self.gate.take().is_some_and(|gate| gate.leave(self.connection, self.worker, reason, discarded))
    }
}

impl Drop for Permit {
    /// A permit is dropped unreturned only if no actor was started for it. Its client sees a reset.
    fn drop(&mut self) {
        self.give_back(CloseReason::Forced, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt, task::noop_waker};
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::Wake,
        time::Duration,
    };

    const WORKER: WorkerId = WorkerId(1);

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn accept(gate: &Arc<Gate>, waker: &Waker) -> Option<(Permit, Place)> {
        match gate.poll_accept(&mut Context::from_waker(waker), Some(WORKER), |_| Poll::Ready(Ok(()))) {
            Poll::Ready(accepted) => accepted.ok().map(|((), permit, place)| (permit, place)),
            Poll::Pending => None,
        }
    }

    fn enter(gate: &Arc<Gate>) -> Permit {
        accept(gate, &noop_waker()).expect("there is room").0
    }

    #[test]
    fn a_full_house_parks_the_acceptor_and_a_departure_wakes_it() {
        let gate = Gate::new(1, 0, 1);
        let permit = enter(&gate);
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        assert!(accept(&gate, &waker).is_none());
        assert!(accept(&gate, &waker).is_none());
        drop(permit);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(accept(&gate, &waker).is_some());
    }

    #[test]
    fn every_parked_acceptor_is_woken() {
        let gate = Gate::new(1, 0, 1);
        let permit = enter(&gate);
        let counts = [(); 3].map(|()| Arc::new(Count::default()));
        for count in &counts {
            assert!(accept(&gate, &Waker::from(count.clone())).is_none());
        }
        drop(permit);
        assert!(counts.iter().all(|count| count.0.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn without_room_the_listener_is_not_asked() {
        let gate = Gate::new(1, 0, 1);
        let _permit = enter(&gate);
        let polled =
            gate.poll_accept(&mut Context::from_waker(&noop_waker()), Some(WORKER), |_| -> Poll<io::Result<()>> {
                panic!("asked without room")
            });
        assert!(polled.is_pending());
    }

    #[test]
    fn after_the_close_the_listener_is_not_asked() {
        let gate = Gate::new(1, 1, 1);
        gate.close();
        let polled =
            gate.poll_accept(&mut Context::from_waker(&noop_waker()), Some(WORKER), |_| -> Poll<io::Result<()>> {
                panic!("asked after the close")
            });
        assert!(polled.is_pending());
    }

    #[test]
    fn an_accept_that_fails_takes_no_slot() {
        let gate = Gate::new(1, 0, 1);
        let failed =
            gate.poll_accept(&mut Context::from_waker(&noop_waker()), Some(WORKER), |_| -> Poll<io::Result<()>> {
                Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
            });
        assert!(matches!(failed, Poll::Ready(Err(_))));
        assert_eq!(gate.alive(WORKER), 0);
        enter(&gate);
    }

    #[test]
    fn a_freed_slot_wakes_the_oldest_waiter_alone() {
        let gate = Gate::new(1, 2, 1);
        let served = enter(&gate);
        let waiters = [(); 2].map(|()| {
            let (permit, place) = accept(&gate, &noop_waker()).expect("there is a place");
            assert!(matches!(place, Place::Waiting(_)));
            let count = Arc::new(Count::default());
            let mut turn = Box::pin(permit.served());
            assert!(turn.poll_unpin(&mut Context::from_waker(&Waker::from(count.clone()))).is_pending());
            (permit, count, turn)
        });
        drop(served);
        let [(_first, first_count, mut first_turn), (_second, second_count, mut second_turn)] = waiters;
        assert_eq!((first_count.0.load(Ordering::Relaxed), second_count.0.load(Ordering::Relaxed)), (1, 0));
        assert!(first_turn.as_mut().now_or_never().is_some());
        assert!(second_turn.as_mut().now_or_never().is_none());
    }

    #[test]
    fn a_waiter_that_goes_after_its_slot_was_handed_to_it_hands_it_on() {
        let gate = Gate::new(1, 2, 1);
        let served = enter(&gate);
        let (first, second) = (enter(&gate), enter(&gate));
        drop(served);
        drop(first);
        assert!(second.served().now_or_never().is_some());
    }

    #[actix::test]
    async fn a_worker_that_leaves_a_client_on_its_way_gets_no_other_one_until_that_one_has_arrived() {
        tokio::time::pause();
        let gate = Gate::new(9, 0, 2);
        let mut permits = [(); 4].map(|()| enter(&gate));
        assert_eq!(permits.each_ref().map(|permit| permit.worker().0), [1, 1, 1, 2]);
        tokio::time::advance(Duration::from_secs(1)).await;
        let fifth = enter(&gate);
        permits[3].arrived();
        let sixth = enter(&gate);
        assert_eq!((fifth.worker().0, sixth.worker().0), (1, 2));
    }

    #[actix::test]
    async fn a_client_that_is_lost_on_its_way_keeps_no_other_one_from_that_worker() {
        tokio::time::pause();
        let gate = Gate::new(9, 0, 2);
        let [_first, _second, _third, on_its_way] = [(); 4].map(|()| enter(&gate));
        assert_eq!(on_its_way.worker(), WorkerId(2));
        drop(on_its_way);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(enter(&gate).worker(), WorkerId(2));
    }

    #[test]
    fn a_panic_gives_the_slot_back() {
        let gate = Gate::new(1, 0, 1);
        let permit = enter(&gate);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _permit = permit;
            panic!("with a permit in hand");
        }));
        assert!(panicked.is_err());
        enter(&gate);
    }

    #[test]
    fn a_permit_given_back_after_the_close_says_so_and_counts_once() {
        let gate = Gate::new(2, 0, 1);
        let (mut early, mut late) = (enter(&gate), enter(&gate));
        assert!(!early.give_back(CloseReason::Client, 0));
        assert_eq!(gate.close(), Census { connections: 1, pending: 0 });
        let mut taken_in = gate.take_in(WORKER);
        assert_eq!(gate.alive(WORKER), 2);
        assert!(late.give_back(CloseReason::Stopped, 0) && taken_in.give_back(CloseReason::Stopped, 0));
        assert!(!late.give_back(CloseReason::Stopped, 0));
        assert_eq!(gate.tally(), Tally { acknowledged: 2, ..Tally::default() });
        assert_eq!(gate.alive(WORKER), 0);
    }
}
