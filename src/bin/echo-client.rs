//! The echo client's command line. Flags become the topmost layer of the settings, and the report goes to standard output.
//! The subcommand `merge` makes one report out of many.
//!
//! Relies on `shared` for the settings, the log and the exit code, and on the library for all that a report can be.
use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use supervised_echo::{
    Client, ClientReport, Signals,
    logging::{StatusLine, Stream, logger_above},
    report::{self, SaveTo},
    resources,
    settings::{
        ClientSettings, Limits, ReportFormat,
        layers::{Flag, Loaded, SettingsError, load},
    },
};

mod shared;
use shared::ProgramError;

/// A TCP echo client that verifies every byte.
///
/// Settings come from the built-in defaults, the file, variables such as ECHO_CLIENT_SERVER__ADDRESS, and flags; later
/// ones win. Exit codes: 0 every echo verified, 1 one was wrong or lost, or the server out of reach, 2 usage, 3 stopped
/// by a second signal, 4 every echo verified but a limit of --fail-if broken, 78 settings.
#[derive(Parser, Default)]
#[command(name = "echo-client", version, args_conflicts_with_subcommands = true)]
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
    /// Messages a second over all connections, on time, also when the server is slow; 500/s,1000/s: steps; 0/s: each connection at
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
    /// How long to keep trying to connect; with a rate that has an end, until then
    #[arg(long, value_name = "D")]
    connect_timeout: Option<String>,
    #[command(flatten)]
    reports: ReportArgs,
    #[command(flatten)]
    shared: shared::SharedArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What both forms do with a report.
#[derive(clap::Args, Default)]
struct ReportArgs {
    /// What must not be so at the end, such as "p99 > 5ms, outage > 1s, lost > 0.1%, rate < 900/s"
    #[arg(long, value_name = "LIMITS")]
    fail_if: Option<String>,
    /// What the report on standard output looks like: lines for people, with bars, one line of JSON, or a page
    #[arg(long, value_name = "F", value_parser = ["table", "chart", "json", "html"])]
    report: Option<String>,
    /// Save the report too, in the shape that the name ends with: .json, .html or .hlog; may be given again
    #[arg(long, value_name = "FILE")]
    save: Vec<SaveTo>,
    /// An earlier report: it is shown beside this one, and limits such as p99 > 1.2x are multiples of what it had
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Make one report, and one verdict, out of the reports of many clients
    ///
    /// Counts and histograms add, and limits hold over the sum. Logs of servers in JSON close the books: what servers
    /// echoed is what clients verified. Other lines are skipped, so the logs of containers will do; a file with neither a
    /// report nor a server's log is noted. Exit codes are those of a single client; fewer reports than expected and open
    /// books are exit code 1.
    Merge {
        /// Files, folders of files, or - for standard input
        #[arg(value_name = "FILE", required = true)]
        from: Vec<PathBuf>,
        /// How many clients there should be
        #[arg(long, value_name = "N", default_value_t = 0)]
        expect: u64,
        #[command(flatten)]
        reports: ReportArgs,
    },
}

impl shared::CommandLine for Args {
    type Settings = ClientSettings;

    fn flags(&mut self) -> Vec<Flag> {
        let duration = self.duration.take();
        // A length alone says that there is no end by count. A count is read after it.
        let endless = duration.as_deref().filter(|duration| *duration != "0s").map(|_| "0".to_owned());
        let own = [
            ("--server", "server.address", self.server.take()),
            ("--id", "client.id", self.id.take()),
            ("--connections", "traffic.connections", self.connections.take()),
            ("--duration", "traffic.duration", duration),
            ("--duration", "traffic.messages", endless),
            ("--messages", "traffic.messages", self.messages.take()),
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
        own.into_iter().chain(self.reports.flags()).chain(self.shared.flags()).collect()
    }
}

fn main() -> ExitCode {
    shared::run("echo-client", run)
}

fn run(args: Args, flags: Vec<Flag>) -> Result<u8, ProgramError> {
    if let Some(Command::Merge { from, expect, mut reports }) = args.command {
        let flags = reports.flags();
        return merge(&from, expect, flags, &reports);
    }
    let settings = || args.shared.settings::<ClientSettings>("echo-client", args.settings.as_deref(), flags);
    if args.shared.only_asks() {
        return settings().map(|_| 0);
    }
    let mut format = ReportFormat::Table;
    let report = send(|| {
        let loaded = settings()?;
        format = loaded.settings.report.format;
        let baseline = args.reports.baseline(&loaded.settings.verdict.fail_if)?;
        Ok((loaded, baseline))
    })?;
    finish(&report, format, &args.reports)
}

fn merge(from: &[PathBuf], expect: u64, flags: [Flag; 2], reports: &ReportArgs) -> Result<u8, ProgramError> {
    // The flags are read as those of a run are. No file and no variable has a say: limits of a client are not those of all.
    let settings = load::<ClientSettings>(None, [], flags)?.settings;
    let limits = settings.verdict.fail_if;
    let baseline = reports.baseline(&limits)?;
    let found = report::read(from)?;
    let mut merged =
        report::merge(found.reports, expect).with_servers(found.servers).judged(&limits, baseline.as_ref());
    merged.notes.extend(found.notes);
    finish(&merged, settings.report.format, reports)
}

impl ReportArgs {
    /// Those of its flags that are settings.
    fn flags(&mut self) -> [Flag; 2] {
        [("--fail-if", "verdict.fail_if", self.fail_if.take()), ("--report", "report.format", self.report.take())]
    }

    /// The one report in the file of the baseline.
    fn baseline(&self, limits: &Limits) -> Result<Option<ClientReport>, ProgramError> {
        let Some(path) = &self.baseline else {
            let lacks = limits.need_baseline();
            let problem = || format!("{limits}: a multiple needs --baseline");
            return if lacks { Err(SettingsError::new("verdict.fail_if", problem()).into()) } else { Ok(None) };
        };
        match <[_; 1]>::try_from(report::read(&[path])?.reports) {
            Ok([baseline]) => Ok(Some(baseline)),
            Err(found) => {
                let source = io::Error::other(format!("expected one report, found {}", found.len()));
                Err(ProgramError::Io { what: path.display().to_string(), source })
            }
        }
    }
}

/// Saves a report wherever it can be saved, and shows it. The exit code follows from it.
fn finish(report: &ClientReport, format: ReportFormat, reports: &ReportArgs) -> Result<u8, ProgramError> {
    let mut saved = Ok(());
    for save in &reports.save {
        let what = || format!("cannot save {}", save.path().display());
        saved = saved.and(save.save(report).map_err(|source| ProgramError::Io { what: what(), source }));
    }
    shared::print(&match format {
        ReportFormat::Json => report.to_json() + "\n",
        ReportFormat::Html => report.to_html(),
        ReportFormat::Chart => report.to_chart(),
        _ => report.to_string(),
    })?;
    if let Some(problem) = report.problem() {
        shared::complain("echo-client", &problem);
    }
    saved.map(|()| report.exit_code())
}

/// Runs a client with the settings, and the baseline that its limits are held against.
fn send(
    settings: impl FnOnce() -> Result<(Loaded<ClientSettings>, Option<ClientReport>), ProgramError>,
) -> Result<ClientReport, ProgramError> {
    // The signals come before anything that may take time: process 1 of a container loses those that come before it
    // registers.
    let system = resources::system()?;
    let signals = system.block_on(async { Signals::register() })?;
    let (loaded, baseline) = settings()?;
    let in_force = loaded.values();
    let settings = loaded.settings;
    let line = StatusLine::default();
    let (log, _written_to_the_end) = logger_above(&settings.log, Stream::Stderr, &line)?;
    let report = system.block_on(async {
        let client = Client::new(settings).with_log(log.clone());
        let client = baseline.into_iter().fold(client, Client::with_baseline);
        let progress = line.clone();
        let client = if io::stderr().is_terminal() {
            client.with_progress(move |told| progress.show(&told.to_string()))
        } else {
            client
        };
        signals.with_log(log).forward_to(client.handle());
        let report = client.run().await;
        line.show("");
        report
    })?;
    Ok(report.with_settings(in_force))
}
