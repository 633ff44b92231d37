//! TCP connections as supervised actix actors: every one has a supervisor, every stop is acknowledged.
//!
//! You write a [`Service`], the protocol of one connection. The library accepts, caps, queues, supervises and stops. The
//! built-in service is [`Echo`].
//!
//! # Write a service
//!
//! Write what is said as a function over any stream, and call it with the socket:
//!
//! ```
//! use std::io;
//! use supervised_echo::{Service, Socket};
//! use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
//!
//! /// Answers each line in capitals.
//! struct Shout;
//!
//! impl Service for Shout {
//!     async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
//!         shout(socket).await
//!     }
//! }
//!
//! async fn shout(stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
//!     let mut stream = BufReader::new(stream);
//!     let mut line = Vec::new();
//!     // Without a bound one client could take all the memory.
//!     while (&mut stream).take(4096).read_until(b'\n', &mut line).await? > 0 {
//!         stream.write_all(&line.to_ascii_uppercase()).await?;
//!         line.clear();
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # Test it
//!
//! Such a function needs no server and no port. One end of a [`duplex`](tokio::io::duplex) is its stream, the test is the
//! client at the other. The end of the input is what it sees at a stop, so that is tested too:
//!
//! ```
//! # use std::io;
//! # use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
//! # async fn shout(stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
//! #     let mut stream = BufReader::new(stream);
//! #     let mut line = Vec::new();
//! #     while (&mut stream).take(4096).read_until(b'\n', &mut line).await? > 0 {
//! #         stream.write_all(&line.to_ascii_uppercase()).await?;
//! #         line.clear();
//! #     }
//! #     Ok(())
//! # }
//! #[tokio::main(flavor = "current_thread")] // in your tests: #[tokio::test]
//! async fn main() -> io::Result<()> {
//!     let (mut client, server) = tokio::io::duplex(64);
//!     let talk = async {
//!         client.write_all(b"hello\nhalf a").await?;
//!         client.shutdown().await?;
//!         let mut heard = String::new();
//!         client.read_to_string(&mut heard).await?;
//!         io::Result::Ok(heard)
//!     };
//!     let (served, heard) = tokio::join!(shout(server), talk);
//!     served?;
//!     assert_eq!(heard?, "HELLO\nHALF A");
//!     Ok(())
//! }
//! ```
//!
//! A protocol of requests is [notified](AtStop::Notify) of a stop and keeps its input. [`Socket::stopping`] shows how such a
//! service is written and tested.
//!
//! # Stop it
//!
//! A [`Handle`] stops the server from any thread, and [`Signals`] are forwarded to one. This server answers SIGTERM and Ctrl-C
//! gracefully:
//!
//! ```no_run
//! use supervised_echo::{Echo, Error, Server, Settings, Signals};
//!
//! #[actix::main]
//! async fn main() -> Result<std::process::ExitCode, Error> {
//!     let signals = Signals::register()?;
//!     let server = Server::bind(Settings::default(), Echo)?;
//!     signals.forward_to(server.handle());
//!     let report = server.run().await?;
//!     println!("{} acknowledged, {} forced", report.acknowledged, report.forced);
//!     Ok(report.exit_code().into())
//! }
//! ```
//!
//! Every connection drains, each for as long as `shutdown_timeout` allows; [`Service`] says what that means for a protocol.
//! [`Handle::abort`] does not wait: what is still open is reset. [`Handle::status`] tells where the server stands, from any
//! thread, also if a service holds up its own:
//!
//! ```
//! use supervised_echo::{Echo, Phase, Server, Settings};
//!
//! # let mut settings = Settings::default();
//! # settings.listen.address = ([127, 0, 0, 1], 0).into();
//! # actix::System::new().block_on(async {
//! let server = Server::bind(settings, Echo)?;
//! let handle = server.handle();
//! assert_eq!(handle.status().phase, Phase::Bound); // its clients wait in the backlog
//! handle.abort(); // usually from elsewhere, later
//! let report = server.run().await?;
//! assert_eq!(report.exit_code(), 0); // there was no client to be forced
//! let status = handle.status();
//! assert_eq!((status.phase, status.served, status.waiting), (Phase::Stopped, 0, 0));
//! # Ok::<(), supervised_echo::Error>(())
//! # })?;
//! # Ok::<(), supervised_echo::Error>(())
//! ```
//!
//! # Settings
//!
//! In code, settings are fields that are set on [`Settings::default()`](Settings#impl-Default-for-Settings). New fields may
//! come with any version. [`settings::layers`] reads them from files, variables and flags for a program.
//!
//! ```
//! use std::time::Duration;
//! use supervised_echo::{Echo, Server, Settings};
//!
//! let mut settings = Settings::default();
//! settings.listen.address = ([127, 0, 0, 1], 0).into(); // a free port
//! settings.supervisor.max_connections = 16;
//! settings.supervisor.shutdown_timeout = Duration::from_secs(30);
//! # actix::System::new().block_on(async {
//! let server = Server::bind(settings, Echo)?;
//! assert_ne!(server.address().port(), 0);
//! # Ok::<(), supervised_echo::Error>(())
//! # })?;
//! # Ok::<(), supervised_echo::Error>(())
//! ```
//!
//! # Features
//!
//! All are on by default. Without them (`default-features = false`) a library user compiles less than half as many crates.
//! Such a program also names `actix` in its `Cargo.toml` (feature `macros`, for `#[actix::main]`) and `tokio` (`io-util` to
//! read and write, `macros` for `select!`; for its tests `rt`).
//!
//! * `admin`: the [`Admin`], which shows a server over HTTP: the live page, health, metrics, events.
//! * `cli`, for programs: [`settings::layers`], [`logging`], and what the two binaries need. With it slog logs every level
//!   in release builds too. Without it the features of slog that you choose decide that.
//! * `client`: the verifying [`Client`] and the [`healthcheck`].
//!
//! # The tree
//!
//! ```text
//! main thread
//! └── Supervisor                 root: owns the listening socket and the gate, broadcasts Stop, reports
//!     ├── Worker 1               one per thread: supervises what runs on it
//!     │   ├── Acceptor           accepts from the one shared listening socket (on Workers 1 and 2)
//!     │   ├── ConnectionActor    one per client
//!     │   └── ConnectionActor …
//!     └── Worker N
//! Admin                          on a thread of its own: shows what the tree does
//! ```
//!
//! # Layout
//!
//! Folders are layers, and their arrows go one way (`tests/layers.rs` keeps them):
//!
//! * [`decisions`]: what the server decides, as pure state machines. Outside semver: public for the model checker alone.
//! * `server`: the actors that carry the decisions out, the data plane, and what a protocol is.
//! * `admin`: the HTTP side of a server, which reads what the server lets be seen, and nothing else.
//! * `client`: the verifying client, with the same messages and roster.
//! * [`settings`]: the settings of both, and how their layers are put together. [`logging`]: how both log.
//! * [`resources`]: what a program must have of the system before it starts.
//! * `stop`: the messages of a stop, and the handle that orders one. `signals` turns the system's signals into them.
//! * `bin`: the two programs.
// A library returns its errors, logs what it does, and leaves the end of the process to the program. An exit here would
// lose the log records that are not written yet.
#![warn(clippy::exit, clippy::print_stderr, clippy::print_stdout, clippy::unwrap_used)]

#[cfg(feature = "admin")]
mod admin;
mod buffer;
#[cfg(feature = "client")]
mod client;
mod context;
pub mod decisions;
mod error;
pub mod logging;
pub mod resources;
mod server;
pub mod settings;
mod signals;
mod stop;
#[cfg(test)]
mod testing;
#[cfg(any(feature = "cli", feature = "client"))]
mod text;

#[cfg(feature = "admin")]
pub use admin::{Admin, InForce};
#[cfg(feature = "client")]
pub use client::{
    Client, Progress, healthcheck,
    report::{self, ClientReport},
};
pub use decisions::{
    connection::{CloseReason, Ending},
    ids::WorkerId,
    stop::StopReason,
};
pub use error::Error;
pub use server::watch::tree::Phase;
pub use server::{
    Server,
    connection::{
        halves::{OwnedReadHalf, OwnedWriteHalf},
        socket::Socket,
    },
    echo::Echo,
    fault::FaultyEcho,
    handle::{Handle, Status},
    report::{Report, TotalBytes},
    service::{AtStop, Service},
};
pub use settings::Settings;
pub use signals::Signals;
/// The log's crate, in the version that this library takes: for [`Server::with_log`] and [`Socket::log`].
pub use slog;
pub use stop::StopHandle;

/// What a [`Server`] lets be seen while it runs; it begins with [`Server::watch`].
pub mod watch {
    pub use crate::server::watch::{
        Watch,
        counters::{Counts, WAIT_BOUNDS},
        news::{Event, Events},
        tree::*,
    };
}

/// Every message between the actors.
pub mod messages {
    pub use crate::{decisions::stop::Stop, server::messages::*, stop::*};
}

/// The examples in the README are compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
