//! The echo client's command line. Flags become the topmost layer of the settings, and the report goes to standard output.
//!
//! Relies on `shared` for the settings, the log and the exit code.
use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use supervised_echo::{
    Client, ClientReport, Signals, logging, resources,
    settings::{ClientSettings, layers::Flag},
};

mod shared;
use shared::ProgramError;

/// A TCP echo client that verifies every byte.
///
/// Settings come from the built-in defaults, the file, variables such as ECHO_CLIENT_SERVER__ADDRESS, and flags; later
/// ones win. Exit codes: 0 every echo verified, 1 one was wrong or lost, or the server out of reach, 2 usage, 3 stopped
/// by a second signal, 78 settings.
#[derive(Parser, Default)]
#[command(name = "echo-client", version)]
struct Args {
    /// The settings, a TOML file [env: ECHO_CLIENT_SETTINGS]
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// The server, host:port
    #[arg(long, value_name = "ADDR")]
    server: Option<String>,
    /// What the client calls itself; empty: the host name
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    id: Option<String>,
    /// Connections at the same time
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    connections: Option<String>,
    /// Messages per connection; 0: no end
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    messages: Option<String>,
    /// How long each connection sends, such as 10s, unless all messages are sent before; 0s: no end
    #[arg(long, value_name = "D")]
    duration: Option<String>,
    /// The pause between two messages of one connection
    #[arg(long, value_name = "D")]
    period: Option<String>,
    /// Make a new connection for every message
    #[arg(long)]
    reconnect: bool,
    /// What is sent; id and n, each in braces, are filled in
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    message: Option<String>,
    /// How long one echo may take
    #[arg(long, value_name = "D")]
    timeout: Option<String>,
    /// Messages a second over all connections, on time whatever the server does; 500/s,1000/s: steps; 0/s: each connection at
    /// its own pace
    #[arg(long, value_name = "RATE")]
    rate: Option<String>,
    /// Messages of one connection that may be out at once
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pipeline: Option<String>,
    /// Verify and count for so long before times are taken
    #[arg(long, value_name = "D")]
    warmup: Option<String>,
    /// Binary messages of so many bytes; 0: the text
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    size: Option<String>,
    /// The age at which a connection is replaced, between two messages; 0s: never
    #[arg(long, value_name = "D")]
    renew: Option<String>,
    /// How often a message is sent again whose connection was closed before a byte of its echo came
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    resend: Option<String>,
    /// How long to keep trying to connect
    #[arg(long, value_name = "D")]
    connect_timeout: Option<String>,
    /// What the report on standard output looks like: lines for people, or one JSON object
    #[arg(long, value_name = "F", value_parser = ["table", "json"], default_value = "table")]
    report: String,
    #[command(flatten)]
    shared: shared::SharedArgs,
}

impl shared::CommandLine for Args {
    type Settings = ClientSettings;

    fn flags(&mut self) -> Vec<Flag> {
        let own = [
            ("--server", "server.address", self.server.take()),
            ("--id", "client.id", self.id.take()),
            ("--connections", "traffic.connections", self.connections.take()),
            ("--messages", "traffic.messages", self.messages.take()),
            ("--duration", "traffic.duration", self.duration.take()),
            ("--period", "traffic.period", self.period.take()),
            ("--reconnect", "traffic.reconnect", self.reconnect.then(|| "true".into())),
            ("--message", "traffic.message", self.message.take()),
            ("--timeout", "traffic.timeout", self.timeout.take()),
            ("--rate", "traffic.rate", self.rate.take()),
            ("--pipeline", "traffic.pipeline", self.pipeline.take()),
            ("--warmup", "traffic.warmup", self.warmup.take()),
            ("--size", "traffic.size", self.size.take()),
            ("--renew", "traffic.renew", self.renew.take()),
            ("--resend", "traffic.resend", self.resend.take()),
            ("--connect-timeout", "server.connect_timeout", self.connect_timeout.take()),
        ];
        own.into_iter().chain(self.shared.flags()).collect()
    }
}

fn main() -> ExitCode {
    shared::run("echo-client", run)
}

fn run(args: Args, flags: Vec<Flag>) -> Result<u8, ProgramError> {
    let settings = || args.shared.settings::<ClientSettings>("echo-client", args.settings.as_deref(), flags);
    if args.shared.only_asks() {
        return settings().map(|_| 0);
    }
    let report = send(|| settings().map(|loaded| loaded.settings))?;
    match args.report.as_str() {
        "json" => shared::print(&format_args!("{}\n", report.to_json())),
        _ => shared::print(&report),
    }?;
    if let Some(problem) = report.problem() {
        shared::complain("echo-client", &problem);
    }
    Ok(report.exit_code())
}

fn send(settings: impl FnOnce() -> Result<ClientSettings, ProgramError>) -> Result<ClientReport, ProgramError> {
    // The signals come before anything that may take time: process 1 of a container loses those that come before it
    // registers.
    let system = resources::system()?;
    let signals = system.block_on(async { Signals::register() })?;
    let settings = settings()?;
    let (log, _written_to_the_end) = logging::logger(&settings.log, logging::Stream::Stderr)?;
    system.block_on(async {
        let client = Client::new(settings).with_log(log.clone());
        signals.with_log(log).forward_to(client.handle());
        Ok(client.run().await?)
    })
}
