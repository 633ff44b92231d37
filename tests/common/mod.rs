//! The one harness of the integration tests: the built programs as processes, a server in this process, clients and servers that a
//! test drives itself, and the logs of all of them.
//!
//! Nothing here waits for a time. Every wait for an event gives up after `PATIENCE`, which turns a hang into a failure
//! and is asserted nowhere.
#![allow(dead_code, unused_imports, unused_macros, reason = "each test file is a crate of its own and uses its part")]

mod blocking;
mod client;
mod http;
mod in_process;
mod kernel;
mod lines;
mod log;
mod pattern;
mod peer;
mod place;
mod process;
mod records;
mod schema;
mod scripted;
mod server;
mod tls;
mod trial;

pub use blocking::*;
pub use client::*;
pub use http::*;
pub use in_process::*;
pub use kernel::{receive_queue, wait_until_arrived};
pub use lines::*;
pub use log::*;
pub use pattern::*;
pub use peer::*;
pub use place::*;
pub use process::*;
pub use records::*;
pub use rustix::process::Signal;
pub use schema::*;
pub use scripted::*;
pub use server::*;
pub use tls::*;
pub use trial::*;

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

/// The longest that any wait lasts.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until it is so. This is for what has no event.
pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not so: {what}");
        thread::yield_now();
    }
}

/// Port 0 of a loopback address that no other server of this run has. On a shared address a client could get the two ports of an
/// earlier connection in TIME_WAIT. Its connect would then take a second longer.
pub fn free_address() -> SocketAddr {
    // Some tests hold a thousand clients, and the usual soft limit is 1024 descriptors.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    ([127, (1 + process / 256 % 254) as u8, (process % 256) as u8, (1 + count % 254) as u8], 0).into()
}
