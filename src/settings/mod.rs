//! The settings of both programs, as types.
//!
//! Code sets them as fields on `default()`. For a program, `layers` (with the feature `cli`) puts them together from
//! documents, variables and flags, and tells where each value came from. The lowest documents are `server.toml` and
//! `client.toml` beside this file. Each field reads its own value, and refuses a wrong one with what would be right.

mod client;
mod fields;
#[cfg(feature = "cli")]
pub mod layers;
mod limits;
mod log;
mod metric;
mod network;
pub(crate) mod reload;
mod server;
#[cfg(all(test, feature = "cli"))]
mod testing;

pub use client::{
    ClientSettings, IdentitySettings, ReportFormat, ReportSettings, ServerSettings, TrafficSettings, VerdictSettings,
};
#[cfg(feature = "client")]
pub(crate) use limits::{Bound, Limit, Side};
pub use limits::{Limits, LimitsError};
pub use log::{LogFormat, LogSettings};
#[cfg(feature = "client")]
pub(crate) use metric::{Count, Figure, Metric, Of};
pub use network::{Network, NotANetwork};
pub use server::{
    AdminSettings, ConnectionSettings, FaultSettings, ListenSettings, ProxyProtocol, Settings, SupervisorSettings,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_without_settings_reaches_a_server_without_settings() {
        let listening = Settings::default().listen.address;
        assert!(listening.ip().is_unspecified());
        assert_eq!(ClientSettings::default().server.address, format!("127.0.0.1:{}", listening.port()));
    }
}
