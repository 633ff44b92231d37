//! The settings of both programs, as types.
//!
//! The files `server.toml` and `client.toml` beside this one are compiled in and *are* the defaults; those in `settings/`,
//! for users to edit, begin as the same. Each field reads its own value and refuses any other with what would be right;
//! `layers` adds where the value came from.

mod client;
mod fields;
pub mod layers;
mod log;
mod server;
#[cfg(test)]
mod testing;

pub use client::{ClientSettings, IdentitySettings, ServerSettings, TrafficSettings};
pub use log::{LogFormat, LogSettings};
pub use server::{ConnectionSettings, ListenSettings, Settings, SupervisorSettings};

#[cfg(test)]
mod tests {
    use super::{layers::Layered, *};

    #[test]
    fn the_files_to_edit_show_the_defaults() {
        assert_eq!(Settings::DEFAULTS, include_str!("../../settings/server.toml"));
        assert_eq!(ClientSettings::DEFAULTS, include_str!("../../settings/client.toml"));
    }
}
