//! What the command lines of both programs have in common: where settings come from, and how a program ends.
use std::{
    env,
    fmt::Display,
    io::{self, ErrorKind, Write as _},
    path::Path,
    process::ExitCode,
};

use clap::{Args, Parser};
use supervised_echo::{
    Error, resources,
    settings::layers::{self, Flag, Layered},
};

/// The flags of both programs, next to `--settings`, whose help names the variable.
#[derive(Args)]
pub struct SharedArgs {
    /// critical, error, warn, info, debug or trace
    #[arg(long, value_name = "L")]
    log_level: Option<String>,
    /// auto, compact or json
    #[arg(long, value_name = "F")]
    log_format: Option<String>,
    /// Check the settings, say nothing if all is well, warn of what is hardly meant, and exit
    #[arg(long)]
    check_settings: bool,
    /// Print the settings as TOML, each with where it comes from, and exit
    #[arg(long)]
    print_settings: bool,
}

impl SharedArgs {
    /// Whether the settings are only to be printed or checked. Then a signal may end the program at once.
    pub fn only_asks(&self) -> bool {
        self.print_settings || self.check_settings
    }

    /// The settings from all their layers, with the program's own `flags`; printed, if that was asked for.
    pub fn settings<S: Layered, const N: usize>(
        self,
        program: &str,
        file: Option<&Path>,
        flags: [Flag; N],
    ) -> Result<S, Error> {
        let log = [("--log-level", "log.level", self.log_level), ("--log-format", "log.format", self.log_format)];
        let loaded = layers::load::<S>(file, env::vars_os(), flags.into_iter().chain(log))?;
        if self.print_settings {
            print(&loaded)?;
        }
        if self.check_settings {
            loaded.settings.warnings().iter().for_each(|warning| complain(program, &format!("warning: {warning}")));
        }
        Ok(loaded.settings)
    }
}

/// Writes what was asked for to standard output. If nobody reads it any more, that is the reader's choice.
pub fn print(text: &impl Display) -> Result<(), Error> {
    let mut out = io::stdout();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::Output(error)),
        _ => Ok(()),
    }
}

/// A whole program, from its arguments on: says what kept it from its work. If nobody reads that, the exit code still tells it.
pub fn run<A: Parser>(program: &str, run: impl FnOnce(A) -> Result<u8, Error>) -> ExitCode {
    let result = resources::memory().and_then(|()| run(A::parse()));
    let code = result.unwrap_or_else(|error| {
        complain(program, &error.to_string());
        error.exit_code()
    });
    code.into()
}

/// One line on standard error.
pub fn complain(program: &str, problem: &str) {
    let _ = writeln!(io::stderr(), "{program}: {problem}");
}
