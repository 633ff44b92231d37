//! The echo server's command line: flags become the topmost layer of the settings, errors one line and an exit code.
use std::{env, io, io::Write as _, net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use supervised_echo::{Echo, Error, Server, Settings, Signals, healthcheck, layers, logging};

/// A TCP echo server that acknowledges every stop.
///
/// Settings come from the built-in defaults, the file, variables such as ECHO_SERVER_LISTEN__ADDRESS, and flags; later
/// ones win. Exit codes: 0 stopped, 1 could not serve, 2 usage, 3 connections were forced to end, 78 settings.
#[derive(Parser)]
#[command(version, propagate_version = true)]
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
    /// critical, error, warn, info, debug or trace
    #[arg(long, value_name = "L")]
    log_level: Option<String>,
    /// auto, compact or json
    #[arg(long, value_name = "F")]
    log_format: Option<String>,
    /// Check the settings, say nothing if all is well, and exit
    #[arg(long)]
    check_settings: bool,
    /// Print the settings as TOML, each with where it comes from, and exit
    #[arg(long)]
    print_settings: bool,
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

fn main() -> ExitCode {
    let code = run(Args::parse()).unwrap_or_else(|error| {
        // If nobody reads the reason, the exit code still tells it.
        let _ = writeln!(io::stderr(), "echo-server: {error}");
        error.exit_code()
    });
    code.into()
}

fn run(args: Args) -> Result<u8, Error> {
    let flags = [
        ("--listen", "listen.address", args.listen),
        ("--max-connections", "supervisor.max_connections", args.max_connections),
        ("--log-level", "log.level", args.log_level),
        ("--log-format", "log.format", args.log_format),
    ];
    let loaded = layers::load::<Settings>(args.settings.as_deref(), env::vars_os(), flags)?;
    match args.command {
        _ if args.print_settings => {
            let _ = write!(io::stdout(), "{loaded}");
            Ok(0)
        }
        _ if args.check_settings => Ok(0),
        Some(Command::Healthcheck { addr }) => {
            let address = addr.unwrap_or(loaded.settings.listen.address);
            healthcheck::check(address).map(|()| 0).map_err(|source| Error::Healthcheck { address, source })
        }
        None => serve(loaded.settings),
    }
}

fn serve(settings: Settings) -> Result<u8, Error> {
    let (log, _written_to_the_end) = logging::logger(&settings.log, logging::Stream::Stdout);
    actix::System::new().block_on(async {
        let signals = Signals::register()?; // before the bind: no signal finds a server half started
        let server = Server::bind(settings, Echo)?.with_log(log);
        signals.forward_to(server.handle());
        Ok(server.run().await?.exit_code())
    })
}
