//! The containers, driven through `docker compose` on a real engine. The tests build every image. Each test starts from nothing and
//! leaves nothing. Where no engine answers, the tests are reported as ignored.

mod common;
mod docker;

use common::{PATIENCE, Records, finish, get, number, tests};
use docker::{BUILD, COMPOSE, Checkout, Running, build, docker as run, inspect, must};
use serde_json::{Value, json};
use std::{
    collections::HashSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Command, ExitCode},
};

const SERVER: &str = "echo-server-1";

fn main() -> ExitCode {
    docker::run(tests![
        images_are_one_small_static_binary_for_an_unprivileged_user,
        both_dockerfiles_share_the_stage_that_builds,
        one_command_runs_five_clients_with_five_ids_and_every_echo_is_verified,
        containers_have_no_privilege_no_published_port_and_settings_they_cannot_write,
        the_page_is_published_for_this_machine_alone_and_only_with_its_file,
        generated_clients_are_the_same_building_blocks,
        generated_clients_run_under_their_own_names,
        generating_anything_but_a_whole_number_of_clients_is_a_usage_error,
        the_netcat_check_succeeds_against_the_server_and_fails_when_it_is_gone,
        the_netcat_check_fails_against_servers_that_are_not_echo_servers,
        the_netcat_check_builds_its_image_if_it_is_missing,
        edited_settings_take_effect_at_the_next_up_without_a_build,
        wrong_settings_end_the_container_with_the_code_for_settings,
        a_server_stopped_under_traffic_accounts_for_every_connection,
        a_client_stopped_under_traffic_closes_every_connection,
        both_stopped_under_traffic_end_well,
        down_ends_both_well_within_its_time,
        five_measuring_clients_have_one_verdict_and_a_killed_one_is_missed,
    ])
}

// Images.

fn images_are_one_small_static_binary_for_an_unprivileged_user() {
    let checkout = Checkout::copy();
    build(&checkout);
    for program in ["echo-server", "echo-client"] {
        let image = inspect(program);
        assert!(number(&image, "Size") < 5_000_000, "{image}");
        assert_eq!(image["RootFS"]["Layers"].as_array().unwrap().len(), 1, "{image}");
        let config = &image["Config"];
        assert_eq!(config["User"], "65532:65532");
        assert_eq!(config["Entrypoint"], json!([format!("/{program}")]));
        assert_eq!(config["StopSignal"], "SIGTERM");
        let labels = &config["Labels"];
        assert_eq!(labels["org.opencontainers.image.title"], program);
        assert_eq!(labels["org.opencontainers.image.licenses"], "MIT OR Apache-2.0");
        assert!(labels["org.opencontainers.image.description"].is_string(), "{labels}");
        // It starts without any other file.
        let version = run(&["run", "--rm", "--read-only", "--network", "none", program, "--version"]);
        assert!(version.ends_with(env!("CARGO_PKG_VERSION")), "{version}");
    }
    let server = inspect("echo-server");
    assert_eq!(server["Config"]["Healthcheck"]["Test"], json!(["CMD", "/echo-server", "healthcheck"]));
}

fn both_dockerfiles_share_the_stage_that_builds() {
    let stage = |program: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("Dockerfile.{program}"));
        let text = fs::read_to_string(path).unwrap();
        let (from, to) = (text.find("FROM rust:").unwrap(), text.find("FROM scratch").unwrap());
        text[from..to].to_owned()
    };
    assert_eq!(stage("server"), stage("client"));
}

// The system.

fn one_command_runs_five_clients_with_five_ids_and_every_echo_is_verified() {
    let checkout = Checkout::copy();
    let mut up = Running::start(checkout.path(), &format!("exec {COMPOSE} up --build --scale client=5"));
    up.wait_until("all five have ended well", |lines| {
        (1..=5).all(|n| lines.iter().any(|line| line.contains(&format!("client-{n} exited with code 0"))))
    });
    up.interrupt();
    up.exit(PATIENCE);
    // All clients have ended by themselves, and the server because of Ctrl-C.
    assert_exit_codes(SERVER, 0);
    let ids: HashSet<_> = (1..=5)
        .map(|n| {
            let container = format!("echo-client-{n}");
            assert_exit_codes(&container, 0);
            let id = inspect(&container)["Config"]["Hostname"].as_str().unwrap().to_owned();
            let log = must(checkout.path(), &format!("docker logs {container}"));
            assert!(log.contains(&format!("client: {id}")), "{log}");
            assert!(log.contains("sent: 5, verified: 5, wrong: 0, lost: 0"), "{log}");
            id
        })
        .collect();
    assert_eq!(ids.len(), 5, "{ids:?}");
}

fn containers_have_no_privilege_no_published_port_and_settings_they_cannot_write() {
    let checkout = endless(1, "1s");
    let _client = up(&checkout, 1, 1);
    for container in [SERVER, "echo-client-1"] {
        let container = inspect(container);
        let host = &container["HostConfig"];
        assert_eq!(host["ReadonlyRootfs"], true);
        assert_eq!(host["CapDrop"], json!(["ALL"]));
        assert_eq!(host["SecurityOpt"], json!(["no-new-privileges:true"]));
        assert!(host["PortBindings"].as_object().is_none_or(serde_json::Map::is_empty), "{host}");
        let [mount] = &container["Mounts"].as_array().unwrap()[..] else { panic!("{container}") };
        let settings = checkout.path().join("settings");
        assert_eq!((&mount["Destination"], &mount["RW"]), (&json!("/settings"), &json!(false)));
        assert_eq!(mount["Source"], settings.to_str().unwrap());
        let networks: Vec<_> = container["NetworkSettings"]["Networks"].as_object().unwrap().keys().collect();
        assert_eq!(networks, ["echo"]);
        assert_eq!(container["Config"]["StopTimeout"], 12);
    }
    // Docker waits longer than the server's own deadline.
    let deadline = "shutdown_timeout = \"8s\"";
    assert!(fs::read_to_string(checkout.path().join("settings/server.toml")).unwrap().contains(deadline));
    // Compose started the client when the server was healthy.
    let server = inspect(SERVER);
    let health = &server["State"]["Health"];
    assert_eq!(health["Status"], "healthy");
}

fn the_page_is_published_for_this_machine_alone_and_only_with_its_file() {
    let checkout = Checkout::copy();
    let config = |files: &str| -> Value {
        serde_json::from_str(&must(checkout.path(), &format!("{COMPOSE}{files} config --format json"))).unwrap()
    };
    let (without, with) = (config(""), config(" -f compose/see.yaml"));
    for service in ["server", "client"] {
        assert_eq!(without["services"][service]["ports"], Value::Null, "{service}");
    }
    assert_eq!(with["services"]["client"]["ports"], Value::Null);
    // A free port, so that the test does not meet a reader's own server.
    let see = checkout.path().join("compose/see.yaml");
    let text = fs::read_to_string(&see).unwrap();
    assert!(text.contains("\"127.0.0.1:8080:8080\""), "{text}");
    fs::write(&see, text.replace("127.0.0.1:8080:8080", "127.0.0.1::8080")).unwrap();
    must(checkout.path(), &format!("{COMPOSE} -f compose/see.yaml up --detach --wait server"));
    let ports = inspect(SERVER)["NetworkSettings"]["Ports"]["8080/tcp"].clone();
    let [port] = &ports.as_array().unwrap()[..] else { panic!("{ports}") };
    assert_eq!(port["HostIp"], "127.0.0.1");
    let admin = format!("127.0.0.1:{}", port["HostPort"].as_str().unwrap()).parse().unwrap();
    assert!(get(admin, "/").body.contains("<title>echo-server</title>"));
    assert_eq!(
        (get(admin, "/readyz").status, inspect(SERVER)["State"]["Health"]["Status"].clone()),
        (200, json!("healthy"))
    );
}

fn generated_clients_are_the_same_building_blocks() {
    let checkout = Checkout::copy();
    let config = |command: &str| -> Value {
        let text = must(checkout.path(), &format!("{command} config --format json"));
        let mut config: Value = serde_json::from_str(&text).unwrap();
        // Compose shows the block to which others refer as it is written, so it is left out.
        config.as_object_mut().unwrap().remove("x-service");
        config
    };
    let scaled = config(COMPOSE);
    for n in [0, 1, 3] {
        let mut generated = config(&format!("sh compose/generate.sh {n} | docker compose -f -"));
        let services = generated["services"].as_object_mut().unwrap();
        for client in 1..=n {
            let mut service = services.remove(&format!("client{client}")).unwrap();
            let service = service.as_object_mut().unwrap();
            assert_eq!(service.remove("hostname"), Some(json!(format!("client{client}"))));
            let mut wanted = scaled["services"]["client"].clone();
            if client > 1 {
                // All use the image that the first one builds.
                wanted.as_object_mut().unwrap().remove("build");
            }
            assert_eq!(json!(service), wanted);
        }
        let mut rest = scaled.clone();
        rest["services"].as_object_mut().unwrap().remove("client");
        assert_eq!(generated, rest, "with {n} clients");
    }
}

fn generated_clients_run_under_their_own_names() {
    let checkout = Checkout::copy();
    must(checkout.path(), "sh compose/generate.sh 3 | docker compose -f - up --detach --build");
    for n in 1..=3 {
        let container = format!("echo-client{n}-1");
        assert_eq!(run(&["wait", &container]), "0");
        let log = must(checkout.path(), &format!("docker logs {container}"));
        assert!(log.contains(&format!("client: client{n}")), "{log}");
        assert!(log.contains("sent: 5, verified: 5, wrong: 0, lost: 0"), "{log}");
    }
    must(checkout.path(), "docker compose -p echo down");
}

fn generating_anything_but_a_whole_number_of_clients_is_a_usage_error() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("compose/generate.sh");
    for arguments in
        [&[][..], &[""], &["-1"], &["+1"], &["1.5"], &["three"], &["1 2"], &["1", "2"], &["0x10"], &["1\n"]]
    {
        let said = finish(Command::new("sh").arg(&script).args(arguments));
        assert_eq!((said.code, &*said.out), (2, ""), "{arguments:?}: {said:?}");
        assert!(said.err.starts_with("usage: "), "{arguments:?}: {said:?}");
    }
}

// The netcat check.

/// Runs the check. Gives its output and its exit code.
fn netcat_check(checkout: &Checkout) -> (String, i32) {
    let said = finish(Command::new("sh").arg(checkout.path().join("compose/netcat-check.sh")));
    (said.out, said.code)
}

fn success() -> (String, i32) {
    ("action: test_echo_server | result: success\n".into(), 0)
}

fn fail() -> (String, i32) {
    ("action: test_echo_server | result: fail\n".into(), 1)
}

fn the_netcat_check_succeeds_against_the_server_and_fails_when_it_is_gone() {
    let checkout = Checkout::copy();
    must(checkout.path(), &format!("{COMPOSE} up --detach --wait server"));
    assert_eq!(netcat_check(&checkout), success());
    must(checkout.path(), &format!("{COMPOSE} stop server"));
    assert_eq!(netcat_check(&checkout), fail());
    must(checkout.path(), &format!("{COMPOSE} down"));
    // Now there is no network either.
    assert_eq!(netcat_check(&checkout), fail());
}

fn the_netcat_check_fails_against_servers_that_are_not_echo_servers() {
    let checkout = Checkout::copy();
    build_netcat(&checkout);
    run(&["network", "create", "echo"]);
    for (name, answer) in [
        ("right", "print $c $_ while <$c>"),
        ("prefix", "print $c 'echo: ', $_ while <$c>"),
        ("suffix", "print $c $_, qq(\\n) while <$c>"),
        ("half", "print $c substr($_, 0, 20) while <$c>"),
        ("silent", "1 while <$c>; sleep 100"),
        ("deaf", "close $c"),
    ] {
        let program = format!(
            "use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalPort => 12345, Listen => 9) or die $!;
             $| = 1; print \"ready\\n\"; while (my $c = $s->accept) {{ $c->autoflush; {answer}; close $c }}"
        );
        // In the network it has the server's name.
        let on = ["--detach", "--name", name, "--network", "echo", "--network-alias", "server"];
        run(&[&["run"], &on[..], &["echo-netcat", "perl", "-e", &program]].concat());
        Running::logs(name).wait_for(1, "ready");
        let expected = if name == "right" { success() } else { fail() };
        assert_eq!(netcat_check(&checkout), expected, "a server that is {name}");
        run(&["rm", "-f", name]);
    }
}

fn build_netcat(checkout: &Checkout) {
    let mut build = Running::start(checkout.path(), "docker build -t echo-netcat - < Dockerfile.nc");
    assert!(build.exit(BUILD).success(), "{}", build.output());
}

fn the_netcat_check_builds_its_image_if_it_is_missing() {
    let checkout = Checkout::copy();
    build_netcat(&checkout);
    must(checkout.path(), &format!("{COMPOSE} up --detach --wait server"));
    // The layers stay, so that the next build is quick.
    run(&["image", "rm", "--no-prune", "echo-netcat"]);
    assert_eq!(netcat_check(&checkout), success());
    inspect("echo-netcat");
}

// Settings.

fn edited_settings_take_effect_at_the_next_up_without_a_build() {
    let checkout = Checkout::copy();
    checkout.set("client", &[("messages", "1")]);
    let images = || [SERVER, "echo-client-1"].map(|container| inspect(container)["Image"].clone());
    must(checkout.path(), &format!("{COMPOSE} up --detach"));
    assert_eq!(run(&["wait", "echo-client-1"]), "0");
    let before = images();
    must(checkout.path(), &format!("{COMPOSE} stop"));

    checkout.set("server", &[("max_connections", "7")]);
    checkout.set("client", &[("messages", "2"), ("message", "\"{n} of two from {id}\"")]);
    let said = must(checkout.path(), &format!("{COMPOSE} up --detach"));
    assert!(!said.contains("Built"), "{said}");
    assert_eq!(run(&["wait", "echo-client-1"]), "0");
    assert_eq!(images(), before);
    let log = must(checkout.path(), &format!("docker logs {SERVER}"));
    assert!(log.contains("max_connections: 1024") && log.contains("max_connections: 7,"), "{log}");
    let log = must(checkout.path(), "docker logs echo-client-1");
    assert!(log.contains("sent: 1, verified: 1") && log.contains("sent: 2, verified: 2"), "{log}");
}

fn wrong_settings_end_the_container_with_the_code_for_settings() {
    let checkout = Checkout::copy();
    checkout.set("server", &[("max_connections", "\"many\"")]);
    docker::sh(checkout.path(), &format!("{COMPOSE} up --detach")).expect_err("the server is never healthy");
    assert_exit_codes(SERVER, 78);
    let log = must(checkout.path(), &format!("docker logs {SERVER}"));
    assert!(log.contains("/settings/server.toml") && log.contains("max_connections"), "{log}");
    // The client waits for a healthy server, so it is never started.
    assert_eq!(inspect("echo-client-1")["State"]["Status"], "created");
}

// Stops.

/// A checkout in which each client has this many connections and sends without end. The server's log has a record of each.
fn endless(connections: usize, period: &str) -> Checkout {
    let checkout = Checkout::copy();
    checkout.set("server", &[("level", "\"debug\""), ("format", "\"json\"")]);
    checkout.set(
        "client",
        &[
            ("connections", &connections.to_string()),
            ("messages", "0"),
            ("period", &format!("\"{period}\"")),
            // A client whose server is gone gives up soon.
            ("connect_timeout", "\"2s\""),
            ("format", "\"json\""),
        ],
    );
    checkout
}

/// Starts the server and this many clients, and waits until every connection has had an echo. Gives the clients' logs.
fn up(checkout: &Checkout, clients: usize, connections: usize) -> Vec<Running> {
    must(checkout.path(), &format!("{COMPOSE} up --detach --scale client={clients}"));
    let follow = |n| Running::logs(&format!("echo-client-{n}"));
    let mut logs: Vec<_> = (1..=clients).map(follow).collect();
    for log in &mut logs {
        log.wait_until("an echo on each connection", |lines| {
            let echoes = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let echoes = echoes.filter(|record| record["msg"] == "echo verified");
            echoes.map(|echo| echo["connection"].as_u64().unwrap()).collect::<HashSet<_>>().len() == connections
        });
    }
    logs
}

fn assert_exit_codes(container: &str, code: i64) {
    let state = &inspect(container)["State"];
    assert_eq!((&state["Running"], &state["ExitCode"]), (&json!(false), &json!(code)), "{container}: {state}");
}

/// The log of a container, one object a line.
fn records(log: &str) -> Records {
    Records(log.lines().map(Records::read).collect())
}

/// Checks the log of a server that has ended: every connection is in it, and the sums of the stop add up.
fn assert_server_stopped_well(log: &str, connections: u64) {
    let log = records(log);
    log.assert_all_accounted_for();
    assert!(log.of("cannot refuse new connections").is_empty(), "{log:?}");
    // The health checks are connections too.
    assert_eq!(log.of("connection opened").len(), log.of("connection closed").len(), "{log:?}");
    let (stopping, stopped) = (log.one("stopping"), log.one("stopped"));
    assert_eq!(stopping["reason"], "SIGTERM");
    assert!(number(stopping, "connections") >= connections, "{stopping}");
    assert_eq!(number(stopped, "forced"), 0, "{stopped}");
    assert_eq!(number(stopped, "crashed"), 0, "{stopped}");
    assert!(number(stopped, "elapsed_ms") < number(stopping, "timeout_ms"), "{stopped}");
    let closes = log.of("connection closed").into_iter().filter(|close| close["reason"] == "stopped");
    for close in closes {
        // A client sends one line at a time, and the end splits none.
        assert_eq!(close["received"], close["echoed"], "{close}");
    }
}

/// The log of a client, without the report that follows it.
fn client_records(log: &str) -> Records {
    let lines: Vec<_> = log.lines().filter(|line| line.starts_with('{')).collect();
    records(&lines.join("\n"))
}

/// Checks the log of a client that has been stopped: every connection is closed in it.
fn assert_client_stopped_well(log: &str, connections: usize) {
    let log = client_records(log);
    assert_eq!(log.one("stopping")["reason"], "SIGTERM");
    let closed: HashSet<_> = log.of("connection closed").iter().map(|close| close["connection"].as_u64()).collect();
    assert_eq!(closed.len(), connections, "{log:?}");
    let finished = log.one("finished");
    assert_eq!((&finished["wrong"], &finished["lost"]), (&json!(0), &json!(0)), "{finished}");
    assert_eq!(finished["sent"], finished["verified"], "{finished}");
}

fn a_server_stopped_under_traffic_accounts_for_every_connection() {
    let checkout = endless(10, "5ms");
    let _clients = up(&checkout, 2, 10);
    run(&["stop", SERVER]);
    assert_exit_codes(SERVER, 0);
    assert_server_stopped_well(&must(checkout.path(), &format!("docker logs {SERVER}")), 20);
}

fn a_client_stopped_under_traffic_closes_every_connection() {
    let checkout = endless(10, "5ms");
    let _clients = up(&checkout, 2, 10);
    run(&["stop", "echo-client-2"]);
    assert_exit_codes("echo-client-2", 0);
    assert_client_stopped_well(&must(checkout.path(), "docker logs echo-client-2"), 10);
    // The server and the other client go on.
    for container in [SERVER, "echo-client-1"] {
        assert_eq!(inspect(container)["State"]["Running"], true, "{container}");
    }
    run(&["stop", "echo-client-1"]);
    assert_exit_codes("echo-client-1", 0);
    assert_client_stopped_well(&must(checkout.path(), "docker logs echo-client-1"), 10);
}

fn both_stopped_under_traffic_end_well() {
    let checkout = endless(10, "5ms");
    let _clients = up(&checkout, 2, 10);
    // All three at the same time.
    run(&["stop", SERVER, "echo-client-1", "echo-client-2"]);
    assert_exit_codes(SERVER, 0);
    assert_server_stopped_well(&must(checkout.path(), &format!("docker logs {SERVER}")), 0);
    for client in ["echo-client-1", "echo-client-2"] {
        // A message may have come after the server's input had ended. Its client counts it as lost. No echo is wrong.
        let log = client_records(&must(checkout.path(), &format!("docker logs {client}")));
        let finished = log.one("finished");
        assert_eq!(finished["wrong"], 0, "{finished}");
        assert_exit_codes(client, i64::from(number(finished, "lost") > 0));
    }
}

fn down_ends_both_well_within_its_time() {
    let checkout = endless(10, "5ms");
    let mut clients = up(&checkout, 2, 10);
    // `down` removes the containers. So their logs are followed to the end, and the engine's events tell the exit codes.
    let mut server = Running::logs(SERVER);
    let started = inspect(SERVER)["State"]["StartedAt"].as_str().unwrap().to_owned();
    must(checkout.path(), &format!("{COMPOSE} down -t 5"));
    let now = run(&["info", "--format", "{{.SystemTime}}"]);
    let deaths = [
        "events",
        "--since",
        &started,
        "--until",
        &now,
        "--filter",
        "event=die",
        "--filter",
        "label=com.docker.compose.project=echo",
    ];
    let format = ["--format", "{{.Actor.Attributes.name}} {{.Actor.Attributes.exitCode}}"];
    let deaths = run(&[&deaths[..], &format].concat());
    let deaths: HashSet<_> = deaths.lines().collect();
    assert_eq!(deaths, HashSet::from(["echo-server-1 0", "echo-client-1 0", "echo-client-2 0"]));
    server.exit(PATIENCE);
    assert_server_stopped_well(&server.output(), 0);
    for client in &mut clients {
        client.exit(PATIENCE);
        assert_client_stopped_well(&client.output(), 10);
    }
    assert_eq!(run(&["ps", "-aq", "--filter", "network=echo"]), "");
    assert_eq!(run(&["network", "ls", "-q", "--filter", "name=^echo$"]), "");
}

// Measuring.

fn five_measuring_clients_have_one_verdict_and_a_killed_one_is_missed() {
    let checkout = Checkout::copy();
    checkout.set("client", &[("rate", "\"100/s\""), ("messages", "0"), ("duration", "\"5s\""), ("level", "\"warn\"")]);
    build(&checkout);
    let measured = finish(
        Command::new("sh")
            .args(["compose/measure.sh", "5", "--fail-if", "lost > 0", "--save", "all.json"])
            .current_dir(checkout.path()),
    );
    assert_eq!(measured.code, 0, "{measured:?}");
    assert!(measured.out.starts_with("client      5 clients\nsent        2500\nverified    2500\n"), "{measured:?}");
    for saved in ["all.json", "report.html"] {
        let owner = |path: &Path| fs::metadata(path).unwrap().uid();
        assert_eq!(owner(&checkout.path().join(saved)), owner(checkout.path()), "{saved}");
    }
    let page = || fs::read_to_string(checkout.path().join("report.html")).unwrap();
    assert!(page().contains("data-verdict=passed"), "{}", page());

    checkout.set("client", &[("duration", "\"10s\"")]);
    let mut measure = Running::start(checkout.path(), "exec sh compose/measure.sh 5 --baseline all.json");
    measure.wait_until("all five run", |lines| {
        (1..=5).all(|n| {
            lines.iter().any(|line| {
                line.contains(&format!("client-{n} Started")) || line.contains(&format!("client-{n}  Started"))
            })
        })
    });
    run(&["kill", "echo-client-3"]);
    let status = measure.exit(PATIENCE);
    assert_eq!(status.code(), Some(1), "{}", measure.output());
    let output = measure.output();
    assert!(output.lines().any(|line| line == "missing     1 of 5 reports"), "{output}");
    assert!(output.lines().any(|line| line.split_whitespace().eq(["baseline", "now"])), "{output}");
    assert!(page().contains("data-verdict=failed"), "{}", page());

    for wrong in ["", "0", "five", "-1"] {
        let usage = finish(Command::new("sh").args(["compose/measure.sh", wrong]).current_dir(checkout.path()));
        assert_eq!((usage.code, &*usage.out), (2, ""), "{usage:?}");
    }
}
