//! Wording that commands and pages share.

pub(crate) mod grasp;
pub(crate) mod lane;
pub(crate) mod probe;
pub(crate) mod schedule;

/// Returns a text in which every control character, and every other character that is invisible or changes
/// the direction of the text, is escaped as `\u{202e}`.
pub(crate) fn visible(text: &str) -> String {
    let escaped = |c: char| if is_hidden(c) { c.escape_default().to_string() } else { c.into() };
    text.chars().map(escaped).collect()
}

/// Whether a character is a control character, of the category Cf, a separator other than U+0020, or blank.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(
            c,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
        )
        || matches!(c, '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2800}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}')
        || matches!(c, '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Returns a name for people: visible, and quoted if it is blank or has spaces at an end.
pub(crate) fn name(text: &str) -> String {
    let shown = visible(text);
    if shown.trim() == shown && !shown.is_empty() { shown } else { format!("\"{shown}\"") }
}

/// Returns an address in a form that [`typed`] takes back: visible, with spaces at its end escaped.
pub(crate) fn address(text: &str) -> String {
    let shown = visible(text);
    let end = shown.trim_end_matches(' ');
    format!("{end}{}", "\\u{20}".repeat(shown.len() - end.len()))
}

/// Returns the text that [`address`] shows in this form. The identifiers of repositories have no backslash.
pub(crate) fn typed(text: &str) -> String {
    let mut parts = text.split('\\');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |told, part| told + &unescaped(part))
}

/// Returns the text that follows a backslash, with its escape resolved.
fn unescaped(part: &str) -> String {
    for (name, c) in [('n', '\n'), ('t', '\t'), ('r', '\r')] {
        if let Some(rest) = part.strip_prefix(name) {
            return format!("{c}{rest}");
        }
    }
    let code = part.strip_prefix("u{").and_then(|part| part.split_once('}'));
    let code = code.and_then(|(code, rest)| Some((u32::from_str_radix(code, 16).ok()?, rest)));
    match code.and_then(|(code, rest)| Some((char::from_u32(code)?, rest))) {
        Some((c, rest)) => format!("{c}{rest}"),
        None => format!("\\{part}"),
    }
}

/// Returns a noun as it follows a number: `item` after 1, else `items`.
pub(crate) fn noun(number: i64, one: &str) -> String {
    let stem = one.strip_suffix('y').filter(|stem| !stem.ends_with(['a', 'e', 'o', 'u']));
    match stem {
        _ if number == 1 => one.to_owned(),
        Some(stem) => format!("{stem}ies"),
        None if one.ends_with(['s', 'h', 'x']) => format!("{one}es"),
        None => format!("{one}s"),
    }
}

/// Returns a number with its noun, such as `1 item` or `3 repositories`.
pub(crate) fn counted(number: i64, one: &str) -> String {
    format!("{number} {}", noun(number, one))
}

/// Formats a number of seconds in its two largest units.
pub(crate) fn span(seconds: i64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// Formats a number of seconds in its largest unit.
pub(crate) fn brief(seconds: i64) -> String {
    match seconds {
        ..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brief_spans_show_their_largest_unit() {
        let spans = [5, 65, 3605, 90_000].map(brief);
        assert_eq!(spans, ["5 s", "1 min", "1 h", "1 d"]);
    }

    #[test]
    fn what_is_shown_of_an_address_can_be_typed() {
        for text in ["a\nb", "a\u{202e}b", " ", "x \u{200b} ", "plain: ü", "\u{feff}", "\u{3000}"]
        {
            let shown = address(text);
            assert!(!shown.chars().any(is_hidden) && shown.trim_end() == shown, "{shown:?}");
            assert_eq!(typed(&shown), text);
        }
        assert_eq!(
            (name(" ").as_str(), name("a b").as_str(), name("").as_str()),
            ("\" \"", "a b", "\"\"")
        );
        assert_eq!(typed("a\\xb"), "a\\xb");
    }

    #[test]
    fn nouns_follow_their_number() {
        let told = [(1, "item"), (0, "item"), (2, "repository"), (3, "process"), (5, "relay")];
        let told = told.map(|(number, one)| counted(number, one));
        assert_eq!(told, ["1 item", "0 items", "2 repositories", "3 processes", "5 relays"]);
    }

    #[test]
    fn spans_show_their_two_largest_units() {
        let spans = [5, 65, 3605, 90_000].map(span);
        assert_eq!(spans, ["5 s", "1 min 5 s", "1 h 0 min", "1 d 1 h"]);
    }
}
