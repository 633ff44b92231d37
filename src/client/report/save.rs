//! A file for a report, in the shape that its name ends with.
//!
//! Relies on the file system to rename a file at once: a reader sees the old file or the whole new one.

use super::{document::ClientReport, times::Hdr};
use hdrhistogram::serialization::{
    V2DeflateSerializer,
    interval_log::{IntervalLogWriterBuilder, Tag},
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
    str::FromStr,
    time::{Duration, SystemTime},
};

/// Where and in which shape a report is saved: `.json`, `.html`, or `.hlog`, the interval log of HdrHistogram's programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaveTo {
    path: PathBuf,
    shape: Shape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Json,
    Html,
    Hlog,
}

/// Why a report cannot be saved there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The name tells no shape.
    #[error("the name must end with .json, .html or .hlog")]
    Suffix,
    /// There is no folder to save it in.
    #[error("{} is no folder", .0.display())]
    Folder(PathBuf),
}

impl FromStr for SaveTo {
    type Err = SaveError;

    /// Tells before a run that its report could not be saved after it.
    fn from_str(name: &str) -> Result<Self, SaveError> {
        let path = PathBuf::from(name);
        let shape = match path.extension().and_then(|suffix| suffix.to_str()) {
            Some("json") => Shape::Json,
            Some("html") => Shape::Html,
            Some("hlog") => Shape::Hlog,
            _ => return Err(SaveError::Suffix),
        };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if folder.is_dir() { Ok(Self { path, shape }) } else { Err(SaveError::Folder(folder.into())) }
    }
}

impl SaveTo {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Saves the report, in place of a file of this name.
    ///
    /// # Errors
    /// What the system said.
    pub fn save(&self, report: &ClientReport) -> io::Result<()> {
        let text = match self.shape {
            Shape::Json => report.to_json() + "\n",
            Shape::Html => report.to_html(),
            Shape::Hlog => report.to_hlog(),
        };
        let mut unfinished = self.path.clone().into_os_string();
        unfinished.push(format!(".{}", process::id()));
        let written = fs::write(&unfinished, text).and_then(|()| fs::rename(&unfinished, &self.path));
        written.inspect_err(|_| drop(fs::remove_file(&unfinished)))
    }
}

impl ClientReport {
    /// An interval log with one histogram of each kind, in nanoseconds, over the whole run.
    fn to_hlog(&self) -> String {
        let started = humantime::parse_rfc3339(&self.started).unwrap_or(SystemTime::UNIX_EPOCH);
        let hdrs: [(&str, &Hdr); 4] = [
            ("response", &self.hdr.response),
            ("round_trip", &self.hdr.round_trip),
            ("late", &self.hdr.late),
            ("connect", &self.hdr.connect),
        ];
        let (mut log, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
        let mut builder = IntervalLogWriterBuilder::new();
        builder.add_comment("echo-client").with_base_time(started).with_start_time(started);
        let mut writer = builder.begin_log_with(&mut log, &mut serializer).expect("a vector takes all bytes");
        for (name, hdr) in hdrs {
            let took = Duration::from_millis(self.elapsed_ms);
            let written = writer.write_histogram(&hdr.histogram(), Duration::ZERO, took, Tag::new(name));
            written.expect("a vector takes all bytes");
        }
        String::from_utf8(log).expect("an interval log is text")
    }
}

#[cfg(test)]
mod tests {
    use super::super::{read::read, testing::sample};
    use super::*;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    /// A folder of its own.
    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("echo-client-save-{name}-{}", process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        folder
    }

    #[test]
    fn a_name_that_cannot_be_saved_to_is_refused_before_the_run() {
        for bad in ["report", "report.txt", ".json", "report.JSON", "json"] {
            assert_eq!(bad.parse::<SaveTo>(), Err(SaveError::Suffix), "{bad}");
        }
        assert_eq!("no/such/report.json".parse::<SaveTo>(), Err(SaveError::Folder("no/such".into())));
        assert!("report.json".parse::<SaveTo>().is_ok());
    }

    #[test]
    fn a_report_takes_the_place_of_the_old_one_and_leaves_nothing_else() {
        let folder = folder("place");
        let path = folder.join("report.json");
        fs::write(&path, "old").unwrap();
        path.to_str().unwrap().parse::<SaveTo>().unwrap().save(&sample()).unwrap();
        assert_eq!(read(&[&folder]).unwrap().reports, [sample()]);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_could_not_be_saved_is_left_as_it_was() {
        let folder = folder("left");
        let path = folder.join("report.html");
        let save: SaveTo = path.to_str().unwrap().parse().unwrap();
        // A folder cannot be replaced by a file.
        fs::create_dir(&path).unwrap();
        assert!(save.save(&sample()).is_err());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn an_interval_log_holds_every_histogram_by_its_name() {
        let log = sample().to_hlog();
        let entries: Vec<_> = IntervalLogIterator::new(log.as_bytes()).map(Result::unwrap).collect();
        let tags: Vec<_> = entries
            .iter()
            .filter_map(|entry| match entry {
                LogEntry::Interval(interval) => interval.tag().map(|tag| tag.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(tags, ["response", "round_trip", "late", "connect"], "{log}");
    }
}
