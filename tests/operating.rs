//! What docs/operating.md says, and the files for operators beside it, held against a running server, Prometheus and systemd. Where a
//! program for that is missing, its test is reported as ignored.

mod common;

use common::*;
use libtest_mimic::Arguments;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, ExitCode},
};
use supervised_echo::CloseReason;

/// The name of a test, the program that it needs, and the test.
type Test = (&'static str, Option<&'static str>, fn());

const TESTS: [Test; 8] = [
    ("the_metrics_are_as_prometheus_wants_them", Some("promtool"), the_metrics_are_as_prometheus_wants_them),
    ("the_alerts_are_ones_that_prometheus_takes", Some("promtool"), the_alerts_are_ones_that_prometheus_takes),
    ("the_queries_are_ones_that_prometheus_takes", Some("promtool"), the_queries_are_ones_that_prometheus_takes),
    ("the_unit_file_is_one_that_systemd_takes", Some("systemd-analyze"), the_unit_file_is_one_that_systemd_takes),
    ("every_metric_that_is_named_is_in_a_scrape", None, every_metric_that_is_named_is_in_a_scrape),
    ("the_answers_to_questions_of_health_are_as_shown", Some("curl"), the_answers_to_questions_of_health_are_as_shown),
    ("every_event_of_the_log_is_explained", None, every_event_of_the_log_is_explained),
    ("every_key_is_said_to_be_in_force_when_it_is", None, every_key_is_said_to_be_in_force_when_it_is),
];

fn main() -> ExitCode {
    let trials = TESTS.map(|(name, needs, test)| {
        let lacks = |program: &&str| Command::new(program).arg("--version").output().is_err();
        trial(name, move || needs.filter(lacks).map(|program| format!("there is no `{program}`")), test)
    });
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit_code()
}

fn read(file: &str) -> String {
    fs::read_to_string(path(file)).unwrap()
}

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file)
}

fn start(settings: &[(&str, &str)]) -> (Server, SocketAddr) {
    let address = free_address().to_string();
    let mut server = Server::start(&[&[("admin.address", &*address), ("log.level", "debug")], settings].concat());
    let admin = server.log.wait("admin listening")["address"].as_str().unwrap().parse().unwrap();
    (server, admin)
}

fn the_metrics_are_as_prometheus_wants_them() {
    let (server, admin) = start(&[]);
    round_trip(&mut server.connect());
    let place = Place::new("metrics").with("scrape", get(admin, "/metrics").body);
    let mut check = Command::new("promtool");
    let scrape = fs::File::open(place.path().join("scrape")).unwrap();
    let checked = finish_with(check.args(["check", "metrics"]), scrape);
    assert_eq!((checked.code, &*checked.out, &*checked.err), (0, "", ""));
    server.stop();
}

fn the_alerts_are_ones_that_prometheus_takes() {
    let mut check = Command::new("promtool");
    let checked = finish(check.args(["check", "rules"]).arg(path("docs/operating/alerts.yaml")));
    assert_eq!(checked.code, 0, "{checked:?}");
}

/// Those of the document and of the dashboard, as rules: so Prometheus's tool reads them.
fn the_queries_are_ones_that_prometheus_takes() {
    let text = read("docs/operating.md");
    let (block, _) = text.split_once("```promql\n").unwrap().1.split_once("```").unwrap();
    let dashboard: Value = serde_json::from_str(&read("docs/operating/dashboard.json")).unwrap();
    let targets = dashboard["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let queries: Vec<_> = block.split("\n\n").chain(targets.map(|target| target["expr"].as_str().unwrap())).collect();
    assert!(queries.len() > 13, "{queries:?}");
    let rules: Vec<_> = (0..)
        .zip(queries)
        .map(|(n, query): (u32, _)| json!({ "record": format!("query:{n}"), "expr": query }))
        .collect();
    // YAML takes JSON as it is.
    let file = json!({ "groups": [{ "name": "queries", "rules": rules }] }).to_string();
    let place = Place::new("queries").with("rules.yaml", file);
    let mut check = Command::new("promtool");
    let checked = finish(check.args(["check", "rules"]).arg(place.path().join("rules.yaml")));
    assert_eq!(checked.code, 0, "{checked:?}");
}

fn the_unit_file_is_one_that_systemd_takes() {
    // The program is not installed here.
    let unit = read("compose/systemd/echo-server.service").replace("/usr/local/bin/echo-server", SERVER);
    let place = Place::new("unit").with("echo-server.service", unit);
    let mut verify = Command::new("systemd-analyze");
    let verified = finish(verify.arg("verify").arg(place.path().join("echo-server.service")));
    // This type came with systemd 253.
    let complaints = verified.err.lines().filter(|line| !line.contains("service type, ignoring: notify-reload"));
    assert_eq!((complaints.collect::<Vec<_>>(), verified.code), (vec![], 0));
}

fn every_metric_that_is_named_is_in_a_scrape() {
    let (server, admin) = start(&[]);
    let scrape = get(admin, "/metrics").body;
    let samples: BTreeSet<_> = scrape
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(['{', ' ']).next().unwrap())
        .collect();
    let dashboard = read("docs/operating/dashboard.json");
    let _: Value = serde_json::from_str(&dashboard).unwrap();
    for text in [dashboard, read("docs/operating/alerts.yaml"), read("docs/operating.md")] {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let metrics: BTreeSet<_> =
            words.filter(|word| word.starts_with("echo_server_") || word.starts_with("process_")).collect();
        assert!(metrics.len() > 3, "{metrics:?}");
        assert!(metrics.is_subset(&samples), "{:?}", metrics.difference(&samples));
    }
    server.stop();
}

fn the_answers_to_questions_of_health_are_as_shown() {
    let (mut server, admin) = start(&[("supervisor.max_connections", "1"), ("supervisor.max_pending", "0")]);
    let _client = server.connect_served();
    let text = read("docs/operating.md");
    let (_, block) = text.split_once("```console\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let (commands, shown): (Vec<_>, Vec<_>) = block.lines().partition(|line| line.starts_with("$ "));
    assert_eq!((commands.len(), shown.len()), (3, 3));
    for (command, shown) in commands.into_iter().zip(shown) {
        let command = command[2..].replace("127.0.0.1:8080", &admin.to_string());
        assert_eq!(finish(Command::new("sh").args(["-c", &command])).out.trim_end(), shown, "{command}");
    }
    server.stop();
}

/// The words between backticks in the first column of the table that comes after this.
fn first_column(text: &str, after: &str) -> BTreeSet<String> {
    let (_, text) = text.split_once(after).unwrap();
    let rows = text.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    rows.flat_map(|row| {
        let cell = row.split('|').nth(1).unwrap();
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
    })
    .collect()
}

fn every_event_of_the_log_is_explained() {
    let explained = first_column(&read("docs/operating.md"), "\n## The log\n");
    let known = first_column(&read("docs/architecture.md"), "\n## The log\n");
    assert_eq!(explained, known);
    // Each is written somewhere, and each that is written is there.
    let folders = ["src/server", "src/server/connection", "src/admin", "src", "src/bin"];
    let files = folders.into_iter().flat_map(|folder| fs::read_dir(path(folder)).unwrap());
    let files = files.map(|file| file.unwrap().path()).filter(|file| file.extension().is_some_and(|end| end == "rs"));
    let text = |file| fs::read_to_string(file).unwrap();
    let lines = |file| {
        let text = text(file);
        let lines = text.lines().take_while(|line| *line != "mod tests {");
        lines.filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    };
    let code: String = files.map(lines).collect();
    let logged = code.split("slog::").skip(1).filter_map(|call| {
        let (level, rest) = call.split_once("!(")?;
        let is_level = ["debug", "info", "warn", "error", "$level"].contains(&level);
        is_level.then(|| rest.split('"').nth(1).unwrap().to_owned())
    });
    assert_eq!(logged.collect::<BTreeSet<_>>(), known);
    // So is each reason of a close.
    let text = read("docs/operating.md");
    let closed = text.lines().find(|line| line.starts_with("| `connection closed` |")).unwrap();
    for reason in CloseReason::ALL {
        assert!(closed.contains(&format!("`{reason}`")), "{reason}: {closed}");
    }
}

fn every_key_is_said_to_be_in_force_when_it_is() {
    let text = read("docs/operating.md");
    let said = first_column(&text, "\n## Reload\n");
    let (mut section, mut keys) = (String::new(), BTreeSet::new());
    for line in read("settings/server.toml").lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            keys.insert(format!("{section}.{key}"));
        }
    }
    assert_eq!(said, keys);
    // A reload names those that wait for a restart, each time.
    let code = read("src/settings/reload.rs");
    let (_, waits) = code.split_once("$what!(at_restart: ").unwrap();
    let waits: BTreeSet<_> = waits.split_once(')').unwrap().0.split(", ").map(str::to_owned).collect();
    let said_to_wait = keys.into_iter().filter(|key| text.contains(&format!("| `{key}` | after a restart |")));
    assert_eq!(said_to_wait.collect::<BTreeSet<_>>(), waits);
}
