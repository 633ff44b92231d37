//! The cap and the queue: two Acceptors, and clients that come, wait, end their input, go and crash. The caps change once and the
//! gate closes, both at any point.

use stateright::Property;
use supervised_echo::{
    CloseReason,
    decisions::{
        admission::{Admission, Census, ConnectionId, Place, Tally},
        connection::{ConnectionState, Ending},
    },
};

const SLOTS: usize = 2;
const PLACES: usize = 2;
const CLIENTS: usize = 5;
/// What the caps may change to, slots and places.
const RESIZES: [(usize, usize); 2] = [(1, 1), (3, 0)];

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct House {
    admission: Admission,
    /// How many clients have come. They come in the order of their numbers, which they keep in the kernel's queue.
    come: usize,
    /// How many of these have been accepted or taken in.
    accepted: usize,
    /// Those accepted, by number; `None` once gone.
    clients: Vec<Option<Client>>,
    /// Acceptors without room, until a departure wakes them.
    parked: [bool; 2],
    census: Option<Census>,
    taken_in: usize,
    resized: bool,
    /// Whether a client was given a slot or a place above a cap.
    overfull: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Client {
    id: ConnectionId,
    state: ConnectionState,
    /// Whether its actor is to look after its slot.
    woken: bool,
    half_closed: bool,
    /// Whether it was accepted, not taken in.
    admitted: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Come,
    Poll { acceptor: usize },
    LookAfterSlot(usize),
    HalfClose(usize),
    Leave(usize, CloseReason),
    Resize((usize, usize)),
    CloseGate,
    TakeIn,
    Drain(usize),
}

impl House {
    fn alive(&self) -> impl Iterator<Item = (usize, &Client)> {
        self.clients.iter().enumerate().filter_map(|(n, client)| Some((n, client.as_ref()?)))
    }

    fn is_open(&self) -> bool {
        self.census.is_none()
    }

    fn enter(&mut self, id: ConnectionId, state: ConnectionState, woken: bool) {
        self.clients.push(Some(Client { id, state, woken, half_closed: false, admitted: self.is_open() }));
        self.accepted += 1;
    }
}

pub struct Model;

impl stateright::Model for Model {
    type State = House;
    type Action = Action;

    fn init_states(&self) -> Vec<House> {
        vec![House {
            admission: Admission::new(SLOTS, PLACES),
            come: 0,
            accepted: 0,
            clients: Vec::new(),
            parked: [false; 2],
            census: None,
            taken_in: 0,
            resized: false,
            overfull: false,
        }]
    }

    fn actions(&self, house: &House, actions: &mut Vec<Action>) {
        if house.come < CLIENTS {
            actions.push(Action::Come);
        }
        let queued = house.accepted < house.come;
        if house.is_open() {
            actions.push(Action::CloseGate);
            actions.extend(RESIZES.into_iter().filter(|_| !house.resized).map(Action::Resize));
            let polled = (0..2).filter(|&n| !house.parked[n] && (queued || !house.admission.has_room()));
            actions.extend(polled.map(|acceptor| Action::Poll { acceptor }));
        } else if queued {
            actions.push(Action::TakeIn);
        }
        for (n, client) in house.alive() {
            let waits = client.state == ConnectionState::Waiting;
            if waits && client.woken {
                actions.push(Action::LookAfterSlot(n));
            }
            if waits && !client.half_closed {
                actions.push(Action::HalfClose(n));
            }
            if !house.is_open() && client.state.ending().is_none() {
                actions.push(Action::Drain(n));
            }
            let reasons = [
                Some(client.state.finish().reason()),
                Some(CloseReason::Crashed),
                (!house.is_open()).then_some(CloseReason::Forced),
            ];
            actions.extend(reasons.into_iter().flatten().map(|reason| Action::Leave(n, reason)));
        }
    }

    fn next_state(&self, house: &House, action: Action) -> Option<House> {
        let mut house = house.clone();
        match action {
            Action::Come => house.come += 1,
            Action::Poll { acceptor } => {
                if house.admission.has_room() {
                    let (id, place) = house.admission.arrive();
                    let served = place == Place::Served;
                    let state = if served { ConnectionState::Waiting.serve() } else { ConnectionState::Waiting };
                    house.enter(id, state, !served);
                    let (slots, places) = house.admission.caps();
                    house.overfull |= served && house.admission.served() > slots;
                    house.overfull |= !served && house.admission.waiting() > places;
                } else {
                    house.parked[acceptor] = true;
                }
            }
            Action::LookAfterSlot(n) => {
                let client = house.clients[n].as_mut()?;
                client.woken = false;
                if house.admission.is_served(client.id) {
                    client.state = client.state.serve();
                }
            }
            Action::HalfClose(n) => house.clients[n].as_mut()?.half_closed = true,
            Action::Leave(n, reason) => {
                let id = house.clients[n].take()?.id;
                let handed_to = house.admission.leave(id, reason, 0).handed_to;
                house.overfull |= handed_to.is_some() && house.admission.served() > house.admission.caps().0;
                let next = house.clients.iter_mut().flatten().find(|client| Some(client.id) == handed_to);
                if let Some(next) = next {
                    next.woken = true;
                }
                house.parked = [false; 2];
            }
            Action::Resize((slots, places)) => {
                house.resized = true;
                for id in house.admission.resize(slots, places) {
                    house
                        .clients
                        .iter_mut()
                        .flatten()
                        .filter(|client| client.id == id)
                        .for_each(|next| next.woken = true);
                }
                house.parked = [false; 2];
            }
            Action::CloseGate => house.census = Some(house.admission.close()),
            Action::TakeIn => {
                house.taken_in += 1;
                let id = house.admission.take_in();
                house.enter(id, ConnectionState::Waiting.end_input(Ending::Stopped), false);
            }
            Action::Drain(n) => {
                let client = house.clients[n].as_mut()?;
                // Every other one has sent nothing, and its last word is waited for.
                client.state = client.state.stop(n % 2 == 0);
            }
        }
        Some(house)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn waits(house: &House, client: &Client) -> bool {
            house.is_open() && !house.admission.is_served(client.id)
        }
        vec![
            Property::always("no client is given a slot or a place above a cap", |_, house: &House| !house.overfull),
            Property::always("those served have a slot each", |_, house: &House| {
                let serving = house.alive().filter(|(_, client)| client.state == ConnectionState::Serving).count();
                !house.is_open() || serving <= house.admission.served()
            }),
            Property::always("while a slot is free no client waits", |_, house: &House| {
                let slots = house.admission.caps().0;
                let free = house.alive().filter(|(_, client)| !waits(house, client)).count() < slots;
                !(house.is_open() && free && house.alive().any(|(_, client)| waits(house, client)))
            }),
            Property::always("no waiter is overtaken", |_, house: &House| {
                let first = house.alive().find(|(_, client)| waits(house, client));
                first.is_none_or(|(first, _)| house.alive().all(|(n, client)| n < first || waits(house, client)))
            }),
            Property::always("who has a slot is served or woken to be", |_, house: &House| {
                let has_slot = |client: &Client| house.admission.is_served(client.id);
                house
                    .alive()
                    .all(|(_, client)| !has_slot(client) || client.woken || client.state == ConnectionState::Serving)
            }),
            Property::always("an Acceptor is parked only while there is no room", |_, house: &House| {
                house.parked == [false; 2] || !house.admission.has_room()
            }),
            Property::always("who is taken in is never served", |_, house: &House| {
                house.alive().all(|(_, client)| client.admitted || client.state != ConnectionState::Serving)
            }),
            Property::always("everyone since the close is accounted for", |_, house: &House| {
                let Tally { acknowledged, forced, .. } = house.admission.tally();
                let since = |census: Census| census.connections + census.pending + house.taken_in;
                house.census.is_none_or(|census| acknowledged + forced == since(census))
            }),
            Property::eventually("everyone who came is gone", |_, house: &House| {
                house.come == CLIENTS && house.accepted == CLIENTS && house.alive().next().is_none()
            }),
            Property::sometimes("a full house with a full queue", |_, house: &House| {
                (house.admission.served(), house.admission.waiting()) == (SLOTS, PLACES)
            }),
            Property::sometimes("more are served than a lowered cap allows", |_, house: &House| {
                house.is_open() && house.admission.served() > house.admission.caps().0
            }),
            Property::sometimes("a raised cap has given a waiter its slot", |_, house: &House| {
                house.is_open() && house.admission.served() > SLOTS
            }),
            Property::sometimes("one that ended its input while it waited is served", |_, house: &House| {
                house.alive().any(|(_, client)| client.half_closed && client.state == ConnectionState::Serving)
            }),
            Property::sometimes("both Acceptors are parked", |_, house: &House| house.parked == [true; 2]),
            Property::sometimes("a client is taken in", |_, house: &House| {
                house.alive().any(|(_, client)| !client.admitted)
            }),
        ]
    }
}
