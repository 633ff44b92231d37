//! Finds the clients' reports and what the servers' logs tell, in texts and files.
//!
//! A report is a document of its own, or one line among others, as in the logs of a container. A server's log in JSON is a record a
//! line. Other lines are skipped; what begins as a report and cannot be read is an error.

use super::{document::ClientReport, parts::ServerSums};
use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Why reports could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A file or folder cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// Its name; `-` for standard input.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A report is not as the schema has it.
    #[error("{}: line {line}: {source}", path.display())]
    Report {
        /// The file.
        path: PathBuf,
        /// The line of the file, from 1.
        line: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// How every report begins, of any version.
const BEGINNING: &str = r#"{"schema":"echo-client/"#;

/// What was found.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Found {
    /// The clients' reports.
    pub reports: Vec<ClientReport>,
    /// The sum over the servers' logs.
    pub servers: ServerSums,
}

/// Reads every report and every server's log in files, in each file of folders (not in their folders), and, for `-`, on standard
/// input. A file counts once, however often it is named.
///
/// # Errors
/// What cannot be read, and a report that is not as the schema has it.
pub fn read<P: AsRef<Path>>(paths: &[P]) -> Result<Found, ReadError> {
    let mut found = Found::default();
    for file in files(paths)? {
        let mut bytes = Vec::new();
        match file.to_str() {
            Some("-") => io::stdin().lock().read_to_end(&mut bytes).map(drop),
            _ => fs::read(&file).map(|read| bytes = read),
        }
        .map_err(|source| ReadError::Io { path: file.clone(), source })?;
        let Found { reports, servers } = find(&String::from_utf8_lossy(&bytes))
            .map_err(|(line, source)| ReadError::Report { path: file, line, source })?;
        found.reports.extend(reports);
        found.servers = found.servers + servers;
    }
    Ok(found)
}

fn files<P: AsRef<Path>>(paths: &[P]) -> Result<Vec<PathBuf>, ReadError> {
    let (mut files, mut known) = (Vec::new(), BTreeSet::new());
    for path in paths.iter().map(AsRef::as_ref) {
        let mut own = vec![path.to_owned()];
        if path.is_dir() {
            let entries = fs::read_dir(path).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
            let entries = entries.map_err(|source| ReadError::Io { path: path.into(), source })?;
            own = entries.into_iter().map(|entry| entry.path()).filter(|file| file.is_file()).collect();
            own.sort();
        }
        own.retain(|file| known.insert(fs::canonicalize(file).unwrap_or_else(|_| file.clone())));
        files.extend(own);
    }
    Ok(files)
}

/// What a text holds. An error comes with its line.
fn find(text: &str) -> Result<Found, (usize, serde_json::Error)> {
    if let Ok(report) = serde_json::from_str(text) {
        return Ok(Found { reports: vec![report], ..Found::default() });
    }
    let mut found = Found::default();
    for (line, n) in text.lines().zip(1..) {
        match line.find(BEGINNING) {
            Some(begin) => {
                found.reports.push(serde_json::from_str(line[begin..].trim_end()).map_err(|error| (n, error))?);
            }
            None => found.servers = found.servers + ServerSums::told_by(line),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::testing::sample;
    use super::*;

    /// Of two servers, as `docker compose logs` shows them. One had a client and a health check and stopped, the other was killed.
    const LOG: &str = r#"server-1  | {"ts":"2026-11-27T22:56:47.009Z","level":"info","msg":"listening","address":"127.0.0.1:45671","workers":2,"max_connections":1024,"max_pending":128}
server-2  | {"ts":"2026-11-27T22:56:47.001Z","level":"info","msg":"listening","address":"127.0.0.1:45672","workers":2,"max_connections":1024,"max_pending":128}
server-1  | {"ts":"2026-11-27T22:56:47.128Z","level":"debug","msg":"connection closed","connection":1,"peer":"127.0.0.1:39460","reason":"client","received":38,"echoed":38,"discarded":0,"healthcheck":true,"elapsed_ms":0}
server-1  | {"ts":"2026-11-27T22:56:47.191Z","level":"debug","msg":"connection closed","connection":2,"peer":"127.0.0.1:39468","reason":"client","received":175,"echoed":175,"discarded":0,"elapsed_ms":1}
server-2  | {"ts":"2026-11-27T22:56:47.247Z","level":"debug","msg":"connection closed","connection":1,"peer":"127.0.0.1:34502","reason":"client","received":175,"echoed":175,"discarded":0,"elapsed_ms":1}
server-1  | {"ts":"2026-11-27T22:56:47.253Z","level":"info","msg":"stopping","reason":"SIGTERM","connections":0,"pending":0,"timeout_ms":8000}
server-1  | {"ts":"2026-11-27T22:56:47.361Z","level":"info","msg":"stopped","acknowledged":0,"forced":0,"crashed":0,"reset":0,"failed":0,"discarded":0,"received_total":175,"echoed_total":175,"discarded_total":0,"elapsed_ms":107}
"#;

    fn named(client: &str) -> ClientReport {
        ClientReport { client: client.into(), ..sample() }
    }

    #[test]
    fn reports_are_found_among_other_lines_and_behind_a_prefix() {
        let (one, two) = (named("one"), named("two"));
        let text = format!("{{\"level\":\"info\"}}\n{}\nechoed\n\nclient-2  | {}\r\n", one.to_json(), two.to_json());
        assert_eq!(find(&text).unwrap().reports, [one, two]);
        assert_eq!(find("").unwrap(), Found::default());
        assert_eq!(find("no report\n{}\n").unwrap(), Found::default());
    }

    #[test]
    fn reports_and_the_logs_of_servers_may_be_mixed_in_one_text() {
        let text = LOG.replacen('\n', &format!("\nclient-1  | {}\n", named("one").to_json()), 1);
        let servers = ServerSums { started: 2, stopped: 1, echoed: 175, discarded: 0 };
        assert_eq!(find(&text).unwrap(), Found { reports: vec![named("one")], servers });
    }

    #[test]
    fn a_report_may_be_a_document_of_many_lines() {
        let pretty = serde_json::to_string_pretty(&named("one")).unwrap();
        assert_eq!(find(&pretty).unwrap().reports, [named("one")]);
    }

    #[test]
    fn a_report_that_is_cut_off_or_of_another_schema_is_an_error_with_its_line() {
        let json = named("one").to_json();
        for (bad, said) in [(&json[..json.len() / 2], "EOF"), (&json.replacen("/1", "/2", 1), "echo-client/2")] {
            let (line, error) = find(&format!("first\n{bad}\n")).unwrap_err();
            assert_eq!(line, 2);
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
