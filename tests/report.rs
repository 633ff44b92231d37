//! The report of the built client in all its shapes, its limits, and the subcommand `merge`: files, flags and exit codes as a user
//! meets them.

mod common;

use common::*;
use serde_json::json;
use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
};

/// Runs a client against a real server, in the folder of `place`.
fn client_in(place: &Place, server: &Server, args: &[&str]) -> Finished {
    let mut client = command(CLIENT);
    client.current_dir(place.path()).args(["--server", &server.address.to_string(), "--log-level", "critical"]);
    client.env("ECHO_CLIENT_TRAFFIC__MESSAGES", "20").env("ECHO_CLIENT_TRAFFIC__PERIOD", "0s");
    finish(client.args(args))
}

#[test]
fn the_json_is_as_its_schema_says() {
    let (place, server) = (Place::new("report-schema"), Server::start(&[]));
    let one = ["--rate", "200/s,400/s", "--duration", "200ms", "--connections", "2", "--messages", "0"];
    for (name, args) in
        [("one.json", &one[..]), ("two.json", &[]), ("limits.json", &["--fail-if", "p99 > 1h, lost > 1%"])]
    {
        let run = client_in(&place, &server, &[args, &["--report", "json", "--save", name]].concat());
        assert_eq!((run.code, &*run.err), (0, ""));
        assert_schema("report.json", &json_of(&run.out));
        assert_eq!(fs::read_to_string(place.path().join(name)).unwrap(), run.out);
    }
    let merged = merge_in(&place, &[".", "--expect", "3", "--report", "json"]);
    assert_eq!((merged.code, &*merged.err), (0, ""));
    let merged = json_of(&merged.out);
    assert_schema("report.json", &merged);
    assert_eq!(merged["clients"].as_array().unwrap().len(), 3);
    // A report of nothing.
    let nothing = Client::run(closed_port(), &["--connect-timeout", "50ms"]);
    assert_schema("report.json", &nothing.report);
    assert_eq!(nothing.report["verdict"], "failed");
    assert_eq!(server.stop().code, Some(0));
}

#[test]
#[should_panic(expected = "report.json: /clients/0/due: -1 is less than the minimum of 0")]
fn a_report_with_less_than_nothing_due_breaks_its_schema() {
    let (place, server) = (Place::new("report-broken"), Server::start(&[]));
    assert_eq!(client_in(&place, &server, &["--save", "one.json"]).code, 0);
    let mut merged = json_of(&merge_in(&place, &["one.json", "--report", "json"]).out);
    merged["clients"][0]["due"] = json!(-1);
    assert_schema("report.json", &merged);
}

#[test]
fn the_report_tells_which_settings_were_in_force_and_who_served() {
    let server = Server::start(&[]);
    let run = Client::run(server.address, &["--connections", "3"]);
    let report = &run.report;
    assert_eq!(report["settings"]["traffic"]["connections"], 3);
    assert_eq!(report["settings"]["client"]["id"], "c-1");
    assert_eq!(
        (&report["server"], &report["version"]),
        (&json!(server.address.to_string()), &json!(env!("CARGO_PKG_VERSION")))
    );
    assert_eq!(report["servers"], json!({ server.address.to_string(): { "connections": 3, "verified": 6 } }));
    assert_eq!((&report["due"], &report["connections"]["made"]), (&json!(6), &json!(3)));
    let rows = report["timeline"]["rows"].as_array().unwrap();
    assert_eq!(rows.iter().map(|row| number(row, "verified")).sum::<u64>(), 6);
    let again = Client::run(server.address, &[]);
    assert_ne!(again.report["run"], report["run"]);
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn a_broken_limit_exits_with_4_and_stands_in_every_shape() {
    let (place, server) = (Place::new("report-limit"), Server::start(&[]));
    let limits = ["--fail-if", "p99 < 1h,lost>0"];
    let table = client_in(&place, &server, &limits);
    assert_eq!((table.code, &*table.err), (4, ""));
    assert!(table.out.contains("\nlimit       p99 < 1h: ") && table.out.contains(", broken\n"), "{}", table.out);
    assert!(table.out.contains("\nlimit       lost > 0: 0, kept\n"), "{}", table.out);
    let json = client_in(&place, &server, &[&limits[..], &["--report", "json"]].concat());
    assert_eq!((json.code, &json_of(&json.out)["verdict"]), (4, &json!("failed")));
    let html = client_in(&place, &server, &[&limits[..], &["--report", "html"]].concat());
    assert_eq!((html.code, html.out.contains("data-verdict=failed")), (4, true));
    let chart = client_in(&place, &server, &[&limits[..], &["--report", "chart"]].concat());
    assert_eq!((chart.code, chart.out.contains('█')), (4, true));
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn what_is_lost_comes_before_a_limit() {
    let server = Scripted::start(vec![Box::new(await_end), Box::new(await_end)]);
    let run = Client::run(server.address, &["--timeout", "50ms", "--fail-if", "lost > 0"]);
    server.join();
    assert_eq!((run.code, &run.report["limits"][0]["broken"]), (1, &json!(true)));
    assert_eq!(run.report["lost_by"]["timeout"], 2);
}

#[test]
fn a_wrong_limit_is_told_before_the_run_with_its_place() {
    let place = Place::new("report-wrong-limit");
    let expected = "verdict.fail_if: invalid value: string \"p99 > 5ms, lost > 5ms\", expected a count such as 10, or a share of \
                    what was due such as 0.1%, or a multiple of the baseline's such as 1.2x at character 19\n";
    for args in [&["--fail-if", "p99 > 5ms, lost > 5ms"][..], &["merge", "-", "--fail-if", "p99 > 5ms, lost > 5ms"]] {
        let run = finish(command(CLIENT).current_dir(place.path()).args(args));
        assert_eq!((run.code, &*run.out), (78, ""));
        assert_eq!(run.err, format!("echo-client: --fail-if: {expected}"));
    }
    let run = finish(command(CLIENT).args(["--fail-if", "p99 > 1.2x"]));
    assert_eq!(run.code, 78);
    assert_eq!(run.err, "echo-client: verdict.fail_if: p99 > 1.2x: a multiple needs --baseline\n");
}

#[test]
fn a_report_that_could_not_be_saved_is_told_before_the_run() {
    let address = closed_port().to_string();
    for (file, said) in [
        ("report.txt", "the name must end with .json, .html or .hlog"),
        ("no/such/report.json", "no/such is no folder"),
    ] {
        let run = said_of(&["--server", &address, "--save", file]);
        assert_eq!((run.code, &*run.out), (2, ""));
        assert!(run.err.contains(said) && run.err.contains(file), "{}", run.err);
    }
}

fn said_of(args: &[&str]) -> Finished {
    finish(command(CLIENT).args(args))
}

#[test]
fn a_report_is_saved_in_the_shape_that_its_name_ends_with() {
    let (place, server) = (Place::new("report-save"), Server::start(&[]));
    let run = client_in(&place, &server, &["--save", "a.json", "--save", "a.html", "--save", "a.hlog"]);
    assert!(run.code == 0 && run.out.starts_with("client      "), "{run:?}");
    let read = |file: &str| fs::read_to_string(place.path().join(file)).unwrap();
    assert_schema("report.json", &json_of(&read("a.json")));
    assert!(read("a.html").starts_with("<!doctype html>\n"), "{}", read("a.html"));
    assert!(read("a.hlog").contains("\nTag=round_trip,"), "{}", read("a.hlog"));
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 3);
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn a_report_is_saved_wherever_it_can_be_saved() {
    let (place, server) = (Place::new("report-save-all"), Server::start(&[]));
    // No file can be made in the first folder.
    let saves = ["--save", "/proc/no.json", "--save", "a.json"];
    let run = client_in(&place, &server, &saves);
    assert_eq!(run.code, 1);
    assert!(run.out.starts_with("client      ") && run.err.contains("cannot save /proc/no.json: "), "{run:?}");

    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut merge = command(CLIENT);
    merge.current_dir(place.path()).args(["merge", "a.json", "--save", "/proc/no.json", "--save", "b.json"]);
    assert_eq!(merge.stdout(full).output().unwrap().status.code(), Some(1));
    for file in ["a.json", "b.json"] {
        assert_schema("report.json", &json_of(&fs::read_to_string(place.path().join(file)).unwrap()));
    }
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn a_merge_counts_each_run_once_and_too_few_are_a_failure() {
    let (place, server) = (Place::new("report-merge"), Server::start(&[]));
    for name in ["a", "b"] {
        let file = format!("{name}.json");
        assert_eq!(client_in(&place, &server, &["--id", name, "--save", &file]).code, 0);
    }
    let merged = merge_in(&place, &[".", "a.json", "--expect", "2"]);
    assert_eq!((merged.code, &*merged.err), (0, ""));
    assert!(merged.out.starts_with("client      2 clients\nsent        40\nverified    40\n"), "{}", merged.out);
    assert!(merged.out.contains("\neach client verified 20 to 20, p50 "), "{}", merged.out);
    let merged = merge_in(&place, &["a.json", "b.json", "--expect", "3", "--save", "all.json"]);
    assert_eq!((merged.code, &*merged.err), (1, ""));
    assert!(merged.out.contains("\nmissing     1 of 3 reports\n"), "{}", merged.out);
    // A merge of a merge, and a limit over the whole.
    let merged = merge_in(&place, &["all.json", "a.json", "--fail-if", "verified < 41"]);
    assert_eq!(
        (merged.code, merged.out.contains("\nlimit       verified < 41: 40, broken\n")),
        (1, true),
        "{}",
        merged.out
    );
    let merged = merge_in(&place, &["a.json", "b.json", "--fail-if", "verified < 41"]);
    assert_eq!(merged.code, 4, "{merged:?}");
    assert_eq!(server.stop().code, Some(0));
}

/// Stands in for Docker: its clients have left their reports in the file `logs`, and its image is the built client. A container sees
/// the directory that is mounted, and else an empty one.
const DOCKER: &str = r#"#!/bin/sh
case $* in
    *" logs "*) cat "$PLACE/logs" ;;
    info\ *) echo "$SECURITY" ;;
    run\ *)
        mounted=nothing
        workdir=
        while [ "$1" != echo-client ]; do
            case $1 in
                --user) echo "$2" >"$PLACE/user" ;;
                --mount) mounted=${2##*target=} ;;
                --workdir) workdir=$2 ;;
            esac
            shift
        done
        shift
        [ "$workdir" = "$mounted" ] || workdir=$PLACE/container
        cd "$workdir" && exec "$CLIENT" "$@"
        ;;
esac
"#;

/// `compose/measure.sh` with one client, in `place`, where the client's log and the stand-in for Docker are.
fn measure_in(place: &Place, args: &[&str], security: &str) -> Finished {
    let path = format!("{}:{}", place.path().display(), env::var("PATH").unwrap());
    let mut measure = without_settings(Command::new("sh"));
    measure.env("PATH", &path).env("PLACE", place.path()).env("CLIENT", CLIENT).env("SECURITY", security);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/compose/measure.sh");
    finish(measure.current_dir(place.path()).args([script, "1"]).args(args))
}

/// A place for `measure_in`, after a client has measured.
fn measured(name: &str) -> Place {
    let (place, server) = (Place::new(name).with("docker", DOCKER), Server::start(&[]));
    fs::set_permissions(place.path().join("docker"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(place.path().join("container")).unwrap();
    let run = client_in(&place, &server, &["--report", "json"]);
    fs::write(place.path().join("logs"), run.out).unwrap();
    assert_eq!(server.stop().code, Some(0));
    place
}

#[test]
fn measure_leaves_a_page_whatever_the_shape_of_the_report() {
    let place = measured("report-measure");
    for (args, begins) in [
        (&[][..], "client      1 client\n"),
        (&["--fail-if", "lost > 0, p99 > 1h"], "client      1 client\n"),
        (&["--report", "json"], "{\"schema\""),
        (&["--fail-if", "lost > 0, p99 > 1h", "--report=json"], "{\"schema\""),
        (&["--report", "json", "--fail-if", "lost > 0, p99 > 1h"], "{\"schema\""),
    ] {
        let run = measure_in(&place, args, "[name=seccomp,profile=default]");
        assert_eq!((run.code, run.out.starts_with(begins)), (0, true), "{run:?}");
        let page = fs::read_to_string(place.path().join("report.html")).unwrap();
        assert!(page.contains("data-verdict=passed"), "{args:?}: {page}");
        let is_limited = args.contains(&"--fail-if");
        assert_eq!(page.contains("<p class=kept>limit lost &gt; 0: 0, kept</p>"), is_limited, "{args:?}: {page}");
    }
}

#[test]
fn measure_saves_and_reads_files_of_the_callers_directory_as_the_caller() {
    let place = measured("report-measure-files");
    let whole = format!("--save={}/copy.json", place.path().display());
    for (security, user) in [("[name=seccomp name=rootless]", "0:0\n".to_owned()), ("[name=seccomp]", id())] {
        let run = measure_in(&place, &["--save", "all.json", &whole], security);
        assert_eq!(run.code, 0, "{run:?}");
        assert_eq!(fs::read_to_string(place.path().join("user")).unwrap(), user);
    }
    let saved = |file: &str| fs::read_to_string(place.path().join(file)).unwrap();
    assert_eq!((saved("all.json"), number(&json_of(&saved("all.json")), "verified")), (saved("copy.json"), 20));
    let run = measure_in(&place, &["--baseline", "all.json", "--fail-if", "p99 > 1x"], "[]");
    assert!(run.code == 0 && run.out.contains("1.00x  same\n"), "{run:?}");
}

/// The caller, as `id` names it.
fn id() -> String {
    let part = |flag| finish(Command::new("id").arg(flag)).out.trim().to_owned();
    format!("{}:{}\n", part("-u"), part("-g"))
}

#[test]
fn measure_says_which_files_it_does_not_see_and_why_there_is_no_page() {
    let place = measured("report-measure-unseen");
    for (args, file) in [
        (&["--save", "../all.json"][..], "../all.json"),
        (&["--fail-if", "lost > 0", "--baseline=/etc/before.json"], "/etc/before.json"),
        (&["--save=a/../../all.json"], "a/../../all.json"),
    ] {
        let run = measure_in(&place, args, "[]");
        assert_eq!((run.code, &*run.out), (2, ""), "{run:?}");
        assert!(
            run.err.ends_with(&format!(": {file} is not below the directory that this is called from\n")),
            "{run:?}"
        );
    }
    fs::create_dir(place.path().join("report.html")).unwrap();
    let run = measure_in(&place, &[], "[]");
    assert_eq!((run.code, run.out.starts_with("client      1 client\n")), (1, true), "{run:?}");
    assert!(run.err.contains("echo-client: cannot save report.html: "), "{run:?}");
}

#[test]
fn reports_among_the_lines_of_logs_come_over_standard_input() {
    let (place, server) = (Place::new("report-stdin"), Server::start(&[]));
    let lines: Vec<_> = ["a", "b"]
        .map(|name| client_in(&place, &server, &["--id", name, "--report", "json"]).out)
        .into_iter()
        .flat_map(|report| ["{\"level\":\"info\",\"msg\":\"connected\"}\n".to_owned(), report, "no report\n".into()])
        .collect();
    fs::write(place.path().join("logs"), lines.concat()).unwrap();
    let mut merge = command(CLIENT);
    let stdin = fs::File::open(place.path().join("logs")).unwrap();
    let merged = finish_with(merge.args(["merge", "-", "--expect", "2", "--report", "json"]), stdin);
    assert_eq!((merged.code, number(&json_of(&merged.out), "verified")), (0, 40), "{}", merged.err);
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn what_cannot_be_merged_is_named_in_one_line() {
    let place = Place::new("report-bad")
        .with("cut.log", "first\n{\"schema\":\"echo-client/1\",\"client\n")
        .with("none.log", "text\n");
    for (args, said) in [
        (&["cut.log"][..], "echo-client: cut.log: line 2: EOF while parsing"),
        (&["no-such.json"], "echo-client: no-such.json: No such file or directory"),
        (&["none.log"], "echo-client: there is no report\n"),
    ] {
        let run = merge_in(&place, args);
        assert!(run.code == 1 && run.err.starts_with(said) && run.err.lines().count() == 1, "{run:?}");
    }
    assert_eq!(merge_in(&place, &[]).code, 2);
}

#[test]
fn a_name_under_which_a_merge_finds_nothing_is_noted() {
    let (place, server) = (Place::new("report-nothing"), Server::start(&[]));
    assert_eq!(client_in(&place, &server, &["--save", "a.json"]).code, 0);
    for folder in ["logs", "mixed"] {
        fs::create_dir(place.path().join(folder)).unwrap();
    }
    let compact =
        "2026-11-28T05:22:46.009Z INFO stopped, acknowledged: 0, forced: 0, received_total: 175, echoed_total: 175\n";
    for file in ["server.log", "logs/server.log", "mixed/server.log"] {
        fs::write(place.path().join(file), compact).unwrap();
    }
    fs::copy(place.path().join("a.json"), place.path().join("mixed/a.json")).unwrap();
    let names = ["merge", "a.json", "server.log", "logs", "mixed", "-", "./a.json"];
    let mut merge = command(CLIENT);
    let merged = finish_with(merge.current_dir(place.path()).args(names), Stdio::null());
    let nothing = |name| format!("note        {name}: no report, and no `listening` or `stopped` of a server in JSON");
    let notes: Vec<_> = merged.out.lines().filter(|line| line.starts_with("note")).collect();
    assert_eq!((merged.code, notes), (0, ["server.log", "logs", "-"].map(nothing).iter().map(|s| &**s).collect()));
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn a_baseline_stands_in_every_shape_of_the_report() {
    let (place, server) = (Place::new("report-beside"), Server::start(&[]));
    assert_eq!(client_in(&place, &server, &["--save", "before.json"]).code, 0);
    let run = client_in(&place, &server, &["--baseline", "before.json", "--report", "json", "--save", "now.html"]);
    let (before, now) = (json_of(&fs::read_to_string(place.path().join("before.json")).unwrap()), json_of(&run.out));
    assert_schema("report.json", &now);
    assert_eq!(before["baseline"], json!([]));
    let lost = json!({ "figure": "lost", "before": 0.0, "now": 0.0, "ratio": null, "same": true });
    assert_eq!((&now["baseline"][3]["before"], &now["baseline"][4]), (&json!(before["max_us"].as_f64()), &lost));
    let page = fs::read_to_string(place.path().join("now.html")).unwrap();
    assert!(page.contains("<tr><td>lost</td><td>0</td><td>0</td><td></td><td>same</td></tr>"), "{page}");
    let chart = client_in(&place, &server, &["--baseline", "before.json", "--report", "chart"]);
    assert!(chart.out.contains("\nlost                   0            0         same\n"), "{}", chart.out);
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn a_baseline_stands_beside_the_run_and_limits_are_multiples_of_it() {
    let (place, server) = (Place::new("report-baseline"), Server::start(&[]));
    assert_eq!(client_in(&place, &server, &["--save", "before.json"]).code, 0);
    let baseline = ["--baseline", "before.json"];
    let run = client_in(&place, &server, &[&baseline[..], &["--fail-if", "p99 > 1000000x, verified < 1x"]].concat());
    assert_eq!(run.code, 0, "{run:?}");
    assert!(
        run.out.contains("\n                baseline          now\nrate ") && run.out.contains("\nlost "),
        "{}",
        run.out
    );
    let run =
        client_in(&place, &server, &[&baseline[..], &["--messages", "10", "--fail-if", "verified < 1x"]].concat());
    assert_eq!(run.code, 4, "{run:?}");
    assert!(run.out.contains("\nlimit       verified < 1x: 10 (0.50x), broken\n"), "{}", run.out);
    let merged = merge_in(&place, &["before.json", "--baseline", "before.json", "--fail-if", "p99 > 1x"]);
    assert_eq!((merged.code, merged.out.contains("1.00x  same\n")), (0, true), "{merged:?}");
    fs::write(place.path().join("none.json"), "{}").unwrap();
    let run = client_in(&place, &server, &["--baseline", "none.json"]);
    assert_eq!((run.code, &*run.err), (1, "echo-client: none.json: expected one report, found 0\n"));
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn a_reader_that_has_gone_is_no_failure_of_a_merge() {
    let (place, server) = (Place::new("report-pipe"), Server::start(&[]));
    assert_eq!(client_in(&place, &server, &["--save", "a.json"]).code, 0);
    let mut merge = command(CLIENT);
    let mut child = merge.current_dir(place.path()).args(["merge", "a.json"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(server.stop().code, Some(0));
}

/// Runs the client for 3.5 s on a terminal of so many columns. `script` is the terminal for what it runs.
fn on_terminal(columns: u16, server: &Server, flags: &str) -> Finished {
    let run = format!("stty cols {columns} && exec {}", for_a_while(server, flags));
    let mut terminal = without_settings(Command::new("script"));
    finish(terminal.env("NO_COLOR", "1").args(["--quiet", "--return", "--command", &run, "/dev/null"]))
}

fn for_a_while(server: &Server, flags: &str) -> String {
    format!("{CLIENT} --server {} --rate 100/s --duration 3500ms --messages 0 {flags}", server.address)
}

#[test]
fn progress_is_shown_on_a_terminal_and_nowhere_else() {
    let server = Server::start(&[]);
    let shown = on_terminal(80, &server, "--log-level warn");
    assert_eq!(shown.code, 0, "{shown:?}");
    assert!(
        shown.out.contains("\r2 s  ") && shown.out.contains("  lost 0  p99 ") && shown.out.contains(" s left\u{1b}[K"),
        "{shown:?}"
    );
    let (_, report) = shown.out.rsplit_once("\r\u{1b}[K").unwrap();
    assert!(report.starts_with("client      "), "{shown:?}");
    let silent = finish(without_settings(Command::new("sh")).args(["-c", &for_a_while(&server, "--log-level warn")]));
    assert_eq!((silent.code, &*silent.err), (0, ""));
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn progress_stays_below_the_records_of_the_log() {
    let server = Server::start(&[("fault.wrong", "0.1")]);
    for (flags, begins) in [("--log-format auto", "20"), ("--log-level warn --log-format json", "{\"ts\"")] {
        let shown = on_terminal(80, &server, flags);
        assert_eq!(shown.code, 1, "{shown:?}");
        // What was on each line of the terminal when the next one began.
        let lines: Vec<_> = shown.out.split('\n').map(|line| line.rsplit("\u{1b}[K").next().unwrap()).collect();
        let records: Vec<_> = lines.iter().filter(|line| line.contains("echo wrong")).collect();
        assert!(records.len() >= 34 && records.iter().all(|line| line.starts_with(begins)), "{shown:?}");
        let below = shown.out.lines().filter(|line| line.starts_with("\r2 s  ") && line.contains("\r\u{1b}[K"));
        assert!(below.count() > 1, "{shown:?}");
    }
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn progress_is_cut_to_the_width_of_the_terminal() {
    let server = Server::start(&[]);
    let shown = on_terminal(20, &server, "--log-level warn");
    let progress: Vec<_> = shown.out.split("\u{1b}[K").filter_map(|drawn| Some(drawn.rsplit_once('\r')?.1)).collect();
    assert!(progress.iter().any(|text| text.starts_with("2 s  ")), "{shown:?}");
    assert!(progress.iter().all(|text| text.len() < 20), "{progress:?}");
    assert_eq!((shown.code, server.stop().code), (0, Some(0)));
}
