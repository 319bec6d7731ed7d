//! Cells of CSV files that no spreadsheet takes for formulas.

use serde_json::Value;

/// Returns a value as the text of a cell. Lists and objects are JSON.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => harmless(text),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(_) | Value::Object(_) => harmless(&value.to_string()),
    }
}

/// Begins a text with an apostrophe if a spreadsheet would run it as a formula.
fn harmless(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
    if is_formula { format!("'{text}") } else { text.to_owned() }
}

/// Returns one line of a CSV file (RFC 4180).
pub(super) fn line(cells: impl Iterator<Item = String>) -> Vec<u8> {
    let mut writer =
        csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    // Writing to memory does not fail.
    let written = writer.write_record(cells);
    debug_assert!(written.is_ok(), "{written:?}");
    writer.into_inner().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn formulas_are_made_harmless_and_numbers_stay_numbers() {
        for evil in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"] {
            assert_eq!(text(&json!(evil)), format!("'{evil}"), "{evil:?}");
        }
        assert_eq!(text(&json!(-5)), "-5");
        assert_eq!((text(&json!(null)), text(&json!(true))), (String::new(), "true".to_owned()));
        assert_eq!(text(&json!(["=x"])), "[\"=x\"]");
    }

    #[test]
    fn a_line_is_quoted_where_it_must_be() {
        let cells = ["a", "b,c", "d\"e", "f\r\ng"].map(str::to_owned).into_iter();
        assert_eq!(String::from_utf8(line(cells)).unwrap(), "a,\"b,c\",\"d\"\"e\",\"f\r\ng\"\r\n");
    }
}
