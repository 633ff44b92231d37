//! Runs the decisions of the server, the very code, through every order of events that a small world allows.
//!
//! What is modelled here is only what surrounds that code: clients, mailboxes, threads and clocks. Messages between two actors
//! arrive in their order, those of different pairs in any; timers are over at any time; whatever may crash does, at any
//! moment. Each world is exhausted: what holds here holds for every run in it, not only for those that were tried.

#[path = "model/house.rs"]
mod house;
#[path = "model/tree.rs"]
mod tree;

use stateright::{Checker, HasDiscoveries, Model};
use std::{fmt::Debug, hash::Hash};

fn exhaust<M>(world: M)
where
    M: Model + Send + Sync + 'static,
    M::State: Debug + Hash + Send + Sync + Clone + PartialEq,
    M::Action: Debug + Clone + PartialEq + Send + Sync,
{
    let checker = world.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    checker.assert_properties();
    let states = checker.unique_state_count();
    let told = format!("| {},{:03} |", states / 1000, states % 1000);
    assert!(
        include_str!("../docs/architecture.md").contains(&told),
        "the architecture does not tell of {states} states"
    );
}

#[test]
fn the_cap_holds_and_the_queue_is_fair() {
    exhaust(house::Model);
}

#[test]
fn a_full_house_is_stopped_and_everybody_acknowledges() {
    exhaust(tree::Model {
        slots: 4,
        served: [2, 2],
        backlog: 0,
        crashes: 0,
        reaches: &[tree::GRACEFUL, tree::FORCED, tree::STUCK],
    });
}

#[test]
fn who_waits_or_is_in_the_backlog_at_a_stop_is_drained() {
    exhaust(tree::Model {
        slots: 1,
        served: [0, 0],
        backlog: 2,
        crashes: 0,
        reaches: &[tree::GRACEFUL, tree::FORCED, tree::FULL_HOUSE, tree::TWO_SWEEPS],
    });
}

#[test]
fn a_crash_of_anything_at_any_point_leaves_the_stop_and_its_numbers_whole() {
    exhaust(tree::Model {
        slots: 2,
        served: [1, 1],
        backlog: 0,
        crashes: 1,
        reaches: &[tree::GRACEFUL, tree::FORCED, tree::WORKER_CRASH, tree::RESTART],
    });
}

#[test]
fn a_crash_loses_no_client_that_is_on_its_way() {
    exhaust(tree::Model {
        slots: 1,
        served: [0, 0],
        backlog: 1,
        crashes: 1,
        reaches: &[tree::GRACEFUL, tree::RESTART],
    });
}

#[test]
fn too_many_crashes_stop_the_server() {
    exhaust(tree::Model {
        slots: 1,
        served: [0, 0],
        backlog: 0,
        crashes: 2,
        reaches: &[tree::ESCALATION, tree::RESTART],
    });
}
