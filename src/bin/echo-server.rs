//! The echo server's command line. Flags become the topmost layer of the settings; an error becomes one line and an exit
//! code.
//!
//! Relies on `shared` for the settings, the log and the exit code.
use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use supervised_echo::{Echo, Server, Settings, Signals, healthcheck, logging, resources, settings::layers::Flag};

mod shared;
use shared::ProgramError;

/// A TCP echo server that acknowledges every stop.
///
/// Settings come from the built-in defaults, the file, variables such as ECHO_SERVER_LISTEN__ADDRESS, and flags; later
/// ones win. Exit codes: 0 stopped, 1 could not serve, 2 usage, 3 connections were forced to end or a worker was stuck,
/// 78 settings.
#[derive(Parser, Default)]
#[command(name = "echo-server", version, propagate_version = true)]
struct Args {
    /// The settings, a TOML file [env: ECHO_SERVER_SETTINGS]
    #[arg(long, value_name = "FILE", global = true)]
    settings: Option<PathBuf>,
    /// Address and port to listen on
    #[arg(long, value_name = "ADDR", global = true)]
    listen: Option<String>,
    /// Connections that are served at once
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_connections: Option<String>,
    #[command(flatten)]
    shared: shared::SharedArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Make one echo round trip: exit code 0 if it comes back within 2 s, else 1, also if every slot is taken
    Healthcheck {
        /// A literal address and port instead of the configured one
        addr: Option<SocketAddr>,
    },
}

impl shared::CommandLine for Args {
    type Settings = Settings;

    fn flags(&mut self) -> Vec<Flag> {
        let own = [
            ("--listen", "listen.address", self.listen.take()),
            ("--max-connections", "supervisor.max_connections", self.max_connections.take()),
        ];
        own.into_iter().chain(self.shared.flags()).collect()
    }
}

fn main() -> ExitCode {
    shared::run("echo-server", run)
}

fn run(args: Args, flags: Vec<Flag>) -> Result<u8, ProgramError> {
    let settings = || args.shared.settings::<Settings>("echo-server", args.settings.as_deref(), flags);
    if args.shared.only_asks() {
        return settings().map(|_| 0);
    }
    match args.command {
        Some(Command::Healthcheck { addr }) => {
            let configured = settings()?.listen.address;
            let address = addr.unwrap_or(configured);
            let checked = resources::system()?.block_on(healthcheck::check(address));
            let what = format!("healthcheck of {address}");
            checked.map(|()| 0).map_err(|source| ProgramError::Io { what, source })
        }
        None => serve(settings),
    }
}

fn serve(settings: impl FnOnce() -> Result<Settings, ProgramError>) -> Result<u8, ProgramError> {
    // The signals come before anything that may take time: process 1 of a container loses those that come before it
    // registers.
    let system = resources::system()?;
    let signals = system.block_on(async { Signals::register() })?;
    let settings = settings()?;
    let (log, _written_to_the_end) = logging::logger(&settings.log, logging::Stream::Stdout)?;
    system.block_on(async {
        let server = Server::bind(settings, Echo)?.with_log(log.clone());
        signals.with_log(log).forward_to(server.handle());
        Ok(server.run().await?.exit_code())
    })
}
