//! Wording that commands and pages share.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_show_their_two_largest_units() {
        let spans = [5, 65, 3605, 90_000].map(span);
        assert_eq!(spans, ["5 s", "1 min 5 s", "1 h 0 min", "1 d 1 h"]);
    }
}
