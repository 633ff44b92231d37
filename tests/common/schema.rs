//! Checks JSON against the schemas in `docs/`.

use jsonschema::{Registry, Validator};
use serde_json::Value;
use std::{collections::BTreeMap, sync::LazyLock};

static VALIDATORS: LazyLock<BTreeMap<&str, Validator>> = LazyLock::new(|| {
    let documents = [
        ("tree.json", include_str!("../../docs/schema/tree.json")),
        ("connections.json", include_str!("../../docs/schema/connections.json")),
        ("events.json", include_str!("../../docs/schema/events.json")),
        ("settings.json", include_str!("../../docs/schema/settings.json")),
        ("report.json", include_str!("../../docs/report.schema.json")),
    ]
    .map(|(name, text)| (name, serde_json::from_str::<Value>(text).unwrap()));
    // A schema refers to another one by the name of its file.
    let uri = |name: &str| format!("docs:///{name}");
    let resources = documents.iter().map(|(name, schema)| (uri(name), schema));
    let registry = Registry::new().extend(resources).unwrap().prepare().unwrap();
    let validator = |(name, schema): &(&'static str, Value)| {
        let options = jsonschema::options().with_registry(&registry).with_base_uri(uri(name));
        (*name, options.build(schema).unwrap())
    };
    documents.iter().map(validator).collect()
});

/// Fails where `value` is not as the schema of this name has it.
pub fn assert_schema(name: &str, value: &Value) {
    let wrong = |error: jsonschema::ValidationError<'_>| format!("{}: {error}", error.instance_path());
    let wrong: Vec<_> = VALIDATORS[name].iter_errors(value).map(wrong).collect();
    assert!(wrong.is_empty(), "{name}: {}\n{value:#}", wrong.join("; "));
}
