//! JSON as people read it. The text is indented token by token and not parsed into values, so that
//! numbers, the order of members and repeated members stay as they are stored.

use serde::de::IgnoredAny;

/// The longest text that a page shows, in bytes.
pub(super) const SHOWN: usize = 256 * 1024;

/// A stored text, ready for a page.
pub(super) struct Text {
    pub(super) shown: String,
    /// Whether the end is missing.
    pub(super) is_cut: bool,
}

/// Returns the text, indented if it is JSON, and cut at [`SHOWN`] bytes.
pub(super) fn readable(text: &str) -> Text {
    let is_json = serde_json::from_str::<IgnoredAny>(text).is_ok();
    let mut shown = if is_json { indented(text) } else { text.to_owned() };
    let is_cut = shown.len() > SHOWN;
    shown.truncate(shown.floor_char_boundary(SHOWN));
    Text { shown, is_cut }
}

/// Indents valid JSON. Stops after [`SHOWN`] bytes, because the indentation of deeply nested text is
/// much longer than the text.
fn indented(json: &str) -> String {
    let mut writer = Writer::default();
    let mut rest = json.chars();
    while let Some(c) = rest.next().filter(|_| writer.text.len() <= SHOWN) {
        if writer.opens(c)
            && let Some(end) = rest.as_str().trim_start().strip_prefix(['}', ']'])
        {
            writer.text.push_str(if c == '{' { "{}" } else { "[]" });
            rest = end.chars();
        } else {
            writer.put(c);
        }
    }
    writer.text
}

#[derive(Default)]
struct Writer {
    text: String,
    depth: usize,
    is_in_string: bool,
    is_escaped: bool,
}

impl Writer {
    /// Whether the character opens an object or an array.
    fn opens(&self, c: char) -> bool {
        !self.is_in_string && matches!(c, '{' | '[')
    }

    fn put(&mut self, c: char) {
        if self.is_in_string {
            return self.put_in_string(c);
        }
        match c {
            '{' | '[' => self.open(c),
            '}' | ']' => self.close(c),
            ',' => {
                self.text.push(',');
                self.line();
            }
            ':' => self.text.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => {
                self.is_in_string = c == '"';
                self.text.push(c);
            }
        }
    }

    fn put_in_string(&mut self, c: char) {
        self.text.push(c);
        self.is_in_string = self.is_escaped || c != '"';
        self.is_escaped = !self.is_escaped && c == '\\';
    }

    fn open(&mut self, c: char) {
        self.text.push(c);
        self.depth += 1;
        self.line();
    }

    fn close(&mut self, c: char) {
        self.depth = self.depth.saturating_sub(1);
        self.line();
        self.text.push(c);
    }

    fn line(&mut self) {
        self.text.push('\n');
        self.text.extend(std::iter::repeat_n("  ", self.depth));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented_and_otherwise_as_it_was() {
        let stored = r#"{"b":1e400,"a":[ 1.10 ,{}, [ ] ],"b":"x\"{ },\\","c":{"d":null}}"#;
        let shown = r#"{
  "b": 1e400,
  "a": [
    1.10,
    {},
    []
  ],
  "b": "x\"{ },\\",
  "c": {
    "d": null
  }
}"#;
        let text = readable(stored);
        assert_eq!((text.shown.as_str(), text.is_cut), (shown, false));
    }

    #[test]
    fn other_text_stays_and_long_text_is_cut_between_characters() {
        let text = readable("{not json");
        assert_eq!((text.shown.as_str(), text.is_cut), ("{not json", false));
        let long = format!("x{}", "é".repeat(SHOWN));
        let text = readable(&long);
        assert!(text.is_cut && text.shown.len() == SHOWN - 1 && long.starts_with(&text.shown));
        let exact = "x".repeat(SHOWN);
        assert!(!readable(&exact).is_cut);
        let nested = format!("{}{}", "[".repeat(100), "]".repeat(100));
        let wide = format!("[{}0]", format!("{nested},").repeat(2000));
        assert!(readable(&wide).is_cut && readable(&wide).shown.len() <= SHOWN);
    }
}
