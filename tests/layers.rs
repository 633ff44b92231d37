//! The layers of the code: which folder may use which, read from the `use` lines and the paths of `src/`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// What each layer may use, besides itself. Every module of `src/` belongs to one of them.
const ARROWS: [(&str, &[&str]); 16] = [
    ("decisions", &[]),
    ("text", &[]),
    ("buffer", &[]),
    ("context", &[]),
    ("testing", &[]),
    ("stop", &["decisions"]),
    ("settings", &["decisions", "text"]),
    ("logging", &["error", "resources", "settings", "text"]),
    ("error", &[]),
    ("resources", &["error"]),
    ("signals", &["decisions", "error", "logging", "stop"]),
    (
        "server",
        &["buffer", "context", "decisions", "error", "logging", "resources", "settings", "stop", "testing", "text"],
    ),
    (
        "client",
        &["buffer", "context", "decisions", "error", "logging", "resources", "settings", "stop", "testing", "text"],
    ),
    // It reads what a server lets be seen. No server knows of it.
    ("admin", &["decisions", "error", "logging", "resources", "server", "settings", "stop", "testing"]),
    // The library's front gives the others their public names; the programs use nothing but those.
    (
        "lib",
        &["admin", "client", "decisions", "error", "logging", "resources", "server", "settings", "signals", "stop"],
    ),
    ("bin", &["lib"]),
];

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The module that a file of `src/` holds; `lib` is the library's front.
fn module(file: &Path) -> Vec<String> {
    let path = file.with_extension("");
    let mut names: Vec<String> = path.iter().skip(1).map(|name| name.to_str().unwrap().to_owned()).collect();
    names.pop_if(|name| name == "mod");
    names
}

/// The paths that one tree of a `use` line names: `a::{b, c::d}` are `a::b` and `a::c::d`.
fn paths(prefix: &[String], tree: &str, found: &mut Vec<Vec<String>>) {
    let (path, group) = tree.split_once('{').map_or((tree, None), |(path, group)| (path, group.strip_suffix('}')));
    let names = path.split("::").map(str::trim).filter(|name| !name.is_empty() && *name != "self");
    let prefix: Vec<String> = prefix.iter().cloned().chain(names.map(str::to_owned)).collect();
    let Some(group) = group else { return found.push(prefix) };
    let mut depth = 0;
    let parts = group.split(|c: char| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    parts.map(str::trim).filter(|part| !part.is_empty()).for_each(|part| paths(&prefix, part, found));
}

/// Follows each `super` in a path to the parent.
fn without_super(path: &mut Vec<String>) {
    while let Some(at) = path.iter().position(|name| name == "super") {
        path.drain(at.saturating_sub(1)..=at);
    }
}

/// The modules of this crate that each module uses outside its tests.
fn uses() -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    let files: Vec<PathBuf> =
        files(Path::new("src")).into_iter().filter(|file| file.extension().is_some_and(|e| e == "rs")).collect();
    let modules: BTreeSet<Vec<String>> = files.iter().map(|file| module(file)).collect();
    let mut uses = BTreeMap::new();
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        let code = text.split("\nmod tests {").next().unwrap();
        let code = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        let this = module(file);
        let mut found = Vec::new();
        for line in code.split("use ").skip(1).filter_map(|rest| rest.split_once(';')).map(|(line, _)| line) {
            let line: String = line.split_whitespace().collect();
            if line.starts_with("supervised_echo::") {
                found.push(vec!["lib".into()]);
            } else if let Some(tree) = line.strip_prefix("crate::") {
                paths(&[], tree, &mut found);
            } else if this == ["lib"] {
                paths(&[], &line, &mut found); // a child of its own
            } else {
                paths(&this, &line, &mut found); // its parent's, a child of its own, or another crate, which no file here is
            }
        }
        // Paths in the midst of the code; of a group only its `use` line tells.
        let ends = |c: char| c != ':' && c != '_' && !c.is_alphanumeric();
        for path in code.split(ends).filter(|path| !path.ends_with("::")) {
            match path.strip_prefix("crate::") {
                Some(path) => paths(&[], path, &mut found),
                None if path.starts_with("super::") => paths(&this, path, &mut found),
                None => {}
            }
        }
        found.iter_mut().for_each(without_super);
        // A path names a module and mostly an item in it.
        let of = |path: &Vec<String>| (1..=path.len()).rev().map(|n| path[..n].to_vec()).find(|m| modules.contains(m));
        let used = found.iter().filter_map(of).filter(|used| *used != this).collect();
        uses.insert(this, used);
    }
    uses
}

#[test]
fn every_layer_uses_only_those_that_it_may() {
    let (arrows, uses) = (BTreeMap::from(ARROWS), uses());
    let layers: BTreeSet<&str> = uses.keys().map(|module| &*module[0]).collect();
    assert_eq!(layers, arrows.keys().copied().collect(), "the layers that there are, and those that have arrows");
    for (module, used) in uses {
        let allowed = arrows[&*module[0]];
        for other in used.iter().filter(|other| other[0] != module[0]) {
            assert!(allowed.contains(&other[0].as_str()), "{} uses {}", module.join("::"), other.join("::"));
        }
    }
}

#[test]
fn the_decisions_know_no_actor_socket_lock_or_clock() {
    for file in files(Path::new("src/decisions")) {
        let text = fs::read_to_string(&file).unwrap();
        for word in ["actix", "tokio::", "std::net", "sync::", "Instant", "SystemTime", "socket2"] {
            assert!(!text.contains(word), "{} names {word}", file.display());
        }
    }
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let uses = uses();
    for start in uses.keys() {
        let (mut reached, mut next) = (BTreeSet::new(), vec![start]);
        while let Some(module) = next.pop() {
            for used in uses.get(module).into_iter().flatten().filter(|used| reached.insert(*used)) {
                assert_ne!(used, start, "{} is used by what it uses, such as {}", start.join("::"), module.join("::"));
                next.push(used);
            }
        }
    }
}
