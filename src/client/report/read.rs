//! Finds the reports in texts and files.
//!
//! A report is a document of its own, or one line among others, as in the logs of a container. What is no report is skipped;
//! what begins as one and cannot be read is an error.

use super::document::ClientReport;
use std::{
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

/// Reads every report in a file, in each file of a folder (not in its folders), or, for `-`, on standard input.
///
/// # Errors
/// What cannot be read, and a report that is not as the schema has it.
pub fn read(path: &Path) -> Result<Vec<ClientReport>, ReadError> {
    let unreadable = |source| ReadError::Io { path: path.into(), source };
    if path.is_dir() {
        let entries = fs::read_dir(path).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
        let mut files: Vec<_> = entries.map_err(unreadable)?.into_iter().map(|entry| entry.path()).collect();
        files.retain(|file| file.is_file());
        files.sort();
        let reports: Vec<_> = files.iter().map(|file| read(file)).collect::<Result<_, _>>()?;
        return Ok(reports.concat());
    }
    let mut bytes = Vec::new();
    match path.to_str() {
        Some("-") => io::stdin().lock().read_to_end(&mut bytes).map(drop),
        _ => fs::read(path).map(|read| bytes = read),
    }
    .map_err(unreadable)?;
    find(&String::from_utf8_lossy(&bytes)).map_err(|(line, source)| ReadError::Report {
        path: path.into(),
        line,
        source,
    })
}

/// The reports in a text. An error comes with its line.
fn find(text: &str) -> Result<Vec<ClientReport>, (usize, serde_json::Error)> {
    if let Ok(report) = serde_json::from_str(text) {
        return Ok(vec![report]);
    }
    let report = |(n, line): (usize, &str)| {
        let begin = line.find(BEGINNING)?;
        Some(serde_json::from_str(line[begin..].trim_end()).map_err(|error| (n + 1, error)))
    };
    text.lines().enumerate().filter_map(report).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::sample;
    use super::*;

    fn named(client: &str) -> ClientReport {
        ClientReport { client: client.into(), ..sample() }
    }

    #[test]
    fn reports_are_found_among_other_lines_and_behind_a_prefix() {
        let (one, two) = (named("one"), named("two"));
        let text = format!("{{\"level\":\"info\"}}\n{}\nechoed\n\nclient-2  | {}\r\n", one.to_json(), two.to_json());
        assert_eq!(find(&text).unwrap(), [one, two]);
        assert_eq!(find("").unwrap(), []);
        assert_eq!(find("no report\n{}\n").unwrap(), []);
    }

    #[test]
    fn a_report_may_be_a_document_of_many_lines() {
        let pretty = serde_json::to_string_pretty(&named("one")).unwrap();
        assert_eq!(find(&pretty).unwrap(), [named("one")]);
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
