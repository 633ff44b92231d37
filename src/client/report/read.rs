//! Finds the clients' reports and what the servers' logs tell, in texts and files.
//!
//! A report is one line among others, as in the logs of a container, or a document of many lines. A server's log in JSON is a record
//! a line. Other lines are skipped; what begins as a report and cannot be read is an error. A name under which nothing is found is
//! noted: its log may have another format.

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

/// What was found.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Found {
    /// The clients' reports.
    pub reports: Vec<ClientReport>,
    /// The sum over the servers' logs.
    pub servers: ServerSums,
    /// Each name under which there is neither, a sentence each.
    pub notes: Vec<String>,
}

/// Reads every report and every server's log in files, in each file of folders (not in their folders), and, for `-`, on standard
/// input. A file counts once, however often it is named.
///
/// # Errors
/// What cannot be read, and a report that is not as the schema has it.
pub fn read<P: AsRef<Path>>(paths: &[P]) -> Result<Found, ReadError> {
    let (mut found, mut known) = (Found::default(), BTreeSet::new());
    for path in paths.iter().map(AsRef::as_ref) {
        let mut files = files(path)?;
        files.retain(|file| known.insert(fs::canonicalize(file).unwrap_or_else(|_| file.clone())));
        let each: Vec<_> = files.into_iter().map(find_in).collect::<Result<_, _>>()?;
        let holds_nothing = |found: &Found| *found == Found::default();
        if !each.is_empty() && each.iter().all(holds_nothing) {
            found
                .notes
                .push(format!("{}: no report, and no `listening` or `stopped` of a server in JSON", path.display()));
        }
        for Found { reports, servers, .. } in each {
            found.reports.extend(reports);
            found.servers = found.servers + servers;
        }
    }
    Ok(found)
}

/// The files that a name stands for.
fn files(path: &Path) -> Result<Vec<PathBuf>, ReadError> {
    if !path.is_dir() {
        return Ok(vec![path.into()]);
    }
    let entries = fs::read_dir(path).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let entries = entries.map_err(|source| ReadError::Io { path: path.into(), source })?;
    let mut files: Vec<_> = entries.into_iter().map(|entry| entry.path()).filter(|file| file.is_file()).collect();
    files.sort();
    Ok(files)
}

/// What a file holds.
fn find_in(file: PathBuf) -> Result<Found, ReadError> {
    let mut bytes = Vec::new();
    match file.to_str() {
        Some("-") => io::stdin().lock().read_to_end(&mut bytes).map(drop),
        _ => fs::read(&file).map(|read| bytes = read),
    }
    .map_err(|source| ReadError::Io { path: file.clone(), source })?;
    find(&String::from_utf8_lossy(&bytes)).map_err(|(line, source)| ReadError::Report { path: file, line, source })
}

/// Where the first report in a text begins, of any version: with `{"schema":"echo-client/`, and white space between.
fn beginning(text: &str) -> Option<usize> {
    text.match_indices(r#""schema""#).find_map(|(at, key)| {
        let before = text[..at].trim_end().strip_suffix('{')?;
        let value = text[at + key.len()..].trim_start().strip_prefix(':')?;
        value.trim_start().starts_with(r#""echo-client/"#).then_some(before.len())
    })
}

/// The report at the beginning of a text, and its length.
fn report(text: &str) -> Result<(ClientReport, usize), serde_json::Error> {
    let mut reports = serde_json::Deserializer::from_str(text).into_iter();
    let report = reports.next().expect("the text begins with a document").map_err(|error: serde_json::Error| {
        // The lines behind one that was cut off belong to something else.
        let line = text.lines().next().unwrap_or_default();
        if error.is_data() { error } else { serde_json::from_str::<ClientReport>(line).err().unwrap_or(error) }
    })?;
    Ok((report, reports.byte_offset()))
}

/// What a text holds. An error comes with the line on which its report begins.
fn find(text: &str) -> Result<Found, (usize, serde_json::Error)> {
    // Another program may have written its keys in another order. It is known by its beginning only among other lines.
    if let Ok(report) = serde_json::from_str(text) {
        return Ok(Found { reports: vec![report], ..Found::default() });
    }
    let (mut found, mut rest) = (Found::default(), text);
    let told = |lines: &str| -> ServerSums { lines.lines().map(ServerSums::told_by).sum() };
    while let Some(begin) = beginning(rest) {
        found.servers = found.servers + told(&rest[..begin]);
        rest = &rest[begin..];
        let line = || text[..text.len() - rest.len()].matches('\n').count() + 1;
        let (report, length) = report(rest).map_err(|error| (line(), error))?;
        found.reports.push(report);
        rest = &rest[length..];
    }
    found.servers = found.servers + told(rest);
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
        assert_eq!(find(&text).unwrap(), Found { reports: vec![named("one")], servers, ..Found::default() });
    }

    #[test]
    fn a_report_may_be_a_document_of_many_lines() {
        let pretty = serde_json::to_string_pretty(&named("one")).unwrap();
        assert_eq!(find(&pretty).unwrap().reports, [named("one")]);
        let sorted = serde_json::to_value(named("one")).unwrap().to_string();
        assert!(sorted.starts_with(r#"{"baseline""#), "{sorted}");
        assert_eq!(find(&sorted).unwrap().reports, [named("one")]);
    }

    #[test]
    fn reports_may_have_white_space_and_stand_among_the_logs_of_servers() {
        let [one, two] = ["one", "two"].map(|name| serde_json::to_string_pretty(&named(name)).unwrap());
        let spaced = named("three").to_json().replacen(r#"{"schema":""#, "{ \"schema\" : \"", 1);
        let servers = ServerSums { started: 2, stopped: 1, echoed: 175, discarded: 0 };
        let found = find(&format!("{one}\n{LOG}{two}\nclient-3  | {spaced}\n")).unwrap();
        assert_eq!(found, Found { reports: ["one", "two", "three"].map(named).into(), servers, ..Found::default() });
        let bad = one.replacen(r#""due": 10000"#, r#""due": -1"#, 1);
        let (line, error) = find(&format!("{two}\n{bad}\n{LOG}")).unwrap_err();
        assert_eq!(line, two.lines().count() + 1);
        assert!(error.to_string().starts_with("invalid value: integer `-1`, expected u64"), "{error}");
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
