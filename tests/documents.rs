//! The documents, where no other test runs what they say: their links, the names of tests, and the lines of the walkthrough for
//! readers without Docker.

mod common;

use common::*;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The files below a folder of the checkout whose names end like this.
fn files(folder: &str, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let below = entries.flat_map(|path| if path.is_dir() { files(path.to_str().unwrap(), end) } else { vec![path] });
    below.filter(|path| path.to_str().unwrap().ends_with(end)).collect()
}

/// Each document, and its text.
fn documents() -> Vec<(PathBuf, String)> {
    let paths = ["README.md", "CONTRIBUTING.md"].map(PathBuf::from).into_iter().chain(files("docs", ".md"));
    paths.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The texts that stand between these two.
fn between<'a>(text: &'a str, open: &'a str, close: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(open).skip(1).filter_map(move |rest| rest.split_once(close)).map(|(inside, _)| inside)
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-');
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn every_link_leads_somewhere() {
    for (path, text) in documents() {
        for link in between(&text, "](", ")").filter(|link| !link.starts_with("http")) {
            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(target.exists(), "{} links to {link}", path.display());
            if !fragment.is_empty() {
                let there = fs::read_to_string(target).unwrap();
                let mut headings = there.lines().filter(|line| line.starts_with('#'));
                let found = headings.any(|line| anchor(line.trim_start_matches('#').trim()) == fragment);
                assert!(found, "{} links to {link}", path.display());
            }
        }
    }
}

#[test]
fn every_test_that_is_named_exists() {
    let sources = ["src", "tests", "examples"].into_iter().flat_map(|folder| files(folder, ".rs"));
    let code: String = sources.map(|path| fs::read_to_string(path).unwrap()).collect();
    // The names of metrics look alike.
    let is_test = |word: &&str| {
        !word.starts_with("echo_server_")
            && word.matches('_').count() > 2
            && word.chars().all(|c| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    for (path, text) in documents() {
        for name in text.split('`').filter(is_test) {
            assert!(code.contains(&format!("fn {name}(")), "{} names {name}", path.display());
        }
    }
}

#[test]
fn the_lines_for_readers_without_docker_do_what_they_show() {
    let chapters = files("docs/walkthrough", ".md").into_iter().map(|path| fs::read_to_string(path).unwrap());
    let blocks: Vec<String> = chapters
        .flat_map(|text| between(&text, "```console\n", "```").map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert_eq!(blocks.len(), 5);
    for block in blocks {
        let (commands, shown): (Vec<_>, Vec<_>) = block.lines().partition(|line| line.starts_with("$ "));
        // The programs are built. The ports are free ones, so that the tests do not meet a reader's own server.
        let free = || std::net::TcpListener::bind(free_address()).unwrap().local_addr().unwrap();
        let (address, admin) = (free(), free());
        let script: String = commands.iter().map(|line| format!("{}\n", &line[2..])).collect();
        let script =
            script.replace("cargo build\n", "").replace("127.0.0.1/12345", &address.to_string().replace(':', "/"));
        let script = script.replace("127.0.0.1:8080", &admin.to_string());
        let script = script.replace("target/debug", Path::new(SERVER).parent().unwrap().to_str().unwrap());
        let (place, mut bash) = (Place::new("without-docker"), without_settings(Command::new("bash")));
        bash.args(["-c", &script]).current_dir(place.path()).envs([
            ("ECHO_SERVER_LISTEN__ADDRESS", &*address.to_string()),
            ("ECHO_CLIENT_SERVER__ADDRESS", &*address.to_string()),
            ("ECHO_SERVER_SUPERVISOR__SHUTDOWN_TIMEOUT", "2s"),
        ]);
        let Finished { out, err, .. } = finish(&mut bash);
        let came: Vec<_> = out.lines().filter(|line| shown.contains(line)).collect();
        assert_eq!(came, shown, "{block}\n{out}\n{err}");
    }
}
