//! The walkthrough, followed to the letter: each chapter's commands are run in order in a fresh copy of the checkout, and their
//! output must be what the chapter shows.
//!
//! A block ```` ```sh ```` is run, and must succeed. The blocks ```` ```text ```` up to the next one show its output. Each of their
//! lines must be a line of the output, in any order. What is different in every run does not count (see `comparable`), and a line
//! `…` stands for other lines. A block ```` ```sh ctrl-c ```` goes on until its output has come, and is then interrupted.

mod common;
mod docker;

use docker::{Checkout, Running, build, containers, must};
use std::{fs, path::Path, process::ExitCode, time::Duration};

/// The longest that a step lasts. A swarm that replaces servers one after the other takes minutes on a busy machine.
const STEP: Duration = Duration::from_secs(10 * 60);

fn main() -> ExitCode {
    let chapters = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/walkthrough");
    let mut chapters: Vec<_> = fs::read_dir(chapters).unwrap().map(|entry| entry.unwrap().path()).collect();
    chapters.sort();
    let tests = chapters.into_iter().map(|path| {
        let name = format!("chapter_{}_is_true", path.file_stem().unwrap().to_str().unwrap());
        let chapter = fs::read_to_string(path).unwrap();
        (name, Box::new(move || follow(&chapter)) as Box<dyn FnOnce() + Send>)
    });
    docker::run(tests.collect())
}

struct Step {
    commands: String,
    ctrl_c: bool,
    shown: Vec<String>,
}

fn steps(chapter: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut lines = chapter.lines();
    while let Some(line) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else { continue };
        let block: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
        match kind {
            "sh" | "sh ctrl-c" => {
                let commands = block.join("\n");
                steps.push(Step { commands, ctrl_c: kind != "sh", shown: Vec::new() });
            }
            "text" => {
                let step = steps.last_mut().expect("output comes after its commands");
                step.shown.extend(block.into_iter().filter(|line| *line != "…").map(comparable));
            }
            _ => {}
        }
    }
    steps
}

fn follow(chapter: &str) {
    let steps = steps(chapter);
    assert!(!steps.is_empty(), "no commands");
    let checkout = Checkout::copy();
    // A reader takes edits back with git.
    must(checkout.path(), "git init --quiet && git add --all");
    // The build may take longer than any other step, so it is made before.
    build(&checkout);
    for Step { commands, ctrl_c, shown } in steps {
        let exec = if ctrl_c { "exec " } else { "" };
        let mut running = Running::start(checkout.path(), &format!("{exec}{commands}"));
        if ctrl_c {
            running.wait_until(&commands, |lines| missing(lines, &shown).is_empty());
            running.interrupt();
        }
        let status = running.exit(STEP);
        let output = running.output();
        assert!(ctrl_c || status.success(), "{commands}\n{status}\n{output}");
        let lines: Vec<_> = output.lines().map(str::to_owned).collect();
        let missing = missing(&lines, &shown);
        assert!(missing.is_empty(), "{commands}\n{output}\n\ndoes not show:\n{}", missing.join("\n"));
    }
    // The next chapter begins with an empty engine and the settings as they were.
    assert!(containers().is_empty(), "containers are left");
    assert_eq!(
        must(checkout.path(), "git status --short | grep --invert-match '^A ' || true"),
        "",
        "something is left"
    );
}

fn missing<'a>(lines: &[String], shown: &'a [String]) -> Vec<&'a str> {
    let lines: Vec<_> = lines.iter().map(|line| comparable(line)).collect();
    shown.iter().filter(|line| !lines.contains(line)).map(String::as_str).collect()
}

/// A line without what differs from run to run: times, rates, addresses, Docker's ids, the numbers of connections and workers, and the
/// sums of the books.
fn comparable(line: &str) -> String {
    // Compose writes this to clear a terminal's line.
    let line = line.replace("\u{1b}[K", "");
    let is_unit = |word: &str| matches!(word.trim_end_matches(','), "µs" | "ms" | "s");
    let mut field = "";
    let nexts = line.split_whitespace().skip(1).chain([""]);
    let words = line.split_whitespace().zip(nexts).map(|(word, next)| {
        let bare = word.trim_end_matches(',');
        let of_the_run = match field {
            _ if is_unit(next) => true,
            "connection:" | "worker:" | "workers:" | "peer:" | "received:" | "echoed:" | "discarded:"
            | "received_total:" | "echoed_total:" | "discarded_total:" | "elapsed_us:" | "elapsed_ms:" | "min"
            | "median" | "p99" | "max" => true,
            "echoed" | "verified" | "discarded" | "resent" if line.starts_with("books ") => true,
            _ => is_timestamp(bare) || is_container_id(bare),
        };
        field = word;
        if is_unit(word) {
            "unit".to_owned()
        } else if of_the_run {
            word.replace(bare, "?")
        } else {
            word.to_owned()
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

fn is_timestamp(word: &str) -> bool {
    word.len() == "2026-11-23T08:40:12.518Z".len() && word.ends_with('Z') && word.starts_with("20")
}

/// Whether it is a container's id: its first 12 digits, or all 64.
fn is_container_id(word: &str) -> bool {
    matches!(word.len(), 12 | 64) && word.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
}
