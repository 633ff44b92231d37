//! Decides who is served, who waits, and whether one more client may be accepted.
//!
//! A pure state machine: it takes events and gives decisions. The sockets, the lock and the wakers are in `gate`, so tests
//! and the model checker run it without them.

use crate::decisions::connection::CloseReason;
pub use crate::decisions::ids::ConnectionId;
use std::collections::BTreeSet;

/// What an arrival finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// A free slot.
    Served,
    /// A place in the queue, with this many waiting, itself included.
    Waiting(usize),
}

/// The clients that were there when the gate closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Census {
    /// Connections that had a slot.
    pub connections: usize,
    /// Connections that waited for one.
    pub pending: usize,
}

/// What became of connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Tally {
    /// Alive at the close or taken in later, and ended without force. Those that crashed after the close are included.
    pub acknowledged: usize,
    /// Alive at the close or taken in later, and ended by force.
    pub forced: usize,
    /// Panicked, ever.
    pub crashed: usize,
    /// Of those acknowledged, those that their clients reset.
    pub reset: usize,
    /// Of those acknowledged, those whose services failed.
    pub failed: usize,
    /// Bytes that came too late to be answered, over all connections that were alive at the close or taken in later.
    pub discarded: u64,
}

/// What a departure causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Departure {
    /// The waiter that the freed slot was handed to.
    pub handed_to: Option<ConnectionId>,
    /// Whether the connection left after the close. The report of the stop counts it then.
    pub in_stop: bool,
}

/// The cap, the connections within it, and the queue behind it.
///
/// Invariants: before the close no client gets a slot while `max_connections` are served, or a place while `max_pending`
/// wait. A client waits only while all slots are taken. The order of the queue is the order of arrival.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Admission {
    max_connections: usize,
    max_pending: usize,
    /// Every connection that has arrived or been taken in and has not left.
    alive: usize,
    /// Ordered by id, which is the order of arrival.
    waiting: BTreeSet<ConnectionId>,
    next_id: u64,
    closed: Option<Census>,
    tally: Tally,
}

impl Admission {
    /// An empty server with `max_connections` slots and `max_pending` places in the queue.
    pub fn new(max_connections: usize, max_pending: usize) -> Self {
        Self {
            max_connections,
            max_pending,
            alive: 0,
            waiting: BTreeSet::new(),
            next_id: 1,
            closed: None,
            tally: Tally::default(),
        }
    }

    /// Whether one more may be accepted now.
    pub fn has_room(&self) -> bool {
        self.closed.is_none() && (self.served() < self.max_connections || self.waiting.len() < self.max_pending)
    }

    /// Gives a new client its slot or its place. Call it only while there is [room](Self::has_room).
    pub fn arrive(&mut self) -> (ConnectionId, Place) {
        debug_assert!(self.has_room(), "accepted without room");
        let waits = self.served() >= self.max_connections;
        let id = self.enter();
        if !waits {
            return (id, Place::Served);
        }
        self.waiting.insert(id);
        (id, Place::Waiting(self.waiting.len()))
    }

    /// Counts a client that was found in the backlog after the close. It is only drained, so no cap holds for it.
    pub fn take_in(&mut self) -> ConnectionId {
        debug_assert!(self.closed.is_some(), "the backlog is the Acceptors' until the close");
        self.enter()
    }

    /// How many clients have come in so far.
    pub fn entered(&self) -> u64 {
        self.next_id - 1
    }

    fn enter(&mut self) -> ConnectionId {
        let id = ConnectionId(self.next_id);
        self.next_id += 1;
        self.alive += 1;
        id
    }

    /// Changes the caps. Slots that are new go to the oldest waiters; gives these. If a cap is lowered, every client keeps what
    /// it has, and no client is let in before enough have gone.
    pub fn resize(&mut self, max_connections: usize, max_pending: usize) -> Vec<ConnectionId> {
        (self.max_connections, self.max_pending) = (max_connections, max_pending);
        let mut handed_to = Vec::new();
        while self.closed.is_none() && self.served() < self.max_connections {
            let Some(waiter) = self.waiting.pop_first() else { break };
            handed_to.push(waiter);
        }
        handed_to
    }

    /// A connection has ended, with or without a slot. It has discarded `discarded` bytes. The slot that it frees goes to
    /// the oldest waiter in the same step, so no newcomer can take it.
    pub fn leave(&mut self, id: ConnectionId, reason: CloseReason, discarded: u64) -> Departure {
        self.alive -= 1;
        self.tally.crashed += usize::from(reason == CloseReason::Crashed);
        if self.closed.is_some() {
            let forced = reason == CloseReason::Forced;
            self.tally.forced += usize::from(forced);
            self.tally.acknowledged += usize::from(!forced);
            self.tally.reset += usize::from(reason == CloseReason::Reset);
            self.tally.failed += usize::from(reason == CloseReason::Failed);
            self.tally.discarded += discarded;
        }
        let had_slot = !self.waiting.remove(&id);
        // A cap that was lowered takes the slot back.
        let is_free = had_slot && self.closed.is_none() && self.served() < self.max_connections;
        let handed_to = if is_free { self.waiting.pop_first() } else { None };
        Departure { handed_to, in_stop: self.closed.is_some() }
    }

    /// Whether `id`, which has arrived and not left, has a slot. After the close no waiter gets one.
    pub fn is_served(&self, id: ConnectionId) -> bool {
        self.closed.is_none() && !self.waiting.contains(&id)
    }

    /// Lets no client in and hands out no slot from now on. Gives the census of the first close, also when repeated.
    pub fn close(&mut self) -> Census {
        let census = Census { connections: self.served(), pending: self.waiting.len() };
        *self.closed.get_or_insert(census)
    }

    /// The caps: how many are served at most, and how many wait.
    pub fn caps(&self) -> (usize, usize) {
        (self.max_connections, self.max_pending)
    }

    /// What became of the connections that have ended.
    pub fn outcomes(&self) -> Tally {
        self.tally
    }

    /// The outcomes so far. Connections that are still open count as forced: the report is made only once nothing waits for
    /// them.
    pub fn tally(&self) -> Tally {
        Tally { forced: self.tally.forced + self.alive, ..self.tally }
    }

    /// Those with a slot. After the close also those that were taken in.
    pub fn served(&self) -> usize {
        self.alive - self.waiting.len()
    }

    /// Those in the queue.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn full(max_connections: usize, max_pending: usize) -> (Admission, Vec<ConnectionId>) {
        let mut admission = Admission::new(max_connections, max_pending);
        let mut ids = Vec::new();
        while admission.has_room() {
            ids.push(admission.arrive().0);
        }
        (admission, ids)
    }

    #[test]
    fn a_freed_slot_goes_to_the_oldest_waiter() {
        let (mut admission, ids) = full(1, 2);
        assert_eq!(admission.leave(ids[0], CloseReason::Client, 0).handed_to, Some(ids[1]));
        assert!(admission.is_served(ids[1]));
        assert!(!admission.is_served(ids[2]));
    }

    #[test]
    fn a_waiter_that_leaves_frees_its_place_and_no_slot() {
        let (mut admission, ids) = full(1, 2);
        assert_eq!(admission.leave(ids[1], CloseReason::Client, 0).handed_to, None);
        assert!(admission.has_room());
        assert_eq!((admission.served(), admission.waiting()), (1, 1));
        assert_eq!(admission.leave(ids[0], CloseReason::Client, 0).handed_to, Some(ids[2]));
    }

    #[test]
    fn a_raised_cap_gives_its_slots_to_the_oldest_waiters() {
        let (mut admission, ids) = full(1, 3);
        assert_eq!(admission.resize(3, 3), ids[1..3]);
        assert!(admission.is_served(ids[2]) && !admission.is_served(ids[3]));
        assert!(admission.has_room());
    }

    #[test]
    fn a_lowered_cap_throws_no_client_out_and_lets_none_in_before_enough_have_gone() {
        let (mut admission, ids) = full(3, 1);
        assert_eq!(admission.resize(1, 1), []);
        assert_eq!((admission.served(), admission.waiting(), admission.has_room()), (3, 1, false));
        assert_eq!(admission.leave(ids[0], CloseReason::Client, 0).handed_to, None);
        assert_eq!(admission.leave(ids[1], CloseReason::Client, 0).handed_to, None);
        assert_eq!(admission.leave(ids[2], CloseReason::Client, 0).handed_to, Some(ids[3]));
    }

    #[test]
    fn after_the_close_a_raised_cap_hands_out_no_slot() {
        let (mut admission, _) = full(1, 1);
        admission.close();
        assert_eq!(admission.resize(2, 2), []);
    }

    #[test]
    fn a_waiter_is_told_how_many_wait() {
        let mut admission = Admission::new(1, 2);
        assert_eq!(admission.arrive().1, Place::Served);
        assert_eq!(admission.arrive().1, Place::Waiting(1));
        assert_eq!(admission.arrive().1, Place::Waiting(2));
    }

    #[test]
    fn without_a_queue_a_full_house_has_no_room() {
        let (admission, ids) = full(3, 0);
        assert_eq!(ids.len(), 3);
        assert!(!admission.has_room());
    }

    #[test]
    fn after_the_close_no_client_enters_and_no_slot_is_handed_on() {
        let (mut admission, ids) = full(1, 1);
        assert_eq!(admission.close(), Census { connections: 1, pending: 1 });
        assert_eq!(admission.leave(ids[0], CloseReason::Client, 0), Departure { handed_to: None, in_stop: true });
        assert!(!admission.has_room());
        assert!(!admission.is_served(ids[1]));
    }

    #[test]
    fn the_tally_accounts_for_every_client_that_was_there_at_the_close_or_came_later() {
        let (mut admission, ids) = full(5, 1);
        admission.leave(ids[0], CloseReason::Crashed, 0);
        admission.leave(ids[4], CloseReason::Forced, 0);
        let census = admission.close();
        let taken_in = admission.take_in();
        admission.leave(ids[1], CloseReason::Reset, 0);
        admission.leave(ids[2], CloseReason::Crashed, 3);
        admission.leave(ids[3], CloseReason::Forced, 0);
        admission.leave(taken_in, CloseReason::Failed, 4);
        let tally = admission.tally();
        assert_eq!(tally, Tally { acknowledged: 3, forced: 2, crashed: 2, reset: 1, failed: 1, discarded: 7 });
        assert_eq!(tally.acknowledged + tally.forced, census.connections + census.pending + 1);
    }

    #[test]
    fn a_second_close_gives_the_first_census() {
        let (mut admission, ids) = full(2, 0);
        let census = admission.close();
        admission.leave(ids[0], CloseReason::Client, 0);
        admission.take_in();
        assert_eq!(admission.close(), census);
    }

    proptest! {
        /// 0 to 5: one arrives if there is room; otherwise one leaves, picked by the number.
        #[test]
        fn the_cap_holds_no_waiter_is_overtaken_and_no_slot_is_idle_while_a_client_waits(
            max_connections in 1usize..4, max_pending in 0usize..4, steps in prop::collection::vec(0usize..12, 0..200),
        ) {
            let mut admission = Admission::new(max_connections, max_pending);
            let mut alive: Vec<ConnectionId> = Vec::new();
            for step in steps {
                if step < 6 {
                    if admission.has_room() {
                        alive.push(admission.arrive().0);
                    }
                } else if !alive.is_empty() {
                    let oldest = alive.iter().copied().find(|&id| !admission.is_served(id));
                    let leaver = alive.remove(step % alive.len());
                    let had_slot = admission.is_served(leaver);
                    let handed_to = admission.leave(leaver, CloseReason::Client, 0).handed_to;
                    prop_assert_eq!(handed_to, if had_slot { oldest } else { None });
                }
                let served = alive.iter().filter(|&&id| admission.is_served(id)).count();
                prop_assert_eq!((served, alive.len() - served), (admission.served(), admission.waiting()));
                prop_assert!(served <= max_connections && admission.waiting() <= max_pending);
                prop_assert!(served == max_connections || admission.waiting() == 0);
                prop_assert_eq!(admission.has_room(), alive.len() < max_connections + max_pending);
            }
        }
    }
}
