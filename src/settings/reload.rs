//! What a reload changes: most settings at once or at their next use, the rest only at a restart.

use crate::settings::Settings;

/// The keys whose values a reload found changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// In force from now on: for all that begins from now on, if they speak of a connection.
    pub in_force: Vec<&'static str>,
    /// In force after a restart only.
    pub at_restart: Vec<&'static str>,
}

/// Goes over all keys, each as a path of fields and as it is written in a file.
macro_rules! for_each_key {
    ($what:ident) => {
        $what!(in_force: supervisor.max_connections, supervisor.max_pending, supervisor.max_restarts);
        $what!(in_force: supervisor.restart_window, supervisor.lame_duck, supervisor.shutdown_timeout);
        $what!(in_force: connection.idle_timeout, connection.linger, connection.last_word);
        $what!(in_force: listen.proxy_protocol, listen.proxy_trusted, log.level);
        $what!(in_force: fault.delay, fault.wrong, fault.close, fault.crash, fault.ask);
        $what!(at_restart: listen.address, listen.backlog, supervisor.workers, admin.address, admin.hosts, log.format);
    };
}

impl Settings {
    /// The keys in which these settings differ from `new`, and which are in force only after a restart.
    pub fn restart_needed(&self, new: &Self) -> Vec<&'static str> {
        self.clone().reload(new.clone()).at_restart
    }

    /// Takes over what can be in force without a restart, and tells all that differs.
    pub(crate) fn reload(&mut self, mut new: Self) -> Changes {
        let mut changes = Changes::default();
        macro_rules! compare {
            ($effect:ident: $($section:ident . $key:ident),+) => {$(
                if self.$section.$key != new.$section.$key {
                    changes.$effect.push(concat!(stringify!($section), ".", stringify!($key)));
                }
                compare!(@$effect $section $key);
            )+};
            (@in_force $section:ident $key:ident) => {};
            (@at_restart $section:ident $key:ident) => { new.$section.$key = self.$section.$key.clone() };
        }
        for_each_key!(compare);
        *self = new;
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_can_be_in_force_is_and_the_rest_stays_as_it_was() {
        let (mut settings, mut new) = (Settings::default(), Settings::default());
        new.supervisor.max_connections = 7;
        new.connection.linger = Duration::from_secs(7);
        new.listen.backlog = 7;
        new.supervisor.workers = 7;
        let changes = settings.reload(new.clone());
        assert_eq!(changes.in_force, ["supervisor.max_connections", "connection.linger"]);
        assert_eq!(changes.at_restart, ["listen.backlog", "supervisor.workers"]);
        assert_eq!((settings.supervisor.max_connections, settings.supervisor.workers), (7, 0));
        // What waits for a restart is told each time.
        let changes = settings.reload(new);
        assert_eq!((changes.in_force, changes.at_restart.len()), (vec![], 2));
    }

    #[test]
    fn every_key_of_the_built_in_settings_is_known_here() {
        let mut known = Vec::new();
        macro_rules! list {
            ($effect:ident: $($section:ident . $key:ident),+) => {
                known.extend([$(concat!(stringify!($section), ".", stringify!($key))),+])
            };
        }
        for_each_key!(list);
        known.sort_unstable();
        let (mut section, mut keys) = ("", Vec::new());
        for line in include_str!("server.toml").lines() {
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_end_matches(']');
            } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
                keys.push(format!("{section}.{key}"));
            }
        }
        keys.sort_unstable();
        assert_eq!(known, keys);
    }
}
