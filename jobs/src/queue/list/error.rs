//! Failed jobs by a part of their error.

use sqlx::PgExecutor;

use super::SEARCHED;

/// An error that jobs are searched by, and the failed jobs that have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WithError {
    pub(super) text: String,
    /// The killed and retrying jobs whose last error contains the text, if they are at most [`SEARCHED`].
    pub(super) ids: Option<Vec<String>>,
}

impl WithError {
    /// Finds the failed jobs whose last error contains `text`, along an index of trigrams. Case matters.
    ///
    /// # Errors
    /// The database is unreachable or refuses the statement.
    pub async fn find(db: impl PgExecutor<'_>, text: &str) -> Result<Self, sqlx::Error> {
        let text = text.replace('\0', "");
        if !has_trigram(&text) {
            return Ok(Self { text, ids: None });
        }
        let pattern =
            format!("%{}%", text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_"));
        let ids = sqlx::query_scalar!(
            "select id from apalis.jobs
             where status in ('Killed', 'Failed') and last_result->>'Err' like $1 limit $2",
            pattern,
            SEARCHED + 1,
        );
        let ids = ids.fetch_all(db).await?;
        let is_common = i64::try_from(ids.len()).unwrap_or(i64::MAX) > SEARCHED;
        Ok(Self { text, ids: (!is_common).then_some(ids) })
    }

    /// Whether so many jobs have the error that a list searches only some of them; see [`SEARCHED`]. A text without
    /// three letters or digits in a row counts as common, because the index has no part of it.
    pub fn is_common(&self) -> bool {
        self.ids.is_none()
    }
}

fn has_trigram(text: &str) -> bool {
    text.split(|one: char| !one.is_alphanumeric()).any(|word| word.chars().count() >= 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_of_three_characters_are_in_the_index() {
        assert!(has_trigram("no disk") && has_trigram("422") && has_trigram("été"));
        assert!(!has_trigram("") && !has_trigram("no di") && !has_trigram("%__-ab"));
    }
}
