//! What the settings' unit tests share: one value, read as a file would give it.

use super::layers::{Layered, defaults};

/// Loads a document of one assignment, given as `section.key = value`.
pub fn read<S: Layered>(assignment: &str) -> Result<S, String> {
    let (key, value) = assignment.split_once(" = ").expect("an assignment");
    let (section, key) = key.split_once('.').expect("a section and a key");
    let loaded = defaults().with_document("a.toml", &format!("[{section}]\n{key} = {value}\n"));
    loaded.map(|loaded| loaded.settings).map_err(|error| {
        let error = error.to_string();
        // Of a list the error names the element, such as `[0]`.
        let rest = error.strip_prefix(&format!("a.toml: {section}.{key}"));
        let problem = rest.and_then(|rest| rest.split_once(": invalid "));
        problem.unwrap_or_else(|| panic!("{error}")).1.to_owned()
    })
}

/// Checks that the values at both ends of a range are read, and that those beyond them are refused.
pub fn check_range<S: Layered>(key: &str, least: &str, below: &str, most: &str, above: &str) {
    for good in [least, most] {
        assert!(read::<S>(&format!("{key} = {good}")).is_ok(), "{key} = {good}");
    }
    for bad in [below, above] {
        assert!(read::<S>(&format!("{key} = {bad}")).is_err(), "{key} = {bad}");
    }
}
