//! The live page in a real browser. Where there is no Chromium, or no driver for it, the tests are reported as ignored.

mod browser;
mod common;

use browser::Browser;
use common::*;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    env, fs, io,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::ExitCode,
    sync::{
        LazyLock,
        mpsc::{Receiver, channel},
    },
    thread,
};
use supervised_echo::{Service, Socket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Cells of connections, and not those of the legend or empty seats.
const CELL: &str = ".worker .cell:not([data-state=free])";

fn main() -> ExitCode {
    static OBSTACLE: LazyLock<Option<String>> = LazyLock::new(browser::obstacle);
    let tests = tests![
        the_page_loads_without_a_message_on_the_console,
        a_full_house_is_shown_with_those_that_wait,
        a_crash_is_shown_in_its_cell_then_in_the_count_and_the_others_go_on,
        a_reload_is_shown_as_it_is_in_force,
        a_stop_of_a_thousand_connections_is_shown_to_its_report_and_again_in_the_replay,
        a_stop_that_the_deadline_ends_shows_who_was_forced,
        a_server_that_is_killed_is_lost_until_there_is_another_one,
        the_page_is_dark_for_a_reader_who_wants_it_dark_and_can_be_read_in_both,
        every_cell_has_a_name_for_a_screen_reader,
        a_cell_shows_its_connection_at_a_click_and_at_a_key,
        the_age_of_a_connection_counts_from_its_opening_in_every_state,
        the_list_shows_all_connections_page_by_page,
        a_list_that_fills_one_page_has_no_next_one,
        what_the_changes_of_a_stop_leave_out_comes_with_the_sums,
        of_more_than_512_connections_of_a_worker_the_rest_is_counted,
        a_phone_needs_no_scrolling_sideways,
        for_a_reader_who_wants_less_motion_nothing_moves,
        the_picture_in_the_readme_is_of_this_page,
        the_report_of_a_client_is_a_page_of_its_own_light_dark_and_printed,
        a_merge_of_clients_with_steps_and_outages_is_a_page_of_its_own_light_dark_and_printed,
    ];
    // A browser keeps a machine busy.
    run_in_turn(tests.into_iter().map(|(name, test)| trial(name, || OBSTACLE.clone(), test)))
}

/// The built server with an Admin, and the page of it.
fn start(settings: &[(&str, &str)]) -> (Server, Browser) {
    let (server, admin) = start_admin(settings);
    (server, open(admin))
}

fn start_admin(settings: &[(&str, &str)]) -> (Server, SocketAddr) {
    let address = free_address().to_string();
    let mut server = Server::start(&[&[("admin.address", &*address), ("log.level", "debug")], settings].concat());
    let admin = server.log.wait("admin listening")["address"].as_str().unwrap().parse().unwrap();
    (server, admin)
}

fn open(admin: SocketAddr) -> Browser {
    let browser = Browser::open(admin);
    browser.until_shown("#phase", "running");
    browser
}

/// So many clients that have had an echo.
fn clients(server: &Server, count: usize) -> Vec<TcpStream> {
    let mut clients: Vec<_> = (0..count).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(round_trip);
    clients
}

/// Waits until the server has ended every one of these, and ends them too.
fn end(mut clients: Vec<TcpStream>) {
    clients.iter_mut().for_each(|client| assert!(read_to_eof(client).is_empty()));
}

fn the_page_loads_without_a_message_on_the_console() {
    let (server, page) = start(&[("supervisor.workers", "2")]);
    let client = server.connect();
    page.until_count(CELL, 1);
    page.until_shown("#echoedRate", "B"); // the sums come with the second event of their kind
    for view in ["#listView", "#treeView"] {
        page.click(view);
    }
    assert_eq!(page.text("#workers h3"), "Worker 1");
    assert_eq!(page.count(".worker"), 2);
    assert_eq!(page.run("return document.title"), "running · echo-server");
    drop(client);
    assert_eq!(server.stop().code, Some(0));
    page.until_shown("#phase", "stopped: SIGTERM, exit code 0, in ");
    assert_eq!(page.console(), Vec::<String>::new());
}

fn a_full_house_is_shown_with_those_that_wait() {
    let (mut server, page) = start(&[("supervisor.max_connections", "3"), ("supervisor.max_pending", "7")]);
    let mut served = clients(&server, 3);
    let waiting = [server.connect(), server.connect()];
    page.until_count(&format!("{CELL}[data-state=serving]"), 3);
    page.until_count(&format!("{CELL}[data-state=waiting]"), 2);
    let numbers = ["#served", "#servedOf", "#waiting", "#waitingOf"].map(|id| page.text(id));
    assert_eq!(numbers, ["3", "of 3", "2", "of 7"]);
    // The slot goes to the one that came first.
    let first = server.log.wait_of("connection waiting", &waiting[0])["connection"].clone();
    drop(served.pop());
    page.until_count(&format!("#c{first}[data-state=serving]"), 1);
    page.until_shown("#waiting", "1");
    assert_eq!(page.text("#served"), "3");
    page.until_shown("#news", &format!("connection serving, connection: {first}, peer: {}", waiting[0].name()));
}

/// Echoes; at a `!` it panics.
struct Fragile;

impl Service for Fragile {
    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        let mut bytes = [0; 64];
        loop {
            let n = socket.read(&mut bytes).await?;
            match bytes[..n].first() {
                Some(b'!') => panic!("told to"),
                Some(_) => socket.write_all(&bytes[..n]).await?,
                None => return Ok(()),
            }
        }
    }
}

fn a_crash_is_shown_in_its_cell_then_in_the_count_and_the_others_go_on() {
    let mut settings = settings();
    settings.admin.address = Some(free_address());
    let server = InProcess::start(settings, Fragile);
    let page = open(server.admin.unwrap());
    let mut clients = [connect(server.address), connect(server.address)];
    clients.iter_mut().for_each(round_trip);
    page.until_count(CELL, 2);
    // The cell stays for some seconds, which a busy machine may sleep through.
    page.run(
        "window.seen = new Set(); new MutationObserver(changes => changes.forEach(({ target }) =>
            target.dataset?.reason === 'crashed' && seen.add(target.ariaLabel))).observe(document.querySelector('#workers'),
            { subtree: true, attributes: true })",
    );
    clients[0].write_all(b"!").unwrap();
    clients[0].read(&mut [0]).unwrap_err();
    let seen = page.until("seen.size && [...seen].at(-1)");
    let peer = clients[0].name();
    assert_eq!(seen, format!("connection 1, {peer}, closed, crashed"));
    page.until_shown("#crashed", "1");
    page.until_shown("#news .crashed", &format!("connection closed, connection: 1, peer: {peer}, reason: crashed"));
    page.until_count(CELL, 1);
    round_trip(&mut clients[1]);
    assert_eq!(page.text("#served"), "1");
    let [_, survivor] = clients;
    drop(survivor);
    server.handle.stop();
    server.end();
    page.until_shown("#meaning", "crashed 1");
}

fn a_reload_is_shown_as_it_is_in_force() {
    let place = Place::new("page").with("a.toml", "supervisor.max_connections = 5\n");
    let file = place.path().join("a.toml");
    let address = free_address().to_string();
    let mut command = program(&[("admin.address", &address)]);
    command.env("ECHO_SERVER_SETTINGS", &file);
    let mut server = Server::run(command);
    let page = open(server.log.wait("admin listening")["address"].as_str().unwrap().parse().unwrap());
    page.until_shown("#servedOf", "of 5");
    fs::write(&file, "supervisor.max_connections = 6\nsupervisor.max_pending = 7\n").unwrap();
    server.signal(Signal::HUP);
    page.until_shown("#servedOf", "of 6");
    page.until_shown("#waitingOf", "of 7");
    page.until_shown("#news", "settings reloaded, changed: supervisor.max_connections,supervisor.max_pending");
}

fn a_stop_of_a_thousand_connections_is_shown_to_its_report_and_again_in_the_replay() {
    let (server, page) = start(&[("supervisor.workers", "4"), LONG_LINGER, LONG_TIMEOUT]);
    let clients = clients(&server, 1000);
    page.until_shown("#served", "1,000");
    server.signal(Signal::TERM);
    page.until_shown("#phase", "stopping: SIGTERM");
    assert_eq!((page.text("#servedName"), page.text("#timeout")), ("still open".into(), "25 s".into()));
    // All is echoed, and each connection waits for the end of its client.
    page.until_shown("#step", "finish");
    page.until_shown(".worker .end", "↓ finish");
    end(clients);
    assert_eq!(server.end().code, Some(0));
    page.until_shown("#phase", "stopped: SIGTERM, exit code 0, in ");
    let sums = || ["#acknowledged", "#owed", "#forced"].map(|id| page.text(id));
    assert_eq!(sums(), ["1,000", "1,000", "0"]);
    assert_eq!(page.text("#meaning"), "crashed 0, reset 0, failed 0, discarded 0");
    assert_eq!((page.text("#echoed"), page.text("#others")), ("11.0 kB in all".into(), "failed 0, reset 0".into()));
    let orders = "return [...document.querySelectorAll('.worker .end')].map(order => order.textContent)";
    assert_eq!(page.run(orders), json!(vec!["↑ acknowledged"; 4]));
    // All stays on the page. What is more than 512 on a Worker is counted.
    let more = "[...document.querySelectorAll('.worker > small')].map(s => +s.textContent.replace(/\\D/g, '')).reduce((a, b) => a + b)";
    let more = page.run(&format!("return {more}")).as_u64().unwrap();
    let ended = format!("{CELL}[data-reason=stopped]");
    assert_eq!((page.count(&ended), page.count(CELL)), (1000 - more, 1000 - more));
    assert_eq!(page.count(".worker[data-state=stopped]"), 4);

    // All of it at once, as a page that was hidden has it: the changes, the drawing and the layout.
    let took = page.run(
        "$.slider.value = 0;
        seek();
        const began = performance.now();
        $.slider.value = $.slider.max;
        seek();
        document.body.getBoundingClientRect();
        return performance.now() - began",
    );
    eprintln!("1,000 cells that stop at once take the page {took} ms");
    assert!(took.as_f64().unwrap() < 1000.0, "{took} ms");

    // In the replay, at its beginning.
    page.press("#slider", HOME);
    page.until_shown("#acknowledged", "0");
    assert_eq!((page.text("#phase"), page.count(&ended)), ("stopping: SIGTERM".into(), 0));
    page.click("#play");
    page.until_count("body[data-replay=playing]", 1);
    page.until("document.querySelector('#acknowledged').textContent !== '0'");
    page.click("#play");
    page.until_count("body[data-replay=paused]", 1);
    page.press("#slider", END);
    page.until_shown("#phase", "stopped: SIGTERM, exit code 0, in ");
    assert_eq!(sums(), ["1,000", "1,000", "0"]);
    assert_eq!(page.console(), Vec::<String>::new());
}

// Keys, as WebDriver names them.
const HOME: &str = "\u{e011}";
const END: &str = "\u{e010}";
const ENTER: &str = "\u{e007}";
const ESCAPE: &str = "\u{e00c}";
const RIGHT: &str = "\u{e014}";

fn a_stop_that_the_deadline_ends_shows_who_was_forced() {
    let (server, page) = start(&[LONG_LINGER, ("supervisor.shutdown_timeout", "1s")]);
    let clients = clients(&server, 3);
    page.until_count(CELL, 3);
    server.signal(Signal::TERM);
    assert_eq!(server.end().code, Some(3));
    page.until_shown("#phase", "stopped: SIGTERM, exit code 3, in ");
    assert_eq!(["#acknowledged", "#owed", "#forced"].map(|id| page.text(id)), ["0", "3", "3"]);
    assert_eq!(page.count(&format!("{CELL}[data-reason=forced]")), 3);
    drop(clients);
}

fn a_server_that_is_killed_is_lost_until_there_is_another_one() {
    let (server, admin) = start_admin(&[]);
    let page = open(admin);
    let clients = clients(&server, 3);
    page.until_count(CELL, 3);
    server.signal(Signal::KILL);
    page.until_shown("#phase", "lost: the server went without a word");
    assert_eq!(page.count(CELL), 3, "what was known last stays");
    drop((server, clients));
    let next = Server::start(&[("admin.address", &admin.to_string())]);
    page.until_shown("#phase", "running");
    page.until_count(CELL, 0);
    next.stop();
}

/// How far the texts of the page stand out from what is behind them, the least of all: 4.5 is what WCAG 2 asks for.
const LEAST_CONTRAST: &str = "
    const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
    const light = colour => {
        const [r, g, b] = numbers(colour).map(c => c / 255).map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
        return .2126 * r + .7152 * g + .0722 * b;
    };
    const behind = element => {
        const { backgroundColor } = getComputedStyle(element);
        return numbers(backgroundColor)[3] === 0 ? behind(element.parentElement) : backgroundColor;
    };
    const texts = [...document.body.querySelectorAll('*')].filter(e => e.checkVisibility() && parseFloat(getComputedStyle(e).fontSize)
        && [...e.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.textContent.trim()));
    return texts.map(e => {
        const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((a, b) => b - a);
        return { contrast: (a + .05) / (b + .05), text: e.textContent };
    }).reduce((least, one) => one.contrast < least.contrast ? one : least)";

fn the_page_is_dark_for_a_reader_who_wants_it_dark_and_can_be_read_in_both() {
    let (server, page) = start(&[("supervisor.max_connections", "2")]);
    let _served = clients(&server, 2);
    let _waiting = server.connect();
    page.until_count(CELL, 3);
    let shade = |preferred| {
        page.prefer("prefers-color-scheme", preferred);
        let least = page.run(LEAST_CONTRAST);
        assert!(least["contrast"].as_f64().unwrap() >= 4.5, "{preferred}: {least}");
        page.run("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).reduce((a, b) => +a + +b)")
    };
    let (dark, light) = (shade("dark").as_u64().unwrap(), shade("light").as_u64().unwrap());
    assert!(dark < 100 && light > 600, "{dark} {light}");
}

fn every_cell_has_a_name_for_a_screen_reader() {
    let (server, page) = start(&[("supervisor.workers", "2"), ("supervisor.max_connections", "2")]);
    let served = clients(&server, 2);
    let waiting = server.connect();
    page.until_count(CELL, 3);
    let tree = page.chromium("Accessibility.getFullAXTree", &json!({}));
    let told: Vec<_> = tree["nodes"].as_array().unwrap().iter().filter(|node| node["ignored"] == false).collect();
    let role = |node: &Value| node["role"]["value"].as_str().unwrap_or_default().to_owned();
    let name = |node: &Value| node["name"]["value"].as_str().unwrap_or_default().to_owned();
    let names = |wanted: &str| -> Vec<String> {
        told.iter().filter(|node| role(node) == wanted).map(|node| name(node)).collect()
    };
    let buttons = names("button");
    for (client, state) in [(&served[0], "serving"), (&served[1], "serving"), (&waiting, "waiting")] {
        let end = format!(", {}, {state}", client.name());
        assert!(buttons.iter().any(|name| name.starts_with("connection ") && name.ends_with(&end)), "{buttons:?}");
    }
    assert_eq!(buttons.iter().filter(|name| name.starts_with("connection ")).count(), 3);
    // Nothing that can be worked or that holds something is without a name.
    for kind in ["button", "slider", "combobox", "group", "navigation", "log", "region", "list"] {
        assert!(names(kind).iter().all(|name| !name.is_empty()), "{kind}: {:?}", names(kind));
    }
    let headings: BTreeSet<_> = names("heading").into_iter().collect();
    assert_eq!(headings, ["News", "Supervisor", "Worker 1", "Worker 2", "echo-server"].map(str::to_owned).into());
    // The phase is announced when it changes.
    assert_eq!(names("status").len(), 1, "{:?}", names("status"));
}

fn a_cell_shows_its_connection_at_a_click_and_at_a_key() {
    let (server, page) = start(&[("supervisor.workers", "1")]);
    let mut clients = clients(&server, 3);
    page.until_count(CELL, 3);
    page.click("#c2");
    page.until_count("#row:popover-open", 1);
    page.until_shown("#rowName", "Connection 2");
    page.until_shown("#fields", &clients[1].name());
    page.until_shown("#fields", "received11 B");
    // It grows while it is open.
    round_trip(&mut clients[1]);
    page.until_shown("#fields", "received22 B");
    page.press("#row button", ESCAPE);
    page.until_count("#row:popover-open", 0);
    // By keyboard alone: the arrow goes to the next cell, Enter opens it, and the focus comes back.
    page.press("#c2", RIGHT);
    page.until("document.activeElement.id === 'c3'");
    page.press("#c3", ENTER);
    page.until_shown("#rowName", "Connection 3");
    page.press("#row button", ENTER);
    page.until("document.activeElement.id === 'c3'");
    // The row tells how it ended.
    page.press("#c3", ENTER);
    drop(clients);
    page.until_shown("#fields", "closed, client");
}

fn the_age_of_a_connection_counts_from_its_opening_in_every_state() {
    let (server, page) = start(&[]);
    // The page's own functions, given what a server could say.
    let age = page.run(
        "const connection = { connection: 7, peer: '10.0.0.9:40312', state: 'waiting', since_ms: 400 };
        const worker = { worker: 1, n: 1, count: { waiting: 1, serving: 0 }, connections: [connection] };
        const tree = treeOf({ server: { uptime_ms: 1000 }, workers: [worker] });
        const change = { worker: 1, connection: 7 };
        const { tree: next } = reduce(tree, [
            { ...change, type: 'state', n: 2, state: 'serving', at_ms: 1100 },
            { ...change, type: 'closed', n: 3, reason: 'client', at_ms: 1200 },
        ]);
        row = next.workers.get(1).connections.get(7);
        drawRow();
        return document.querySelector('#fields').textContent",
    );
    assert!(age.as_str().unwrap().contains("open for600 ms"), "{age}");
    server.stop();
}

fn the_list_shows_all_connections_page_by_page() {
    let (server, page) = start(&[("supervisor.workers", "2"), ("supervisor.max_connections", "140")]);
    let clients = clients(&server, 140);
    let waiting: Vec<_> = (0..5).map(|_| server.connect()).collect();
    page.until_shown("#waiting", "5");
    page.click("#listView");
    page.until_count("#rows tr", 100);
    let row = "document.querySelector('#rows tr').innerText";
    assert!(page.run(&format!("return {row}")).as_str().unwrap().contains(&clients[0].name()));
    page.click("#next");
    page.until_count("#rows tr", 45);
    page.run("const s = document.querySelector('#inState'); s.value = '&state=waiting'; s.dispatchEvent(new Event('change', { bubbles: true }))");
    page.until_count("#rows tr", 5);
    page.until_shown("#rows", &waiting[4].name());
    page.click("#treeView");
    page.until_count(CELL, 145);
}

fn a_list_that_fills_one_page_has_no_next_one() {
    let (server, page) = start(&[]);
    let _clients = clients(&server, 100);
    page.until_count(CELL, 100);
    page.click("#listView");
    page.until_count("#rows tr", 100);
    assert_eq!(page.run("return document.querySelector('#next').disabled"), true);
}

fn what_the_changes_of_a_stop_leave_out_comes_with_the_sums() {
    let (server, page) = start(&[]);
    // The page's own functions, given what a server could say. Of three connections the first one has ended while the tree was
    // taken: after the stop was looked at, and before the Worker answered.
    let shown = page.run(
        "const stop = { reason: 'SIGTERM', since_ms: 0, timeout_ms: 9, owed: 3, taken: 0, acknowledged: 0, forced: 0 };
        const sums = acknowledged => ({ type: 'totals', admission: {}, totals: {}, stop: { ...stop, acknowledged } });
        const closed = (n, connection) => ({ type: 'closed', worker: 1, n, connection, reason: 'stopped', at_ms: 1 });
        const connections = [2, 3].map(connection => ({ connection, state: 'draining', since_ms: 0 }));
        const worker = { worker: 1, n: 1, count: { draining: 2 }, connections };
        const tree = treeOf({ server: { uptime_ms: 0 }, phase: 'stopping', totals: {}, stop, workers: [worker] });
        return [[], [sums(1)], [closed(2, 2), sums(1)], [sums(3), closed(2, 2), closed(3, 3)]].map(changes => {
            drawStop(reduce(tree, changes).tree, 0);
            return $.acknowledged.textContent;
        })",
    );
    // What the sums tell, the changes do not tell again.
    assert_eq!(shown, json!(["0", "1", "1", "3"]));
    server.stop();
}

fn of_more_than_512_connections_of_a_worker_the_rest_is_counted() {
    let (server, page) = start(&[("supervisor.workers", "1"), LONG_LINGER, LONG_TIMEOUT]);
    let mut clients = clients(&server, 600);
    page.until_shown("#served", "600");
    page.until_shown(".worker", "+88 more");
    assert_eq!(page.count(CELL), 512);
    // A page that comes later sees the same.
    page.run("location.reload()");
    page.until_shown(".worker", "+88 more");
    assert_eq!((page.count(CELL), page.text("#served")), (512, "600".into()));
    clients.truncate(500);
    page.until_shown("#served", "500");
    page.until("!document.querySelector('.worker').textContent.includes('more')");
    server.signal(Signal::TERM);
    end(clients);
    server.end();
    page.until_shown("#acknowledged", "500");
}

fn a_phone_needs_no_scrolling_sideways() {
    let (server, page) = start(&[("supervisor.workers", "2"), ("supervisor.max_connections", "30"), LONG_LINGER]);
    page.resize(360, 740, true);
    let clients = clients(&server, 30);
    let waiting: Vec<_> = (0..5).map(|_| server.connect()).collect();
    page.until_count(CELL, 35);
    let fits = |what: &str| {
        let width = page.run("return document.documentElement.scrollWidth");
        assert_eq!(width, 360, "{what}");
    };
    fits("the tree");
    page.run("document.querySelector('.worker .cell').click()");
    page.until_count("#row:popover-open", 1);
    fits("a connection");
    page.press("#row button", ESCAPE);
    page.click("#listView");
    page.until_count("#rows tr", 35);
    fits("the list");
    page.click("#treeView");
    server.signal(Signal::TERM);
    page.until_shown("#phase", "stopping");
    fits("a stop");
    drop((clients, waiting));
    server.end();
    page.until_shown("#phase", "stopped");
    fits("the report");
}

fn for_a_reader_who_wants_less_motion_nothing_moves() {
    let (server, page) = start(&[]);
    page.prefer("prefers-reduced-motion", "reduce");
    let clients = clients(&server, 20);
    page.until_count(CELL, 20);
    drop(clients);
    let moves = "return document.getAnimations().length + [...document.querySelectorAll('*')].filter(e =>
        ['', '::before', '::after'].some(part => /[1-9]/.test(getComputedStyle(e, part || null).transitionDuration
            + getComputedStyle(e, part || null).animationDuration))).length";
    assert_eq!(page.run(moves), 0);
    assert_eq!(page.run("return getComputedStyle(document.documentElement).scrollBehavior"), "auto");
}

/// With `UPDATE_SCREENSHOT=1` the picture is made anew. Beside it stands which page it is of, as `sha256sum` says it.
fn the_picture_in_the_readme_is_of_this_page() {
    let [file, page_of] = ["page.png", "page.sha256"].map(|name| format!("{}/docs/{name}", env!("CARGO_MANIFEST_DIR")));
    let digest = ring::digest::digest(&ring::digest::SHA256, include_bytes!("../src/admin/page.html"));
    let hash: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let this_page = format!("{hash}  src/admin/page.html\n");
    let (server, page) =
        start(&[("supervisor.workers", "4"), ("supervisor.max_connections", "280"), ("supervisor.max_pending", "64")]);
    page.resize(1280, 900, false);
    let mut served = clients(&server, 280);
    let waiting: Vec<_> = (0..24).map(|_| server.connect()).collect();
    page.until_shown("#waiting", "24");
    served.iter_mut().for_each(round_trip);
    page.until("parseFloat(document.querySelector('#echoedRate').textContent) > 0");
    if env::var_os("UPDATE_SCREENSHOT").is_some() {
        fs::write(&file, page.picture()).unwrap();
        fs::write(&page_of, &this_page).unwrap();
    }
    assert_eq!(fs::read_to_string(page_of).unwrap(), this_page, "the picture is of another page");
    let picture = fs::read(file).unwrap();
    assert!(picture.starts_with(b"\x89PNG") && picture.len() < 200_000, "{} bytes", picture.len());
    drop((served, waiting));
}

const HOSTILE: &str = "<script>document.title = 'taken'</script><img src=x onerror=document.title='taken'>";

fn the_report_of_a_client_is_a_page_of_its_own_light_dark_and_printed() {
    let server = Server::start(&[]);
    let flags = ["--rate", "200/s", "--duration", "1s", "--messages", "0", "--id", HOSTILE, "--report", "html"];
    let run =
        finish(command(CLIENT).args(["--server", &server.address.to_string(), "--log-level", "critical"]).args(flags));
    assert_eq!((run.code, server.stop().code), (0, Some(0)), "{}", run.err);
    assert_stands_alone(run.out, "passed", |page| {
        assert!(page.text("h1").contains(HOSTILE), "{}", page.text("h1"));
        assert_eq!(page.count("svg"), 4);
    });
}

fn a_merge_of_clients_with_steps_and_outages_is_a_page_of_its_own_light_dark_and_printed() {
    // Each tenth message has no echo, and its client is out until the next one comes.
    let (place, server) = (Place::new("page-merge"), Server::start(&[("fault.close", "0.1")]));
    for (id, file) in [(HOSTILE, "one.json"), ("two", "two.json")] {
        let mut client = command(CLIENT);
        client.current_dir(place.path()).args(["--server", &server.address.to_string(), "--log-level", "critical"]);
        client.args(["--rate", "20/s,40/s", "--duration", "2s", "--messages", "0", "--id", id, "--save", file]);
        let run = finish(&mut client);
        assert_eq!(run.code, 1, "{run:?}");
    }
    let merged = merge_in(&place, &["one.json", "two.json", "--baseline", "one.json", "--report", "html"]);
    assert_eq!((merged.code, server.stop().code), (1, Some(0)), "{}", merged.err);
    assert_stands_alone(merged.out, "failed", |page| {
        assert!(page.text("h1").contains("2 clients"), "{}", page.text("h1"));
        assert_eq!((page.count("svg"), page.count("svg:has(.out)")), (5, 3));
        let tables: Vec<_> = (1..=3).map(|n| page.text(&format!(".wide:nth-last-of-type({n})"))).collect();
        let found = |title: &str, text: &str| tables.iter().any(|table| table.contains(title) && table.contains(text));
        assert!(found("Clients", HOSTILE) && found("Beside the baseline", "p99"), "{tables:?}");
    });
}

/// Opens a page of a report, and looks at it in light and dark and printed. It asks for nothing, and nothing in it is a script.
fn assert_stands_alone(html: String, verdict: &str, shown: impl FnOnce(&Browser)) {
    let (address, asked) = serve(html);
    let page = Browser::open(address);
    assert_eq!(page.run("return document.title"), format!("echo-client: {verdict}"));
    assert_eq!(page.run("return document.querySelector('[data-verdict]').dataset.verdict"), verdict);
    assert_eq!(page.count("script, img, link"), 0);
    shown(&page);
    let shade = |preferred| {
        page.prefer("prefers-color-scheme", preferred);
        page.run("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).reduce((a, b) => +a + +b)")
    };
    let (dark, light) = (shade("dark").as_u64().unwrap(), shade("light").as_u64().unwrap());
    assert!(dark < 100 && light > 600, "{dark} {light}");
    // Printed, it is black on white for a reader who wants it dark too.
    page.chromium(
        "Emulation.setEmulatedMedia",
        &json!({ "media": "print", "features": [{ "name": "prefers-color-scheme", "value": "dark" }] }),
    );
    let ink = "const style = getComputedStyle(document.body); return [style.color, style.backgroundColor]";
    assert_eq!(page.run(ink), json!(["rgb(0, 0, 0)", "rgb(255, 255, 255)"]));
    assert!(
        page.chromium("Page.printToPDF", &json!({}))["data"].as_str().unwrap().starts_with("JVBERi0"),
        "it is a PDF"
    );
    assert_eq!(page.console(), [""; 0]);
    assert_eq!(page.run("return performance.getEntriesByType('resource').length"), 0);
    drop(page);
    // A browser asks for an icon by itself.
    let asked: Vec<_> = asked.try_iter().filter(|path| path != "/favicon.ico").collect();
    assert_eq!(asked, ["/"]);
}

/// Serves one page, and tells what else is asked for.
fn serve(page: String) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind(free_address()).unwrap();
    let (address, (asks, asked)) = (listener.local_addr().unwrap(), channel());
    thread::spawn(move || {
        for mut stream in listener.incoming().map(Result::unwrap) {
            let mut head = String::new();
            let mut lines = BufReader::new(&stream);
            while !head.ends_with("\r\n\r\n") && lines.read_line(&mut head).unwrap_or(0) > 0 {}
            // A browser may connect in advance and say nothing.
            let Some(path) = head.split(' ').nth(1) else { continue };
            let (status, body) = if path == "/" { ("200 OK", &*page) } else { ("204 No Content", "") };
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
            let told = asks.send(path.to_owned());
            if stream.write_all(answer.as_bytes()).is_err() || told.is_err() {
                return;
            }
        }
    });
    (address, asked)
}
