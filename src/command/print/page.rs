//! Lists that show a part of their rows, and say so.

use clap::Args;

use super::note;

/// The most rows of a list that are counted beyond those shown.
const COUNTED: usize = 1000;
/// The most rows that `--all` shows.
const MOST: u32 = 100_000;

/// How much of a list is shown.
#[derive(Debug, Clone, Copy, Args)]
pub(in crate::command) struct Size {
    /// Maximum number of rows to show.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST)))]
    limit: u32,
    /// Show all rows, at most 100,000.
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

impl Size {
    fn shown(self) -> usize {
        usize::try_from(if self.all { MOST } else { self.limit }).unwrap_or(usize::MAX)
    }

    /// Returns the number of rows to read: one more than is shown and counted.
    pub(in crate::command) fn read(self) -> i64 {
        i64::try_from(self.shown().max(COUNTED) + 1).unwrap_or(i64::MAX)
    }

    /// Cuts rows, of which [`Size::read`] were asked for, to those that are shown.
    pub(in crate::command) fn cut<T>(
        self,
        mut rows: Vec<T>,
        mark: impl Fn(&T) -> String,
    ) -> (Vec<T>, Cut) {
        let (shown, counted) = (self.shown(), rows.len());
        let is_capped = i64::try_from(counted).unwrap_or(i64::MAX) >= self.read();
        rows.truncate(shown);
        let last = rows.last().filter(|_| counted > shown);
        let cut = last.map(|last| {
            let total =
                if is_capped { format!("more than {}", counted - 1) } else { counted.to_string() };
            CutAt { shown: rows.len(), total, mark: mark(last) }
        });
        (rows, Cut(cut))
    }
}

/// Where a list was cut; nothing if it was not.
pub(in crate::command) struct Cut(Option<CutAt>);

struct CutAt {
    shown: usize,
    total: String,
    mark: String,
}

impl Cut {
    /// Says on standard error how much was left out, and how to see it.
    pub(in crate::command) fn say(&self) -> anyhow::Result<()> {
        let Some(CutAt { shown, total, mark }) = &self.0 else { return Ok(()) };
        note(&format!("{shown} of {total}; --all, or --after {mark}"))
    }

    /// Returns the mark of the next page, for JSON.
    pub(in crate::command) fn mark(&self) -> Option<&str> {
        self.0.as_ref().map(|cut| cut.mark.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(size: Size, rows: usize) -> (usize, Option<String>) {
        let (rows, cut) = size.cut((0..rows).collect(), usize::to_string);
        (rows.len(), cut.0.map(|cut| format!("{} of {}, {}", cut.shown, cut.total, cut.mark)))
    }

    #[test]
    fn a_cut_list_says_how_much_is_left_out() {
        let size = Size { limit: 100, all: false };
        assert_eq!(words(size, 303), (100, Some("100 of 303, 99".to_owned())));
        assert_eq!(words(size, 100), (100, None));
        assert_eq!(words(size, 1001), (100, Some("100 of more than 1000, 99".to_owned())));
        let all = Size { limit: 100, all: true };
        assert_eq!(words(all, 303), (303, None));
        assert_eq!(all.read(), 100_001);
    }
}
