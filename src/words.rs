//! Wording that commands and pages share.

pub(crate) mod grasp;
pub(crate) mod lane;

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
    fn spans_show_their_two_largest_units() {
        let spans = [5, 65, 3605, 90_000].map(span);
        assert_eq!(spans, ["5 s", "1 min 5 s", "1 h 0 min", "1 d 1 h"]);
    }
}
