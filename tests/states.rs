//! "A slot always comes back", as a table: every state of a client, every state of its connection, every way for the client
//! to go, and every event after that. The cells are generated. How each of them must end follows from the rules.
//!
//! `CELL="Draining"` plays only the cells whose name contains this word. Another test stops servers at random moments among clients
//! of all kinds, and accounts for every byte. `STOPS=300` makes that many stops, and `SEED=7` begins with this seed.

#[path = "states/cell.rs"]
mod cell;
#[path = "states/house.rs"]
mod house;
#[path = "states/kernel.rs"]
mod kernel;
#[path = "states/mixed.rs"]
mod mixed;
#[path = "states/play.rs"]
mod play;

use cell::{Cell, LAST_WORD, Place};
use play::{Failed, play};
use std::{
    any::Any,
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Instant, SystemTime},
};

/// How often a cell is tried among so many others. A try proves nothing if the state was over before the cell got to it.
const ATTEMPTS: usize = 10;

fn panicked(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// Plays a cell until it has proved something.
fn prove(cell: &Cell) -> Result<(), Failed> {
    let mut proved = Ok(());
    for _ in 0..ATTEMPTS {
        let played = catch_unwind(AssertUnwindSafe(|| play(cell)));
        proved = played.unwrap_or_else(|panic| Err(Failed::Wrong(format!("panicked: {}", panicked(&*panic)))));
        if !matches!(proved, Err(Failed::TooLate(_))) {
            break;
        }
    }
    proved
}

/// Plays the cells, `at_once` of them at a time. Those that are too late among so many are played again among fewer.
fn prove_all(which: &str, cells: Vec<Cell>, at_once: usize) {
    let (begin, all) = (Instant::now(), cells.len());
    let wrong = Mutex::new(Vec::new());
    let say = |cell: &Cell, what: &str| wrong.lock().unwrap().push(format!("{cell}\n    {what}"));
    let (mut cells, mut at_once) = (cells, at_once);
    while !cells.is_empty() {
        let (next, late) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(|| {
                    while let Some(cell) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                        match prove(cell) {
                            Ok(()) => {}
                            Err(Failed::Wrong(what)) => say(cell, &what),
                            Err(Failed::TooLate(_)) if at_once > 1 => late.lock().unwrap().push(*cell),
                            Err(Failed::TooLate(why)) => say(cell, &format!("this machine is too slow for it: {why}")),
                        }
                    }
                });
            }
        });
        (cells, at_once) = (late.into_inner().unwrap(), (at_once / 8).max(1));
    }
    let mut wrong = wrong.into_inner().unwrap();
    wrong.sort_unstable();
    let impossible = Cell::all().filter(|cell| cell.possible().is_err()).count();
    let told = format!(
        "{which}: {all} cells, {impossible} others are impossible, {} wrong, {:.1} s",
        wrong.len(),
        begin.elapsed().as_secs_f64()
    );
    println!("{told}");
    assert!(wrong.is_empty(), "{told}\n{}", wrong.join("\n"));
}

fn cells() -> Vec<Cell> {
    let only = env::var("CELL").unwrap_or_default();
    Cell::all().filter(|cell| cell.possible().is_ok() && cell.to_string().contains(&only)).collect()
}

#[test]
fn a_slot_comes_back_from_every_client_in_every_state() {
    let cells: Vec<_> = cells().into_iter().filter(|cell| !cell.is_long()).collect();
    // A stop may wait for last words in every one of them.
    let stopped = cells.iter().filter(|cell| cell.is_stopped() && cell.place != Place::LastWord);
    let waiting: Vec<_> = stopped.map(|cell| Cell { last_word: LAST_WORD, ..*cell }).collect();
    prove_all("the table", [cells, waiting].concat(), 128);
}

#[test]
fn a_client_that_vanishes_while_it_is_owed_bytes_is_given_up_and_a_paused_reader_is_not() {
    let cells: Vec<_> = cells().into_iter().filter(Cell::is_long).collect();
    let all = cells.len();
    prove_all("the long cells", cells, all);
}

#[test]
fn at_a_stop_among_clients_of_all_kinds_every_byte_is_accounted_for() {
    let number = |name| env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    let stops = number("STOPS").unwrap_or(20);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64;
    let first = number("SEED").unwrap_or(now);
    let (begin, next) = (Instant::now(), AtomicU64::new(first));
    let (wrong, all) = (Mutex::new(Vec::new()), Mutex::new(mixed::Books::default()));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + stops {
                        return;
                    }
                    match catch_unwind(|| mixed::stop(seed)) {
                        Ok(Ok(books)) => all.lock().unwrap().add(&books),
                        Ok(Err(what)) => wrong.lock().unwrap().push(format!("SEED={seed}: {what}")),
                        Err(panic) => wrong.lock().unwrap().push(format!("SEED={seed}: {}", panicked(&*panic))),
                    }
                }
            });
        }
    });
    let (wrong, all) = (wrong.into_inner().unwrap(), all.into_inner().unwrap());
    let took = begin.elapsed().as_secs_f64();
    println!("{stops} stops from SEED={first}: {} wrong, {took:.1} s; {all:?}", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
