//! Whether the server lives, and whether it is ready for one more client. Both are decided from a snapshot.
//!
//! A server that does not live should be restarted; one that is not ready should get no clients for now. A stop is the one
//! case of the second that passes into an end.

use crate::server::watch::tree::{AcceptorPhase, AcceptorView, Answers, Occupancy, Phase};
use std::time::Duration;

/// How long a thread may take to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// A check of `/readyz`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    Phase,
    Acceptor,
    Descriptors,
    Room,
}

impl Check {
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "phase" => Some(Self::Phase),
            "acceptor" => Some(Self::Acceptor),
            "descriptors" => Some(Self::Descriptors),
            "room" => Some(Self::Room),
            _ => None,
        }
    }
}

/// What is held up for longer than [`PATIENCE`], a line each.
pub(super) fn dead(answers: Answers) -> Vec<String> {
    let lines = [(answers.main, "main: no answer"), (answers.workers, "workers: no answer of any")];
    lines.into_iter().filter(|(answers, _)| !answers).map(|(_, line)| line.into()).collect()
}

/// What keeps one more client from its slot or its place in the queue, a line each.
pub(super) fn unready(phase: Phase, acceptors: &[AcceptorView], taken: &Occupancy, excluded: &[Check]) -> Vec<String> {
    let accepts = acceptors.iter().any(|acceptor| acceptor.state == AcceptorPhase::Accepting);
    let room = taken.served < taken.max_connections || taken.waiting < taken.max_pending;
    let checks = [
        (Check::Phase, phase == Phase::Running, format!("phase: {}", phase.as_str())),
        (Check::Acceptor, accepts, "acceptor: none accepts".into()),
        (Check::Descriptors, !taken.out_of_descriptors, "descriptors: exhausted".into()),
        (Check::Room, room, format!("room: {} served, {} waiting", taken.served, taken.waiting)),
    ];
    let fails = checks.into_iter().filter(|(check, passes, _)| !passes && !excluded.contains(check));
    fails.map(|(.., line)| line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lives_while_the_main_thread_and_a_worker_answer() {
        for (main, workers, fails) in [
            (true, true, &[][..]),
            (false, true, &["main: no answer"]),
            (true, false, &["workers: no answer of any"]),
            (false, false, &["main: no answer", "workers: no answer of any"]),
        ] {
            assert_eq!(dead(Answers { main, workers }), fails);
        }
    }

    #[test]
    fn it_is_ready_while_it_runs_and_accepts_and_has_descriptors_and_room() {
        use AcceptorPhase::{Accepting, GivenUp, Restarting};
        let full = "room: 2 served, 1 waiting";
        for (phase, acceptors, out_of_descriptors, (served, waiting), excluded, fails) in [
            (Phase::Running, &[AcceptorPhase::None, Accepting][..], false, (0, 0), &[][..], &[][..]),
            (Phase::Running, &[Restarting, Accepting], false, (2, 0), &[], &[]),
            (Phase::Running, &[Accepting], false, (1, 1), &[], &[]),
            (Phase::Running, &[Accepting], false, (2, 1), &[], &[full]),
            (Phase::Running, &[Accepting], false, (2, 1), &[Check::Room], &[]),
            (Phase::Running, &[Accepting], true, (2, 1), &[Check::Room], &["descriptors: exhausted"]),
            (Phase::Running, &[Restarting, GivenUp], false, (0, 0), &[Check::Room], &["acceptor: none accepts"]),
            (Phase::Bound, &[Accepting], false, (0, 0), &[], &["phase: bound"]),
            (Phase::LameDuck, &[Accepting], false, (0, 0), &[], &["phase: lame_duck"]),
            (
                Phase::Stopping,
                &[AcceptorPhase::Stopped],
                true,
                (2, 1),
                &[],
                &["phase: stopping", "acceptor: none accepts", "descriptors: exhausted", full],
            ),
            (Phase::Stopped, &[Accepting], false, (0, 0), &[Check::Phase], &[]),
        ] {
            let acceptors: Vec<_> = acceptors.iter().map(|state| AcceptorView { state: *state, restarts: 0 }).collect();
            let taken = Occupancy { served, max_connections: 2, waiting, max_pending: 1, out_of_descriptors };
            assert_eq!(unready(phase, &acceptors, &taken, excluded), fails, "{phase:?} {acceptors:?} {taken:?}");
        }
    }
}
