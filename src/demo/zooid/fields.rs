//! The fields of zooid's document with their types. zooid reads JSON as Go does: keys match without
//! case, unknown keys are dropped, a missing value is the type's zero value.

use serde_json::{Map, Value, json};

/// The type of a field.
#[derive(Debug, Clone, Copy)]
pub(super) enum Type {
    Text,
    Flag,
    Texts,
    Object(&'static [(&'static str, Type)]),
    /// An object whose keys are free and whose values have these fields.
    Named(&'static [(&'static str, Type)]),
}

use Type::{Flag, Named, Object, Text, Texts};

/// The document of a relay.
pub(super) const DOCUMENT: Type = Object(&[
    ("host", Text),
    ("schema", Text),
    ("secret", Text),
    ("inactive", Flag),
    ("info", Object(&[("name", Text), ("icon", Text), ("pubkey", Text), ("description", Text)])),
    (
        "policy",
        Object(&[
            ("public_read", Flag),
            ("public_write", Flag),
            ("public_join", Flag),
            ("strip_signatures", Flag),
        ]),
    ),
    ("groups", ENABLED),
    ("management", ENABLED),
    ("push", ENABLED),
    (
        "blossom",
        Object(&[("enabled", Flag), ("authenticated_read", Flag), ("adapter", Text), ("s3", S3)]),
    ),
    ("livekit", Object(&[("server_url", Text), ("api_key", Text), ("api_secret", Text)])),
    ("roles", Named(&[("pubkeys", Texts), ("can_invite", Flag), ("can_manage", Flag)])),
]);
const ENABLED: Type = Object(&[("enabled", Flag)]);
const S3: Type = Object(&[
    ("endpoint", Text),
    ("region", Text),
    ("bucket", Text),
    ("access_key", Text),
    ("secret_key", Text),
    ("key_prefix", Text),
]);

impl Type {
    /// Returns a value as zooid holds it: every field, in its type. The error is Go's.
    pub(super) fn read(self, value: &Value, path: &str) -> Result<Value, String> {
        match (self, value) {
            (Text, Value::Null) => Ok(json!("")),
            (Flag, Value::Null) => Ok(json!(false)),
            (Texts, Value::Null) => Ok(json!([])),
            (Text, Value::String(_)) | (Flag, Value::Bool(_)) => Ok(value.clone()),
            (Texts, Value::Array(values)) => {
                let read = values.iter().map(|value| Text.read(value, path));
                Ok(Value::Array(read.collect::<Result<_, _>>()?))
            }
            (Object(fields), Value::Null) => read_fields(fields, &Map::new(), path),
            (Object(fields), Value::Object(sent)) => read_fields(fields, sent, path),
            (Named(_), Value::Null) => Ok(json!({})),
            (Named(fields), Value::Object(sent)) => {
                let read = |(name, value): (&String, &Value)| {
                    Ok((name.clone(), Object(fields).read(value, &format!("{path}.{name}"))?))
                };
                Ok(Value::Object(sent.iter().map(read).collect::<Result<_, String>>()?))
            }
            _ => Err(mismatch(value, path, self)),
        }
    }

    /// Returns sent JSON with the keys of known fields in lower case.
    pub(super) fn with_known_keys(self, value: Value) -> Value {
        match (self, value) {
            (Object(fields), Value::Object(sent)) => {
                let known = sent.into_iter().map(|(key, value)| match field(fields, &key) {
                    Some((name, kind)) => ((*name).to_owned(), kind.with_known_keys(value)),
                    None => (key, value),
                });
                Value::Object(known.collect())
            }
            (Named(fields), Value::Object(sent)) => {
                let known = sent
                    .into_iter()
                    .map(|(key, value)| (key, Object(fields).with_known_keys(value)));
                Value::Object(known.collect())
            }
            (_, value) => value,
        }
    }

    fn in_go(self) -> &'static str {
        match self {
            Text => "string",
            Flag => "bool",
            Texts => "[]string",
            Object(_) => "struct",
            Named(_) => "map",
        }
    }
}

fn field<'a>(fields: &'a [(&str, Type)], key: &str) -> Option<&'a (&'a str, Type)> {
    fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(key))
}

fn read_fields(
    fields: &[(&str, Type)],
    sent: &Map<String, Value>,
    path: &str,
) -> Result<Value, String> {
    let mut read = Map::new();
    for (name, kind) in fields {
        let found = sent.iter().rfind(|(key, _)| key.eq_ignore_ascii_case(name));
        let path = if path.is_empty() { (*name).to_owned() } else { format!("{path}.{name}") };
        let value = kind.read(found.map_or(&Value::Null, |(_, value)| value), &path)?;
        read.insert((*name).to_owned(), value);
    }
    Ok(Value::Object(read))
}

/// Returns the error of Go's JSON decoder for a value of the wrong type.
fn mismatch(value: &Value, path: &str, expected: Type) -> String {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let kind = expected.in_go();
    if path.is_empty() {
        return format!("json: cannot unmarshal {found} into Go value of type {kind}");
    }
    format!("json: cannot unmarshal {found} into Go struct field Config.{path} of type {kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_match_without_case_and_unknown_ones_are_dropped() {
        let sent =
            json!({ "HOST": "a", "Info": { "NAME": "n", "x": 1 }, "livekit": { "enabled": true } });
        let read = DOCUMENT.read(&sent, "").unwrap();
        assert_eq!((&read["host"], &read["info"]["name"]), (&json!("a"), &json!("n")));
        assert_eq!(read["info"].get("x"), None);
        assert_eq!(read["livekit"], json!({ "server_url": "", "api_key": "", "api_secret": "" }));
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named_as_go_does() {
        for (sent, words) in [
            (
                json!({ "host": 7 }),
                "json: cannot unmarshal number into Go struct field Config.host of type string",
            ),
            (
                json!({ "info": { "name": [] } }),
                "json: cannot unmarshal array into Go struct field Config.info.name of type string",
            ),
            (json!([]), "json: cannot unmarshal array into Go value of type struct"),
        ] {
            assert_eq!(DOCUMENT.read(&sent, "").unwrap_err(), words);
        }
    }
}
