//! Runs the decisions of the server, the very code, through every order of events that a small world allows.
//!
//! The models add only what surrounds that code: clients, mailboxes, threads and clocks. A mailbox is one queue: what was sent
//! before is heard before. What the senders of different messages do comes in any order. Timers end at any time, and every part that may crash does so at any
//! moment. The checker visits all of each world, so what holds here holds for every run in it.

#[path = "model/house.rs"]
mod house;
#[path = "model/tree.rs"]
mod tree;

use stateright::{Checker, HasDiscoveries, Model};
use std::{fmt::Debug, hash::Hash, io::Write};

fn exhaust<M>(world: M)
where
    M: Model + Send + Sync + 'static,
    M::State: Debug + Hash + Send + Sync + Clone + PartialEq,
    M::Action: Debug + Clone + PartialEq + Send + Sync,
{
    let checker = world.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    checker.assert_properties();
    // Past the harness, which shows what a test prints only if it fails.
    let world = std::thread::current().name().unwrap_or("a world").replace('_', " ");
    let _ = writeln!(std::io::stderr(), "{:>9} states: {world}", checker.unique_state_count());
}

#[test]
fn the_cap_holds_and_the_queue_is_fair() {
    exhaust(house::Model);
}

#[test]
fn a_full_house_is_stopped_and_every_connection_acknowledges() {
    exhaust(tree::Model {
        slots: 3,
        accepts: [true; 2],
        served: [2, 1],
        reaches: &[tree::GRACEFUL, tree::FORCED, tree::STUCK],
        ..tree::Model::QUIET
    });
}

#[test]
fn a_client_that_waits_or_is_in_the_backlog_at_a_stop_is_drained() {
    exhaust(tree::Model {
        slots: 1,
        accepts: [true, false],
        served: [0, 0],
        backlog: 2,
        reaches: &[
            tree::GRACEFUL,
            tree::FORCED,
            tree::FULL_HOUSE,
            tree::TWO_SWEEPS,
            tree::HANDED_OVER,
            tree::HANDED_OVER_AT_A_STOP,
            tree::ACCEPTED_BY_THE_SUPERVISOR,
        ],
        ..tree::Model::QUIET
    });
}

#[test]
fn a_crash_of_anything_at_any_point_leaves_the_stop_and_its_numbers_whole() {
    exhaust(tree::Model {
        slots: 2,
        accepts: [true; 2],
        served: [1, 1],
        crashes: 1,
        reaches: &[tree::GRACEFUL, tree::FORCED, tree::WORKER_CRASH, tree::RESTART],
        ..tree::Model::QUIET
    });
}

#[test]
fn a_crash_loses_no_client_that_is_on_its_way() {
    exhaust(tree::Model {
        slots: 1,
        accepts: [true, false],
        served: [0, 0],
        backlog: 1,
        crashes: 1,
        reaches: &[tree::GRACEFUL, tree::RESTART, tree::HANDED_OVER],
        ..tree::Model::QUIET
    });
}

#[test]
fn too_many_crashes_stop_the_server() {
    exhaust(tree::Model {
        slots: 1,
        accepts: [true; 2],
        served: [0, 0],
        crashes: 2,
        reaches: &[tree::ESCALATION, tree::RESTART],
        ..tree::Model::QUIET
    });
}

#[test]
fn a_handshake_that_ends_after_the_first_sweep_is_waited_for() {
    exhaust(tree::Model {
        slots: 1,
        accepts: [true, false],
        served: [1, 0],
        handshakes: 1,
        reaches: &[tree::GRACEFUL, tree::FORCED, tree::LATE_HANDSHAKE],
        ..tree::Model::QUIET
    });
}

#[test]
fn where_the_kernel_cannot_refuse_the_drain_begins_when_the_socket_is_closed() {
    exhaust(tree::Model {
        slots: 1,
        accepts: [true; 2],
        served: [0, 0],
        handshakes: 1,
        refusing: false,
        reaches: &[tree::GRACEFUL, tree::FORCED],
        ..tree::Model::QUIET
    });
}

#[test]
fn a_lame_duck_goes_on_serving_and_each_signal_moves_the_stop_one_stage_on() {
    exhaust(tree::Model {
        slots: 1,
        accepts: [true, false],
        served: [0, 0],
        backlog: 1,
        lame_duck: true,
        echoes: 1,
        reaches: &[tree::GRACEFUL, tree::FORCED, tree::LAME_DUCK],
        ..tree::Model::QUIET
    });
}

#[test]
fn an_echo_of_a_signal_forces_no_connection() {
    exhaust(tree::Model {
        slots: 1,
        accepts: [true; 2],
        served: [1, 0],
        echoes: 2,
        reaches: &[tree::GRACEFUL, tree::FORCED],
        ..tree::Model::QUIET
    });
}

#[test]
fn an_abort_at_any_point_ends_the_server_by_force_and_a_second_one_changes_nothing() {
    exhaust(tree::Model {
        slots: 2,
        accepts: [true; 2],
        served: [1, 1],
        aborts: 2,
        reaches: &[tree::GRACEFUL, tree::FORCED, tree::STUCK, tree::ABORTED, tree::ABORTED_LATE],
        ..tree::Model::QUIET
    });
}

#[test]
fn aborts_amid_a_crash_leave_the_numbers_whole() {
    exhaust(tree::Model {
        slots: 1,
        accepts: [true; 2],
        served: [1, 0],
        refusing: false,
        aborts: 1,
        crashes: 1,
        reaches: &[tree::GRACEFUL, tree::ABORTED, tree::WORKER_CRASH],
        ..tree::Model::QUIET
    });
}

#[test]
fn a_last_word_is_waited_for_and_the_deadline_a_second_signal_or_an_abort_ends_the_wait() {
    exhaust(tree::Model {
        slots: 1,
        accepts: [true, false],
        served: [1, 0],
        last_word: true,
        aborts: 1,
        reaches: &[tree::GRACEFUL, tree::LAST_WORD, tree::FORCED_BEFORE_THE_LAST_WORD, tree::ABORTED, tree::STUCK],
        ..tree::Model::QUIET
    });
}

#[test]
fn a_client_that_waits_or_is_in_the_backlog_at_a_stop_has_its_last_word_too() {
    exhaust(tree::Model {
        slots: 0,
        accepts: [true, false],
        served: [0, 0],
        backlog: 1,
        last_word: true,
        reaches: &[tree::GRACEFUL, tree::LAST_WORD, tree::FORCED_BEFORE_THE_LAST_WORD, tree::FULL_HOUSE],
        ..tree::Model::QUIET
    });
}

#[test]
fn a_crash_of_anything_while_a_last_word_is_waited_for_leaves_the_numbers_whole() {
    exhaust(tree::Model {
        slots: 1,
        accepts: [true, false],
        served: [1, 0],
        last_word: true,
        crashes: 1,
        reaches: &[tree::GRACEFUL, tree::LAST_WORD, tree::FORCED_BEFORE_THE_LAST_WORD, tree::WORKER_CRASH],
        ..tree::Model::QUIET
    });
}
