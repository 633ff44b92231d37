//! What keeps a program from its work, and the exit code that says which it was: the one place where errors become exit codes.
//!
//! Relies on the library for what can keep a server or a client from running.

use std::io;
use supervised_echo::{Error, report::ReadError, settings::layers::SettingsError};

/// Why a program could not do its work. Displayed, it is the one line that the program prints.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The settings are wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The server or the client could not start or run.
    #[error(transparent)]
    Library(#[from] Error),
    /// A report could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What the program does besides has failed.
    #[error("{what}: {source}")]
    Io {
        /// What has failed.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

impl ProgramError {
    /// What the program exits with: 78 for its settings, otherwise 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Settings(_) => 78,
            Self::Library(_) | Self::Read(_) | Self::Io { .. } => 1,
        }
    }
}
