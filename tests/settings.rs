//! The settings as a user meets them: files, variables and flags of the built program, its one line and its exit code.
use std::{
    fs,
    io::{self, Write},
    os::unix::process::ExitStatusExt,
    process::Command,
    thread,
    time::{Duration, Instant},
};

mod common;

use common::*;
use std::path::Path;

/// What a program without any layer but the built-in one has in force: its keys with their values, as flags take them.
fn defaults(program: &str) -> Vec<(String, String)> {
    let Finished { code, out: printed, err } = finish(command(program).arg("--print-settings"));
    assert_eq!((code, err.as_str()), (0, ""));
    let mut section = "";
    let mut keys = Vec::new();
    for line in printed.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
        } else if let Some((key, value)) = line.strip_suffix(" # default").and_then(|line| line.split_once(" = ")) {
            keys.push((format!("{section}.{key}"), value.trim_matches('"').to_owned()));
        }
    }
    keys
}

/// The program runs in it, so files are named as a user would.
impl Place {
    /// Runs the server with these variables and no other ECHO_ ones.
    fn run(&self, variables: &[(&str, &str)], args: &[&str]) -> Finished {
        finish(command(SERVER).current_dir(self.path()).envs(variables.iter().copied()).args(args))
    }

    /// As `run`, but bounded in time and memory, with an open standard input.
    fn run_bounded(&self, args: &[&str]) -> Finished {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -v 1000000 && exec timeout -s KILL 20 \"$0\" \"$@\"", SERVER]);
        let (stdin, _open) = io::pipe().unwrap();
        finish_with(shell.current_dir(self.path()).args(args), stdin)
    }

    /// What is wrong with the settings: one line on standard error, nothing on standard output, exit code 78.
    fn refusal(&self, variables: &[(&str, &str)], args: &[&str]) -> String {
        let run = self.run(variables, &[args, &["--check-settings"]].concat());
        assert_eq!((run.code, run.out.as_str()), (78, ""), "{}", run.err);
        let line = run.err.strip_prefix("echo-server: ").and_then(|line| line.strip_suffix('\n'));
        let line = line.unwrap_or_else(|| panic!("{:?}", run.err));
        assert!(!line.contains('\n'), "{line}");
        line.to_owned()
    }

    /// As `refusal`, of a file with this content.
    fn file_refusal(self, content: &str) -> String {
        let line = self.with("server.toml", content).refusal(&[], &["--settings", "server.toml"]);
        line.strip_prefix("server.toml: ").unwrap_or_else(|| panic!("{line}")).to_owned()
    }
}

/// Asks until it is so: for what has no event.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "not so: {what}");
        thread::yield_now();
    }
}

#[test]
fn an_unknown_key_is_refused_with_the_known_ones() {
    let line = Place::new("unknown").file_refusal("[supervisor]\nmax_conections = 1\n");
    assert!(line.starts_with("supervisor: unknown field `max_conections`, expected one of `workers`, "), "{line}");
    assert!(line.contains("`max_connections`"), "{line}");
}

#[test]
fn an_unknown_section_is_refused_with_the_known_ones() {
    let line = Place::new("section").file_refusal("[listner]\naddress = \"0.0.0.0:1\"\n");
    assert_eq!(
        line,
        "unknown field `listner`, expected one of `listen`, `supervisor`, `connection`, `admin`, `fault`, `log`"
    );
}

#[test]
fn a_section_replaced_by_a_value_is_refused() {
    let line = Place::new("replaced").file_refusal("listen = 5\n");
    assert_eq!(line, "listen: invalid type: integer `5`, expected a section of keys");
}

#[test]
fn a_value_of_a_wrong_type_is_refused_with_the_right_one() {
    for value in ["\"off\"", "\"10\"", "true", "10.0", "[10]"] {
        let line = Place::new("type").file_refusal(&format!("[supervisor]\nmax_connections = {value}\n"));
        assert!(line.starts_with("supervisor.max_connections: invalid "), "{line}");
        assert!(line.ends_with(", expected an integer from 1 to 1000000"), "{line}");
    }
}

#[test]
fn no_key_takes_a_value_of_another_kind() {
    for program in [SERVER, CLIENT] {
        for (key, default) in defaults(program) {
            let (section, name) = key.split_once('.').unwrap();
            let other = if default.parse::<f64>().is_ok() { "\"1\"" } else { "1" };
            let place = Place::new("kind").with("a.toml", format!("[{section}]\n{name} = {other}\n"));
            let run =
                finish(command(program).current_dir(place.path()).args(["--settings", "a.toml", "--check-settings"]));
            assert_eq!((run.code, run.err.contains(&format!(" {key}: invalid "))), (78, true), "{key}: {run:?}");
        }
    }
}

#[test]
fn a_value_out_of_range_is_refused_with_the_range() {
    for value in ["0", "-1", "1000001"] {
        let line = Place::new("range").file_refusal(&format!("[supervisor]\nmax_connections = {value}\n"));
        let expected = format!("integer `{value}`, expected an integer from 1 to 1000000");
        assert_eq!(line, format!("supervisor.max_connections: invalid value: {expected}"));
    }
}

#[test]
fn a_duration_needs_its_unit() {
    let line = Place::new("unit").file_refusal("[supervisor]\nshutdown_timeout = 10\n");
    assert!(line.starts_with("supervisor.shutdown_timeout: "), "{line}");
    assert!(line.contains("expected a duration such as \"10s\""), "{line}");
}

#[test]
fn a_file_that_is_not_toml_is_refused_with_the_line() {
    let line = Place::new("toml").file_refusal("[listen]\naddress 0.0.0.0\n");
    assert!(line.starts_with("TOML parse error at line 2, column 9: "), "{line}");
}

#[test]
fn a_file_that_is_not_utf8_is_refused_with_the_line() {
    let place = Place::new("utf8").with("server.toml", b"[client]\nid = \"\xff\"\n");
    let line = place.refusal(&[], &["--settings", "server.toml"]);
    assert_eq!(line, "server.toml: line 2 is not UTF-8, expected TOML");
}

#[test]
fn a_missing_file_is_refused_by_either_name() {
    let place = Place::new("missing");
    let expected = "no/such.toml: No such file or directory (os error 2), expected a readable TOML file";
    assert_eq!(place.refusal(&[], &["--settings", "no/such.toml"]), expected);
    assert_eq!(place.refusal(&[("ECHO_SERVER_SETTINGS", "no/such.toml")], &[]), expected);
}

#[test]
fn a_directory_in_place_of_the_file_is_refused_with_the_likely_cause() {
    let line = Place::new("directory").refusal(&[], &["--settings", "."]);
    assert_eq!(line, ".: is a directory, expected a TOML file; did the mount source exist?");
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let place = Place::new("fifo");
    assert!(Command::new("mkfifo").arg(place.path().join("fifo")).status().unwrap().success());
    for file in ["fifo", "/dev/zero", "/dev/null", "/dev/stdin"] {
        for args in [&["--settings", file][..], &["--settings", file, "--check-settings"]] {
            let run = place.run_bounded(args);
            let line = format!("echo-server: {file}: is not a regular file, expected a TOML file\n");
            assert_eq!((run.code, run.out.as_str(), run.err), (78, "", line));
        }
    }
}

#[test]
fn a_file_too_large_for_settings_is_refused_and_one_that_just_fits_is_read() {
    let lines = |bytes: usize| "#234567\n".repeat(bytes / 8);
    let place = Place::new("large").with("fits.toml", lines(1 << 20)).with("large.toml", lines((1 << 20) + 8));
    assert_eq!(place.run(&[], &["--settings", "fits.toml", "--check-settings"]).code, 0);
    let line = place.refusal(&[], &["--settings", "large.toml"]);
    assert_eq!(line, "large.toml: is larger than 1 MiB, expected a TOML file");
}

#[test]
fn a_signal_ends_it_though_the_settings_that_it_prints_are_not_read() {
    let (_reader, mut writer) = io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while writer.write(&[b'x'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    let mut child =
        Command::new(env!("CARGO_BIN_EXE_echo-server")).arg("--print-settings").stdout(writer).spawn().unwrap();
    let call = format!("{} 0x1 ", libc::SYS_write);
    wait_until("it writes", || fs::read_to_string(format!("/proc/{}/syscall", child.id())).unwrap().starts_with(&call));
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let mut end = None;
    wait_until("it ends", || {
        end = child.try_wait().unwrap();
        end.is_some()
    });
    assert_eq!(end.and_then(|status| status.signal()), Some(libc::SIGTERM));
}

#[test]
fn a_bad_variable_is_refused_by_its_name() {
    let line = Place::new("variable").refusal(&[("ECHO_SERVER_SUPERVISOR__WORKERS", "off")], &[]);
    let expected = "supervisor.workers: invalid value: string \"off\", expected an integer from 0 to 1024";
    assert_eq!(line, format!("environment ECHO_SERVER_SUPERVISOR__WORKERS: {expected}"));
}

#[test]
fn an_unknown_variable_is_refused_with_the_known_keys() {
    let line = Place::new("misspelt").refusal(&[("ECHO_SERVER_SUPERVISOR__MAX_CONECTIONS", "1")], &[]);
    assert!(line.starts_with("environment ECHO_SERVER_SUPERVISOR__MAX_CONECTIONS: supervisor: "), "{line}");
    assert!(line.contains("`max_connections`"), "{line}");
}

#[test]
fn a_bad_flag_is_refused_by_its_name() {
    let place = Place::new("flag");
    for (flag, value, expected) in [
        ("--listen", "localhost:1", "listen.address: invalid value: string \"localhost:1\", expected an IP address"),
        (
            "--max-connections",
            "0",
            "supervisor.max_connections: invalid value: integer `0`, expected an integer from 1",
        ),
        (
            "--max-connections",
            "-1",
            "supervisor.max_connections: invalid value: integer `-1`, expected an integer from",
        ),
        ("--admin", "8080", "admin.address: invalid value: string \"8080\", expected an IP address and a port such as"),
        ("--log-level", "loud", "log.level: invalid value: string \"loud\", expected critical, error, warn, info,"),
        ("--log-format", "", "log.format: invalid value: string \"\", expected auto, compact or json"),
    ] {
        let line = place.refusal(&[], &[flag, value]);
        assert!(line.starts_with(&format!("{flag}: {expected}")), "{line}");
    }
}

#[test]
fn bad_settings_are_refused_by_every_command() {
    let place = Place::new("every-command").with("server.toml", "[log]\nlevel = 1\n");
    for args in [&["--print-settings"][..], &["healthcheck"], &[]] {
        let run = place.run(&[("ECHO_SERVER_SETTINGS", "server.toml")], args);
        assert_eq!((run.code, run.out.as_str()), (78, ""), "{args:?}");
        assert!(run.err.starts_with("echo-server: server.toml: log.level: "), "{}", run.err);
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    let place = Place::new("usage");
    for args in [&["--port", "1"][..], &["serve"], &["--listen"], &["healthcheck", "nowhere"]] {
        assert_eq!(place.run(&[], args).code, 2, "{args:?}");
    }
}

#[test]
fn good_settings_are_checked_in_silence() {
    let place = Place::new("silence").with("server.toml", "[listen]\naddress = \"[::]:0\"\n");
    for args in [&["--check-settings"][..], &["--check-settings", "--settings", "server.toml", "--listen", "[::1]:7"]] {
        let run = place.run(&[], args);
        assert_eq!((run.code, run.out.as_str(), run.err.as_str()), (0, "", ""));
    }
}

#[test]
fn a_stop_that_would_always_be_forced_is_allowed_with_a_warning_that_says_so() {
    let place = Place::new("forced");
    let settling = "the 1s 500ms that a stop may wait for handshakes: a stop resets clients that come last or do not end their \
                    connections by then, and exits with 3";
    let linger =
        "connection.linger, 10s: a stop resets clients that do not end their connections by then, and exits with 3";
    for (timeout, than) in [("0s", Some(settling)), ("1s 499ms", Some(settling)), ("9s", Some(linger)), ("10s", None)] {
        let variables =
            [("ECHO_SERVER_SUPERVISOR__SHUTDOWN_TIMEOUT", timeout), ("ECHO_SERVER_CONNECTION__LINGER", "10s")];
        let run = place.run(&variables, &["--check-settings"]);
        let warning =
            |than| format!("echo-server: warning: supervisor.shutdown_timeout, {timeout}, is shorter than {than}\n");
        assert_eq!((run.code, run.out.as_str(), run.err), (0, "", than.map(warning).unwrap_or_default()));
    }
}

#[test]
fn kubernetes_and_empty_variables_do_no_harm() {
    let variables = [
        ("ECHO_SERVER_PORT", "tcp://10.0.0.1:12345"),
        ("ECHO_SERVER_PORT_12345_TCP_ADDR", "10.0.0.1"),
        ("ECHO_SERVER_SERVICE_HOST", "10.0.0.1"),
        ("ECHO_SERVER_SUPERVISOR__WORKERS", ""),
        ("ECHO_SERVER_SETTINGS", ""),
    ];
    let place = Place::new("kubernetes");
    let run = place.run(&variables, &["--print-settings"]);
    assert_eq!(run.out, place.run(&[], &["--print-settings"]).out, "{}", run.err);
    assert_eq!(run.code, 0);
}

#[test]
fn each_layer_wins_over_those_below_and_is_named_as_the_origin() {
    let file = "[supervisor]\nmax_pending = 1\n[log]\nlevel = \"warn\"\nformat = \"json\"\n[listen]\nbacklog = 1\n[fault]\nwrong = 0.25\n";
    let variables = [
        ("ECHO_SERVER_LOG__LEVEL", "debug"),
        ("ECHO_SERVER_LOG__FORMAT", "compact"),
        ("ECHO_SERVER_ADMIN__HOSTS", "a.example, b"),
        ("ECHO_SERVER_FAULT__CRASH", "1"),
    ];
    let args = ["--settings", "server.toml", "--log-format", "auto", "--admin", "127.0.0.1:8080", "--print-settings"];
    let run = Place::new("layers").with("server.toml", file).run(&variables, &args);
    for line in [
        "max_connections = 1024 # default",
        "backlog = 1 # server.toml",
        "max_pending = 1 # server.toml",
        "level = \"debug\" # environment ECHO_SERVER_LOG__LEVEL",
        "address = \"127.0.0.1:8080\" # --admin",
        "wrong = 0.25 # server.toml",
        "crash = 1.0 # environment ECHO_SERVER_FAULT__CRASH",
        "hosts = [\"a.example\", \"b\"] # environment ECHO_SERVER_ADMIN__HOSTS",
        "format = \"auto\" # --log-format",
    ] {
        assert!(run.out.lines().any(|printed| printed == line), "{line} in {}", run.out);
    }
}

#[test]
fn the_flag_for_the_file_wins_over_the_variable() {
    let place = Place::new("file").with("a.toml", "[listen]\nbacklog = 1\n").with("b.toml", "[listen]\nbacklog = 2\n");
    let run = place.run(&[("ECHO_SERVER_SETTINGS", "a.toml")], &["--settings", "b.toml", "--print-settings"]);
    assert!(run.out.contains("backlog = 2 # b.toml\n"), "{}", run.out);
}

#[test]
fn printed_settings_can_be_loaded_again() {
    let place = Place::new("again");
    let first = place.run(&[("ECHO_SERVER_CONNECTION__LINGER", "2s")], &["--print-settings", "--listen", "[::1]:7"]);
    let place = place.with("printed.toml", &first.out);
    let second = place.run(&[], &["--print-settings", "--settings", "printed.toml"]);
    let values = |text: &str| text.lines().map(|line| line.split(" # ").next().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(values(&second.out), values(&first.out));
    assert_eq!(second.out.matches(" # printed.toml\n").count(), defaults(SERVER).len());
}

#[test]
fn the_files_to_edit_load_and_name_every_key() {
    for (program, name) in [(SERVER, "server"), (CLIENT, "client")] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("settings/{name}.toml"));
        let run = finish(command(program).arg("--settings").arg(file).arg("--print-settings"));
        assert_eq!((run.code, run.err.as_str()), (0, ""));
        let missing: Vec<_> = run.out.lines().filter(|line| line.ends_with(" # default")).collect();
        assert!(missing.is_empty() && run.out.contains("[log]\n"), "not in {name}.toml: {missing:?}");
    }
}

#[test]
fn the_readme_shows_the_default_of_every_key_of_the_server() {
    let readme = include_str!("../README.md").replace("`\"", "`").replace("\"`", "`");
    for (key, default) in defaults(SERVER) {
        assert!(readme.contains(&format!("| `{key}` | `{default}` | ")), "{key} = {default}");
    }
}

#[test]
fn help_shows_the_default_of_each_flag_out_of_the_built_in_settings() {
    for (program, flags) in [
        (
            SERVER,
            &[
                ("listen", "listen.address"),
                ("max-connections", "supervisor.max_connections"),
                ("log-level", "log.level"),
                ("log-format", "log.format"),
            ][..],
        ),
        (
            CLIENT,
            &[
                ("server", "server.address"),
                ("connections", "traffic.connections"),
                ("messages", "traffic.messages"),
                ("duration", "traffic.duration"),
                ("period", "traffic.period"),
                ("message", "traffic.message"),
                ("timeout", "traffic.timeout"),
                ("rate", "traffic.rate"),
                ("pipeline", "traffic.pipeline"),
                ("warmup", "traffic.warmup"),
                ("size", "traffic.size"),
                ("renew", "traffic.renew"),
                ("resend", "traffic.resend"),
                ("connect-timeout", "server.connect_timeout"),
                ("log-level", "log.level"),
                ("log-format", "log.format"),
            ],
        ),
    ] {
        let defaults = defaults(program);
        let help = finish(command(program).arg("--help")).out;
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for (flag, key) in flags {
            let (_, default) = defaults.iter().find(|(name, _)| name == key).unwrap();
            let (_, of_flag) = help.split_once(&format!("--{flag} <")).unwrap();
            let of_flag = of_flag.split(" --").next().unwrap();
            let quoted = if default.contains(' ') { format!("{default:?}") } else { default.clone() };
            assert!(of_flag.contains(&format!("[default: {quoted}]")), "--{flag}: {of_flag}");
        }
    }
}

#[test]
fn a_default_that_help_shows_counts_as_given_only_if_it_is_typed() {
    let place = Place::new("typed").with("server.toml", "[supervisor]\nmax_connections = 7\n[log]\nlevel = \"warn\"\n");
    let args = ["--settings", "server.toml", "--log-level", "info", "--print-settings"];
    let run = place.run(&[], &args);
    for line in ["max_connections = 7 # server.toml", "level = \"info\" # --log-level"] {
        assert!(run.out.lines().any(|printed| printed == line), "{line} in {}", run.out);
    }
}

#[test]
fn help_and_version_are_everywhere() {
    let place = Place::new("help");
    for args in [&["--help"][..], &["-h"], &["healthcheck", "--help"], &["help", "healthcheck"]] {
        let run = place.run(&[], args);
        assert_eq!(run.code, 0, "{args:?}");
        assert!(run.out.contains("--settings <FILE>"), "{}", run.out);
    }
    for args in [&["--version"][..], &["-V"], &["healthcheck", "--version"]] {
        let run = place.run(&[], args);
        assert_eq!(run.code, 0, "{args:?}");
        assert!(run.out.ends_with(concat!(" ", env!("CARGO_PKG_VERSION"), "\n")), "{}", run.out);
    }
}

#[test]
fn the_healthcheck_asks_the_configured_address_and_tells_by_its_exit_code() {
    let serve = || -> Serve { Box::new(|mut stream| drop(echo(&mut stream))) };
    let server = Scripted::start(vec![serve(), serve(), serve()]);
    let address = server.address.to_string();
    let place = Place::new("health").with("server.toml", format!("[listen]\naddress = \"{address}\"\n"));
    for args in [
        &["healthcheck", &address][..],
        &["healthcheck", "--settings", "server.toml"],
        &["--listen", &address, "healthcheck"],
    ] {
        let run = place.run(&[], args);
        assert_eq!((run.code, run.out.as_str(), run.err.as_str()), (0, "", ""));
    }
    server.join();
    let run = place.run(&[], &["healthcheck", &address]);
    assert_eq!((run.code, run.out.as_str()), (1, ""));
    assert!(run.err.starts_with(&format!("echo-server: healthcheck of {address}: ")), "{}", run.err);
    assert_eq!(run.err.lines().count(), 1, "{}", run.err);
}
