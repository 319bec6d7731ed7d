//! What an action changed, without secrets and in a bounded size.

use serde_json::{Map, Value, json};

/// The longest value, in bytes of JSON.
const LONGEST: usize = 4096;
/// Parts of the names of fields whose values are never stored.
const SECRETS: [&str; 6] =
    ["secret", "token", "password", "authorization", "private_key", "credential"];

/// Returns the fields of two objects whose values differ: those of the first and those of the second. Secrets
/// are masked. Anything but two objects is compared as a whole; both are null if they are equal.
pub fn difference(before: &Value, after: &Value) -> (Value, Value) {
    let empty = Map::new();
    let fields = |value: &'_ Value| value.as_object().cloned();
    let (old, new) = match (fields(before), fields(after)) {
        (None, None) if before == after => return (Value::Null, Value::Null),
        (None, None) => return (kept("", before), kept("", after)),
        (old, new) => (old.unwrap_or(empty.clone()), new.unwrap_or(empty)),
    };
    let differs = |name: &String| old.get(name) != new.get(name);
    let of = |from: &Map<String, Value>| {
        let fields = from.iter().filter(|(name, _)| differs(name));
        let fields: Map<_, _> =
            fields.map(|(name, value)| (name.clone(), kept(name, value))).collect();
        if fields.is_empty() { Value::Null } else { Value::Object(fields) }
    };
    (of(&old), of(&new))
}

/// Returns a value as it is stored: masked if its field may hold a secret, and its size if it is too long.
fn kept(name: &str, value: &Value) -> Value {
    let lower = name.to_lowercase();
    if SECRETS.iter().any(|part| lower.contains(part)) && !value.is_null() {
        return json!("(masked)");
    }
    let masked = match value {
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.clone(), kept(name, value))).collect()
        }
        Value::Array(items) => items.iter().map(|item| kept(name, item)).collect(),
        other => other.clone(),
    };
    match masked.to_string().len() {
        length if length > LONGEST => json!(format!("({length} bytes)")),
        _ => masked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fields_that_differ_are_kept() {
        let (before, after) =
            difference(&json!({"a": 1, "b": 2}), &json!({"a": 1, "b": 3, "c": 4}));
        assert_eq!((before, after), (json!({"b": 2}), json!({"b": 3, "c": 4})));
        assert_eq!(difference(&json!({"a": 1}), &json!({"a": 1})), (Value::Null, Value::Null));
        let (before, after) = difference(&Value::Null, &json!({"a": 1}));
        assert_eq!((before, after), (Value::Null, json!({"a": 1})));
    }

    #[test]
    fn secrets_are_masked_and_long_values_are_sizes() {
        let new = json!({"s3": {"Secret_Key": "x", "region": "y"}, "token": ["x"], "text": "l".repeat(5000)});
        let (_, after) = difference(&json!({}), &new);
        assert_eq!(after["s3"], json!({"Secret_Key": "(masked)", "region": "y"}));
        assert_eq!((&after["token"], &after["text"]), (&json!("(masked)"), &json!("(5002 bytes)")));
        assert!(!after.to_string().contains("\"x\""), "{after}");
    }
}
