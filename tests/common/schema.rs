//! Checks JSON against the schemas in `docs/`, as far as they go: the words of JSON Schema that stand here.

use serde_json::Value;
use std::{collections::BTreeMap, sync::LazyLock};

static DOCUMENTS: LazyLock<BTreeMap<&str, Value>> = LazyLock::new(|| {
    let read = |text: &str| serde_json::from_str(text).unwrap();
    BTreeMap::from([
        ("tree.json", read(include_str!("../../docs/schema/tree.json"))),
        ("connections.json", read(include_str!("../../docs/schema/connections.json"))),
        ("events.json", read(include_str!("../../docs/schema/events.json"))),
        ("report.json", read(include_str!("../../docs/report.schema.json"))),
    ])
});

/// Fails where `value` is not as the schema of this name has it.
pub fn assert_schema(name: &str, value: &Value) {
    let whole = &DOCUMENTS[name];
    check(whole, whole, value).unwrap_or_else(|wrong| panic!("{name}: {wrong}\n{value:#}"));
}

fn check(whole: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    for (word, wanted) in schema.as_object().unwrap() {
        match &**word {
            "$schema" | "$id" | "$defs" | "title" | "description" => {}
            "$ref" => {
                let (file, path) = wanted.as_str().unwrap().split_once('#').unwrap();
                let whole = if file.is_empty() { whole } else { &DOCUMENTS[file] };
                check(whole, whole.pointer(path).expect("the reference leads somewhere"), value)?;
            }
            "const" => holds(value == wanted, || format!("expected {wanted}, found {value}"))?,
            "enum" => holds(list(wanted).contains(value), || format!("expected one of {wanted}, found {value}"))?,
            "type" => {
                let is = |kind: &Value| match kind.as_str().unwrap() {
                    "null" => value.is_null(),
                    "boolean" => value.is_boolean(),
                    "integer" => value.is_u64() || value.is_i64(),
                    "number" => value.is_number(),
                    "string" => value.is_string(),
                    "array" => value.is_array(),
                    "object" => value.is_object(),
                    other => panic!("the type {other} is not known here"),
                };
                let any = wanted.as_array().map_or_else(|| is(wanted), |kinds| kinds.iter().any(is));
                holds(any, || format!("expected {wanted}, found {value}"))?;
            }
            "minimum" => {
                holds(value.is_null() || value.as_f64() >= wanted.as_f64(), || format!("{value} is below {wanted}"))?
            }
            "maximum" => holds(value.as_i64() <= wanted.as_i64(), || format!("{value} is above {wanted}"))?,
            "maxItems" => holds(list(value).len() as u64 <= wanted.as_u64().unwrap(), || "too many".into())?,
            "anyOf" => {
                let wrong: Vec<_> = list(wanted).iter().filter_map(|one| check(whole, one, value).err()).collect();
                holds(wrong.len() < list(wanted).len(), || wrong.join("; or "))?;
            }
            "required" => {
                for key in list(wanted) {
                    holds(value.get(key.as_str().unwrap()).is_some(), || format!("no {key}"))?;
                }
            }
            "properties" => {
                for (key, schema) in wanted.as_object().unwrap() {
                    value
                        .get(key)
                        .map_or(Ok(()), |value| check(whole, schema, value))
                        .map_err(|e| format!("{key}: {e}"))?;
                }
            }
            "additionalProperties" => {
                for (key, value) in value.as_object().unwrap() {
                    check(whole, wanted, value).map_err(|wrong| format!("{key}: {wrong}"))?;
                }
            }
            "items" => list(value).iter().try_for_each(|item| check(whole, wanted, item))?,
            other => panic!("the word {other} is not known here"),
        }
    }
    Ok(())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn holds(is_so: bool, wrong: impl FnOnce() -> String) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(wrong()) }
}
