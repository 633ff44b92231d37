//! How settings are put together: defaults, then the file, then the environment, then flags.
//!
//! Each layer is laid over those below and read at once. So an error always belongs to the layer just added, and can name
//! it. A layer is a whole file, or a single variable or flag. It relies on the types to refuse wrong values, and on the
//! document of defaults for the order and the kind of each key.
use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt,
    fs::File,
    io::{self, Read},
    num::ParseIntError,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use config::{Config, ConfigError, FileFormat, Format, Map, Source, Value, ValueKind};
use serde::{Serialize, Serializer, de::DeserializeOwned};

use super::{client::ClientSettings, server::Settings};
use crate::text::one_line;

/// Settings that can be loaded in layers.
pub trait Layered: DeserializeOwned {
    /// The TOML document that holds every key with its default: one `key = value` a line, below its `[section]`.
    const DEFAULTS: &'static str;
    /// The prefix of its environment variables: `PREFIX` + `SECTION__KEY` for a key, and `PREFIX` + `SETTINGS` for the
    /// file.
    const PREFIX: &'static str;

    /// Warnings about settings that are allowed but hardly meant, one line each, with the consequence.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

impl Layered for Settings {
    const DEFAULTS: &'static str = include_str!("server.toml");
    const PREFIX: &'static str = "ECHO_SERVER_";

    fn warnings(&self) -> Vec<String> {
        self.warnings()
    }
}

impl Layered for ClientSettings {
    const DEFAULTS: &'static str = include_str!("client.toml");
    const PREFIX: &'static str = "ECHO_CLIENT_";

    fn warnings(&self) -> Vec<String> {
        self.warnings()
    }
}

/// A flag that sets a key: its name (`--listen`), the key (`listen.address`) and the value, if it was given.
pub type Flag = (&'static str, &'static str, Option<String>);

/// An error in the settings, in one line: where it is, at which key, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(String);

impl SettingsError {
    /// The problem of a value that came from `origin`: a file, a variable, a flag or a key.
    pub fn new(origin: &str, problem: impl fmt::Display) -> Self {
        Self(one_line(&format!("{origin}: {problem}")))
    }
}

/// Settings, and where each value came from.
/// Displayed, they are a TOML document that loads to equal settings. A comment at each key names its origin.
#[derive(Debug)]
pub struct Loaded<S> {
    /// The settings themselves.
    pub settings: S,
    merged: Config,
}

/// The settings without a file, an environment or flags.
pub fn defaults<S: Layered>() -> Loaded<S> {
    let origin = "default".to_owned();
    let document = FileFormat::Toml.parse(Some(&origin), S::DEFAULTS).expect("the embedded defaults are TOML");
    merge(Config::default(), &origin, document).expect("the embedded defaults are valid settings")
}

/// Loads settings from `file` (or else the file that the variable `PREFIX` + `SETTINGS` names), from `environment` and
/// from `flags`. An empty variable counts as unset.
///
/// # Errors
/// A file that cannot be read, an unknown key, or a value that the settings refuse.
///
/// # Example
/// ```
/// use supervised_echo::settings::{Settings, layers::load};
///
/// let environment = [("ECHO_SERVER_SUPERVISOR__WORKERS".into(), "2".into())];
/// let loaded = load::<Settings>(None, environment, [("--listen", "listen.address", Some("[::1]:7".into()))])?;
/// assert_eq!(loaded.settings.supervisor.workers, 2);
/// assert!(loaded.to_string().contains("address = \"[::1]:7\" # --listen\n"));
/// # Ok::<(), supervised_echo::settings::layers::SettingsError>(())
/// ```
pub fn load<S: Layered>(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    flags: impl IntoIterator<Item = Flag>,
) -> Result<Loaded<S>, SettingsError> {
    // Sorted, so that of two errors always the same one is reported.
    let environment: BTreeMap<_, _> = environment.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let mut loaded = defaults::<S>();

    let named = environment.get(OsStr::new(&format!("{}SETTINGS", S::PREFIX)));
    if let Some(path) = file.or(named.map(Path::new)) {
        let origin = one_line(&path.display().to_string());
        let text = read(path).map_err(|problem| SettingsError::new(&origin, problem))?;
        loaded = loaded.with_document(&origin, &text)?;
    }
    for (name, value) in &environment {
        // A variable without `__` is no setting. Kubernetes, for one, sets ECHO_SERVER_PORT for a Service of that name.
        let Some(name) = name.to_str() else { continue };
        let Some(key) = name.strip_prefix(S::PREFIX).filter(|key| key.contains("__")) else { continue };
        let origin = format!("environment {name}");
        let value = value.to_str().ok_or_else(|| SettingsError::new(&origin, "is not UTF-8, expected text"))?;
        loaded = loaded.with_text(&origin, &key.to_lowercase().replace("__", "."), value)?;
    }
    for (name, key, value) in flags {
        if let Some(value) = value {
            loaded = loaded.with_text(name, key, &value)?;
        }
    }
    Ok(loaded)
}

/// A document of values, as a source for `config`.
#[derive(Clone, Debug)]
struct Layer(Map<String, Value>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

/// Lays `layer` over `below` and reads the whole. `below` has been read before, so an error is the layer's.
fn merge<S: Layered>(below: Config, origin: &str, layer: Map<String, Value>) -> Result<Loaded<S>, SettingsError> {
    let merged = Config::builder().add_source(below).add_source(Layer(layer)).build();
    let read = merged.and_then(|merged| Ok(Loaded { settings: merged.clone().try_deserialize()?, merged }));
    let loaded = read.map_err(|error| match error {
        ConfigError::At { error, key: Some(key), .. } => SettingsError::new(origin, format_args!("{key}: {error}")),
        other => SettingsError::new(origin, other),
    })?;
    // A derived struct can also be read from an array of its fields in order. This refuses such a section.
    match table(&loaded.merged.cache).and_then(|root| root.iter().find(|(_, section)| table(section).is_none())) {
        Some((key, _)) => Err(SettingsError::new(origin, format_args!("{key}: expected a section [{key}]"))),
        None => Ok(loaded),
    }
}

impl<S: Layered> Loaded<S> {
    /// The value of a key, such as `listen.address`, as the text that a flag for it would take.
    pub fn text(&self, key: &str) -> Option<String> {
        let (section, key) = key.split_once('.')?;
        Some(self.leaf(section, key)?.to_string())
    }

    /// All values, by section and key, in any type that a string, number, boolean or list of strings can become.
    pub fn values<T: From<String> + From<i64> + From<bool> + FromIterator<T>>(
        &self,
    ) -> BTreeMap<String, BTreeMap<String, T>> {
        let sections = table(&self.merged.cache).into_iter().flatten();
        let values =
            |section| table(section).into_iter().flatten().map(|(key, value)| (key.clone(), plain(&value.kind)));
        sections.map(|(name, section)| (name.clone(), values(section).collect())).collect()
    }

    /// Adds the TOML text of a file.
    pub(crate) fn with_document(self, origin: &str, text: &str) -> Result<Self, SettingsError> {
        let document = FileFormat::Toml.parse(Some(&origin.to_owned()), text);
        let document = document.map_err(|error| {
            let overflow = error.is::<ParseIntError>().then(|| too_large(text)).flatten();
            SettingsError::new(origin, overflow.unwrap_or_else(|| without_drawing(&error.to_string())))
        })?;
        merge(self.merged, origin, document)
    }

    /// Adds a value that was given as text. It is read as the kind of value that it replaces, a list with commas. Other text stays text, and
    /// the settings refuse it and say what they expect.
    fn with_text(self, origin: &str, key: &str, text: &str) -> Result<Self, SettingsError> {
        let replaced = key.split_once('.').and_then(|(section, key)| self.leaf(section, key));
        let kind = match replaced.map(|value| &value.kind) {
            Some(ValueKind::I64(_)) => text.parse().ok().map(ValueKind::I64),
            Some(ValueKind::Float(_)) => text.parse().ok().map(ValueKind::Float),
            Some(ValueKind::Boolean(_)) => text.parse().ok().map(ValueKind::Boolean),
            Some(ValueKind::Array(_)) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Some(ValueKind::Array(items.map(|item| Value::new(Some(&origin.to_owned()), item)).collect()))
            }
            _ => None,
        };
        let value = Value::new(Some(&origin.to_owned()), kind.unwrap_or_else(|| text.into()));
        merge(self.merged, origin, [(key.to_owned(), value)].into_iter().collect())
    }

    fn leaf(&self, section: &str, key: &str) -> Option<&Value> {
        table(table(&self.merged.cache)?.get(section)?)?.get(key)
    }
}

impl<S: Layered> fmt::Display for Loaded<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut section = "";
        for line in S::DEFAULTS.lines().filter(|line| !line.starts_with('#')) {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                let gap = if section.is_empty() { "" } else { "\n" };
                section = name;
                writeln!(f, "{gap}[{section}]")?;
            } else if let Some((key, _)) = line.split_once(" = ")
                && let Some(value) = self.leaf(section, key)
            {
                let origin = value.origin().unwrap_or_default();
                match &value.kind {
                    ValueKind::String(text) => writeln!(f, "{key} = {} # {origin}", quoted(text))?,
                    ValueKind::Array(items) => {
                        let items: Vec<_> = items.iter().map(|item| quoted(&item.to_string())).collect();
                        writeln!(f, "{key} = [{}] # {origin}", items.join(", "))?;
                    }
                    // A whole one keeps its `.0`, and so its kind.
                    ValueKind::Float(number) => writeln!(f, "{key} = {number:?} # {origin}")?,
                    other => writeln!(f, "{key} = {other} # {origin}")?,
                }
            }
        }
        Ok(())
    }
}

/// Serialized, they are sections of keys, each with its `value` and where that is `from`.
impl<S> Serialize for Loaded<S> {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        let from = |value: &Value| value.origin().unwrap_or_default().to_owned();
        let leaf = |(key, value)| (key, Leaf { from: from(value), value: Plain(&value.kind) });
        let section = |value| table(value).into_iter().flatten().map(leaf).collect::<BTreeMap<_, _>>();
        let sections = table(&self.merged.cache).into_iter().flatten();
        serializer.collect_map(sections.map(|(name, value)| (name, section(value))).collect::<BTreeMap<_, _>>())
    }
}

#[derive(Serialize)]
struct Leaf<'a> {
    value: Plain<'a>,
    from: String,
}

/// A value without its origin.
struct Plain<'a>(&'a ValueKind);

impl Serialize for Plain<'_> {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        match self.0 {
            ValueKind::Boolean(value) => serializer.serialize_bool(*value),
            ValueKind::I64(value) => serializer.serialize_i64(*value),
            ValueKind::Float(value) => serializer.serialize_f64(*value),
            ValueKind::Array(items) => serializer.collect_seq(items.iter().map(|item| Plain(&item.kind))),
            other => serializer.collect_str(other),
        }
    }
}

fn plain<T: From<String> + From<i64> + From<bool> + FromIterator<T>>(value: &ValueKind) -> T {
    match value {
        ValueKind::Boolean(value) => (*value).into(),
        ValueKind::I64(value) => (*value).into(),
        ValueKind::Array(items) => items.iter().map(|item| plain::<T>(&item.kind)).collect(),
        other => other.to_string().into(),
    }
}

fn table(value: &Value) -> Option<&Map<String, Value>> {
    match &value.kind {
        ValueKind::Table(table) => Some(table),
        _ => None,
    }
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let escaped = text.chars().map(|c| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c.is_control() => format!("\\u{:04X}", u32::from(c)),
        c => c.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

/// The size of the largest file that is read. A larger one has no end, or is no settings file.
const LARGEST: u64 = 1 << 20;

/// Reads the file, or says in one line what is wrong with it. It reads only a regular file, because another kind may keep
/// its reader waiting.
fn read(path: &Path) -> Result<String, String> {
    let unreadable = |error: io::Error| format!("{error}, expected a readable TOML file");
    // Opened without waiting: opening a FIFO would wait for its other end.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(unreadable)?;
    let kind = file.metadata().map_err(unreadable)?.file_type();
    if kind.is_dir() {
        return Err("is a directory, expected a TOML file; did the mount source exist?".into());
    }
    if !kind.is_file() {
        return Err("is not a regular file, expected a TOML file".into());
    }
    let mut bytes = Vec::new();
    let length = file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if length as u64 > LARGEST {
        return Err("is larger than 1 MiB, expected a TOML file".into());
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        format!("line {line} is not UTF-8, expected TOML")
    })
}

/// The parser reports in several lines: where, the line itself with a caret below, and why. This keeps where and why.
fn without_drawing(report: &str) -> String {
    let is_drawing = |line: &str| line.trim_start_matches(|c: char| c == ' ' || c.is_ascii_digit()).starts_with('|');
    report.lines().filter(|line| !is_drawing(line)).collect::<Vec<_>>().join(": ")
}

/// Names the line of an integer that does not fit 64 bits. The parser's own error has neither the line nor the key.
fn too_large(text: &str) -> Option<String> {
    let overflows = |line: &str| FileFormat::Toml.parse(None, line).is_err_and(|error| error.is::<ParseIntError>());
    let (number, line) = (1..).zip(text.lines()).find(|(_, line)| overflows(line))?;
    Some(format!("line {number}: {}: number too large, expected a smaller one", line.trim()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NO_FLAGS: [Flag; 0] = [];

    fn environment<const N: usize>(variables: [(&str, &str); N]) -> [(OsString, OsString); N] {
        variables.map(|(name, value)| (name.into(), value.into()))
    }

    fn document(text: &str) -> Result<Loaded<Settings>, String> {
        defaults::<Settings>().with_document("a.toml", text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_built_in_documents_hold_the_defaults_of_the_types() {
        assert_eq!(defaults::<Settings>().settings, Settings::default());
        assert_eq!(defaults::<ClientSettings>().settings, ClientSettings::default());
    }

    #[test]
    fn each_layer_wins_over_those_below() {
        let file = document("[supervisor]\nworkers = 1\nmax_pending = 1\nmax_restarts = 1").unwrap();
        let variable = file
            .with_text("environment A", "supervisor.max_pending", "2")
            .and_then(|loaded| loaded.with_text("environment B", "supervisor.max_restarts", "2"));
        let flag = variable.and_then(|loaded| loaded.with_text("--flag", "supervisor.max_restarts", "3")).unwrap();
        let settings = &flag.settings.supervisor;
        assert_eq!((settings.max_connections, settings.workers), (1024, 1));
        assert_eq!((settings.max_pending, settings.max_restarts), (2, 3));
        let printed = flag.to_string();
        for line in [
            "max_connections = 1024 # default\n",
            "workers = 1 # a.toml\n",
            "max_pending = 2 # environment A\n",
            "max_restarts = 3 # --flag\n",
        ] {
            assert!(printed.contains(line), "{line} in {printed}");
        }
    }

    #[test]
    fn a_bad_value_is_blamed_on_its_layer_even_if_a_higher_one_replaces_it() {
        let variables = environment([("ECHO_SERVER_SUPERVISOR__WORKERS", "many")]);
        let flags = [("--workers", "supervisor.workers", Some("1".into()))];
        let error = load::<Settings>(None, variables, flags).unwrap_err().to_string();
        let expected = "environment ECHO_SERVER_SUPERVISOR__WORKERS: supervisor.workers: \
                        invalid value: string \"many\", expected an integer from 0 to 1024";
        assert_eq!(error, expected);
    }

    #[test]
    fn text_is_read_as_the_kind_of_the_default() {
        let variables = environment([
            ("ECHO_CLIENT_CLIENT__ID", "007"),
            ("ECHO_CLIENT_TRAFFIC__MESSAGES", "007"),
            ("ECHO_CLIENT_TRAFFIC__RECONNECT", "true"),
            ("ECHO_CLIENT_TRAFFIC__MESSAGE", "true"),
        ]);
        let settings = load::<ClientSettings>(None, variables, NO_FLAGS).unwrap().settings;
        assert_eq!((settings.client.id.as_str(), settings.traffic.messages), ("007", 7));
        assert_eq!((settings.traffic.reconnect, settings.traffic.message.as_str()), (true, "true"));
    }

    #[test]
    fn only_names_with_two_underscores_are_settings() {
        let variables = environment([
            ("ECHO_SERVER_PORT", "tcp://10.0.0.1:12345"),
            ("ECHO_SERVER_SERVICE_HOST", "10.0.0.1"),
            ("ECHO_CLIENT_TRAFFIC__MESSAGES", "of the other program"),
        ]);
        assert_eq!(load::<Settings>(None, variables, NO_FLAGS).unwrap().settings, Settings::default());
    }

    #[test]
    fn an_empty_variable_counts_as_unset() {
        let variables = environment([("ECHO_SERVER_LISTEN__ADDRESS", ""), ("ECHO_SERVER_SETTINGS", "")]);
        assert_eq!(load::<Settings>(None, variables, NO_FLAGS).unwrap().settings, Settings::default());
    }

    #[test]
    fn an_unknown_variable_is_an_error_that_lists_the_known_keys() {
        for name in
            ["SUPERVISOR__MAX_CONECTIONS", "SUPERVISR__WORKERS", "LISTEN__", "__", "LISTEN__A__B", "LISTEN__[0]"]
        {
            let name = format!("ECHO_SERVER_{name}");
            let error = load::<Settings>(None, environment([(&name, "1")]), NO_FLAGS).unwrap_err().to_string();
            assert!(error.starts_with(&format!("environment {name}: ")), "{error}");
            assert!(error.contains("unknown field `") && error.contains("`, expected "), "{error}");
        }
    }

    #[test]
    fn a_key_below_a_key_is_an_error() {
        let variables = environment([("ECHO_SERVER_LISTEN__ADDRESS__PORT", "1")]);
        let error = load::<Settings>(None, variables, NO_FLAGS).unwrap_err().to_string();
        assert!(error.contains("listen.address: invalid type: map, expected an IP address"), "{error}");
    }

    #[test]
    fn a_section_that_is_no_section_is_an_error() {
        for text in ["log = 5", "log = \"info\"", "log = [\"info\", \"json\"]", "[[log]]\nlevel = \"info\""] {
            let error = document(text).unwrap_err();
            assert!(error.starts_with("a.toml: log") && error.contains("expected "), "{text}: {error}");
        }
    }

    #[test]
    fn what_the_parser_says_is_put_on_one_line_with_its_number() {
        let error = document("[log]\nlevel = info\n").unwrap_err();
        assert!(error.starts_with("a.toml: TOML parse error at line 2, column 9: "), "{error}");
        assert_eq!(error.lines().count(), 1);
        assert!(!error.contains('|') && !error.contains('^'), "{error}");
    }

    #[test]
    fn a_file_as_windows_writes_it_is_read() {
        let loaded = document("\u{feff}[supervisor]\r\nworkers = 3\r\n").unwrap();
        assert_eq!(loaded.settings.supervisor.workers, 3);
    }

    #[test]
    fn a_number_beyond_64_bits_is_reported_with_its_line() {
        let error = document("[supervisor]\n  workers = 99999999999999999999\n").unwrap_err();
        assert_eq!(error, "a.toml: line 2: workers = 99999999999999999999: number too large, expected a smaller one");
    }

    #[test]
    fn an_error_stays_on_one_line_with_any_text_in_its_names() {
        let error = SettingsError::new("a\nb", "c\rd").to_string();
        assert_eq!(error, "a\\nb: c\\rd");
        assert_eq!(document("\"a\\nb\" = 1").unwrap_err().lines().count(), 1);
    }

    #[test]
    fn every_key_of_the_defaults_is_printed_in_their_order() {
        fn keys(document: &str) -> Vec<&str> {
            let lines = document.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
            lines.map(|line| line.split(" = ").next().unwrap()).collect()
        }
        assert_eq!(keys(&defaults::<Settings>().to_string()), keys(Settings::DEFAULTS));
        assert_eq!(keys(&defaults::<ClientSettings>().to_string()), keys(ClientSettings::DEFAULTS));
    }

    proptest! {
        #[test]
        fn what_is_printed_loads_to_equal_settings(
            id in any::<String>(),
            message in "(\\PC|[\u{0}-\u{9f}\"'\\\\°#={}])*",
            messages in 0..=1_000_000_000_000_i64,
            reconnect in any::<bool>(),
            origin in "[^\u{0}]*",
        ) {
            let loaded = defaults::<ClientSettings>()
                .with_text(&one_line(&origin), "client.id", &id)?
                .with_text("--message", "traffic.message", &message)?
                .with_text("--messages", "traffic.messages", &messages.to_string())?
                .with_text("--reconnect", "traffic.reconnect", &reconnect.to_string())?;
            prop_assert_eq!(&loaded.settings.client.id, &id);
            prop_assert_eq!(&loaded.settings.traffic.message, &message);
            let again = defaults::<ClientSettings>().with_document("printed", &loaded.to_string())?;
            prop_assert_eq!(again.settings, loaded.settings);
        }
    }
}
