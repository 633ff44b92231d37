//! The echo server's command line. Flags become the topmost layer of the settings; an error becomes one line and an exit
//! code.
//!
//! Relies on `shared` for the settings, the log and the exit code.
use std::{env, net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc};

use clap::{Parser, Subcommand};
use sd_notify::NotifyState;
use supervised_echo::{
    Admin, FaultyEcho, InForce, Phase, Server, Settings, Signals, healthcheck, logging, resources,
    settings::layers::{self, Flag, Loaded, SettingsError},
    watch::Watch,
};

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
    /// Address and port for the live page, health and metrics; none if it is not given
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
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
        /// Ask the admin's /livez instead of an echo: a server that is merely full is alive
        #[arg(long)]
        live: bool,
    },
}

impl shared::CommandLine for Args {
    type Settings = Settings;

    fn flags(&mut self) -> Vec<Flag> {
        let own = [
            ("--listen", "listen.address", self.listen.take()),
            ("--max-connections", "supervisor.max_connections", self.max_connections.take()),
            ("--admin", "admin.address", self.admin.take()),
        ];
        own.into_iter().chain(self.shared.flags()).collect()
    }
}

fn main() -> ExitCode {
    shared::run("echo-server", run)
}

fn run(args: Args, flags: Vec<Flag>) -> Result<u8, ProgramError> {
    let again = flags.clone();
    let settings = || args.shared.settings::<Settings>("echo-server", args.settings.as_deref(), flags);
    if args.shared.only_asks() {
        return settings().map(|_| 0);
    }
    match args.command {
        Some(Command::Healthcheck { addr, live }) => {
            let Settings { listen, admin, .. } = settings()?.settings;
            let configured = if live { admin.address } else { Some(listen.address) };
            let no_admin =
                || SettingsError::new("admin.address", "not set, so no one can say whether the server is alive");
            let address = addr.or(configured).ok_or_else(no_admin)?;
            let system = resources::system()?;
            let checked = if live {
                system.block_on(healthcheck::live(address))
            } else {
                system.block_on(healthcheck::check(address, listen.proxy_protocol))
            };
            let what = format!("healthcheck of {address}");
            checked.map(|()| 0).map_err(|source| ProgramError::Io { what, source })
        }
        None => {
            let named = env::var_os("ECHO_SERVER_SETTINGS").is_some_and(|file| !file.is_empty());
            let file = args.settings.clone();
            let reload = move || layers::load::<Settings>(file.as_deref(), env::vars_os(), again.clone());
            // Without a file a SIGHUP stops the server, as the end of its terminal should.
            serve(settings, (named || args.settings.is_some()).then_some(reload))
        }
    }
}

fn serve(
    settings: impl FnOnce() -> Result<Loaded<Settings>, ProgramError>,
    reload: Option<impl Fn() -> Result<Loaded<Settings>, SettingsError> + Send + Sync + 'static>,
) -> Result<u8, ProgramError> {
    // The signals come before anything that may take time: process 1 of a container loses those that come before it
    // registers.
    let system = resources::system()?;
    let mut signals = system.block_on(async { Signals::register() })?;
    let loaded = settings()?;
    let in_force = InForce::default();
    in_force.set(&loaded, &[]);
    let settings = loaded.settings;
    let (log, written_to_the_end) = logging::logger(&settings.log, logging::Stream::Stdout)?;
    system.block_on(async {
        let (admin, began) = (settings.admin.clone(), settings.clone());
        let echo = Arc::new(FaultyEcho::new(&settings.fault, log.clone()));
        let server = Server::bind(settings, echo.clone())?.with_log(log.clone());
        let admin = Admin::bind(&admin, server.watch())?.with_log(log.clone()).with_settings(in_force.clone());
        if let Some(reload) = reload {
            let (handle, threshold) = (server.handle(), written_to_the_end.threshold());
            let read = Arc::new(move || {
                tell_manager(&[NotifyState::Reloading, monotonic_now()]);
                // The server takes the settings over in the turn in which it calls this, and this task runs after that turn.
                actix::spawn(async { tell_manager(&[NotifyState::Ready]) });
                let read = reload();
                match &read {
                    Ok(loaded) => {
                        threshold.set(loaded.settings.log.level);
                        in_force.set(loaded, &began.restart_needed(&loaded.settings));
                        echo.set(&loaded.settings.fault);
                    }
                    Err(_) => in_force.refused(),
                }
                read.map(|loaded| loaded.settings)
            });
            // The server reads them when it is its turn: during a stop nothing of all this changes.
            signals = signals.with_reload(move || {
                let read = read.clone();
                handle.reload_with(move || read());
            });
        }
        signals.with_log(log).forward_to(server.handle());
        actix::spawn(tell_manager_of_phases(server.watch()));
        Ok(admin.during(server.run()).await?.exit_code())
    })
}

/// Tells the service manager, such as systemd, where the server stands. Without one it does nothing.
async fn tell_manager_of_phases(watch: Watch) {
    watch.reached(Phase::Running).await;
    tell_manager(&[NotifyState::Ready, NotifyState::Status("serving")]);
    watch.reached(Phase::LameDuck).await;
    if watch.phase() == Phase::LameDuck {
        tell_manager(&[NotifyState::Status("lame duck: not ready, still serving")]);
    }
    watch.reached(Phase::Stopping).await;
    let open = watch.stopping().map_or(0, |stopping| stopping.owed);
    tell_manager(&[NotifyState::Stopping, NotifyState::Status(&format!("stopping, connections to drain: {open}"))]);
}

fn tell_manager(state: &[NotifyState<'_>]) {
    // A manager that does not listen is no reason to serve no one.
    let _ = sd_notify::notify(state);
}

fn monotonic_now() -> NotifyState<'static> {
    NotifyState::monotonic_usec_now().unwrap_or(NotifyState::MonotonicUsec(0))
}
