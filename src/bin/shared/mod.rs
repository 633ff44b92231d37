//! What the command lines of both programs share: where settings come from, and how a program ends.
//!
//! Relies on each program to name its flags and the keys that they set, and on `error` for the exit code of what failed.
mod error;

use std::{
    env,
    fmt::Display,
    io::{self, ErrorKind, Write as _},
    path::Path,
    process::ExitCode,
};

use clap::{Args, Parser, parser::ValueSource};
pub use error::ProgramError;
use supervised_echo::{
    resources,
    settings::layers::{self, Flag, Layered},
};

/// A program's command line.
pub trait CommandLine: Parser + Default {
    /// The settings that its flags set.
    type Settings: Layered;

    /// The flags that set a key, each with its value if it was given.
    fn flags(&mut self) -> Vec<Flag>;
}

/// Reads the command line. For clap the built-in settings are the defaults of the flags, so that the help shows them. The
/// layers of the settings get only the flags that were typed.
fn parse<A: CommandLine>() -> (A, Vec<Flag>) {
    let (defaults, flags) = (layers::defaults::<A::Settings>(), A::default().flags());
    let matches = A::command()
        .mut_args(|arg| {
            let flag = flags.iter().find(|(flag, ..)| arg.get_long() == flag.strip_prefix("--"));
            let default = flag.filter(|_| arg.get_action().takes_values()).and_then(|(_, key, _)| defaults.text(key));
            // For an empty default the help text says what it stands for.
            match default.filter(|default| !default.is_empty()) {
                Some(default) => arg.default_value(default),
                None => arg,
            }
        })
        .get_matches();
    let typed = |flag: &str| {
        let id = flag.trim_start_matches('-').replace('-', "_");
        matches.value_source(&id) == Some(ValueSource::CommandLine)
    };
    let mut args = A::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let flags = args.flags().into_iter().filter(|(flag, ..)| typed(flag)).collect();
    (args, flags)
}

/// The flags of both programs, next to `--settings`, whose help names the variable.
#[derive(Args, Default)]
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
    /// The flags that set a key.
    pub fn flags(&mut self) -> [Flag; 2] {
        [("--log-level", "log.level", self.log_level.take()), ("--log-format", "log.format", self.log_format.take())]
    }

    /// Whether the settings are only to be printed or checked. Then a signal may end the program at once.
    pub fn only_asks(&self) -> bool {
        self.print_settings || self.check_settings
    }

    /// Loads the settings from all their layers, and prints or checks them if the flags ask for that.
    pub fn settings<S: Layered>(
        &self,
        program: &str,
        file: Option<&Path>,
        flags: Vec<Flag>,
    ) -> Result<S, ProgramError> {
        let loaded = layers::load::<S>(file, env::vars_os(), flags)?;
        if self.print_settings {
            print(&loaded)?;
        }
        if self.check_settings {
            loaded.settings.warnings().iter().for_each(|warning| complain(program, &format!("warning: {warning}")));
        }
        Ok(loaded.settings)
    }
}

/// Writes the requested text to standard output. It is no error if the reader has gone.
pub fn print(text: &impl Display) -> Result<(), ProgramError> {
    let mut out = io::stdout();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Err(source) if source.kind() != ErrorKind::BrokenPipe => {
            Err(ProgramError::Io { what: "cannot write to standard output".into(), source })
        }
        _ => Ok(()),
    }
}

/// Runs a whole program, from its arguments on. It prints the error that kept the program from its work, and the exit code
/// tells it too.
pub fn run<A: CommandLine>(program: &str, run: impl FnOnce(A, Vec<Flag>) -> Result<u8, ProgramError>) -> ExitCode {
    let result = resources::memory().map_err(ProgramError::from).and_then(|()| {
        let (args, flags) = parse::<A>();
        run(args, flags)
    });
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
