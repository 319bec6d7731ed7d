//! Pages of lists that commands, the dashboard and the API read by key.

/// Cuts rows, of which one more than `limit` was read, at the limit. Also returns the mark of the last row if
/// the list goes on.
pub(crate) fn cut<T, M>(
    mut rows: Vec<T>,
    limit: i64,
    mark: impl Fn(&T) -> M,
) -> (Vec<T>, Option<M>) {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    let after = rows.last().filter(|_| has_more).map(mark);
    (rows, after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_goes_on_only_after_a_row_more_than_the_page() {
        assert_eq!(cut(vec![1, 2, 3], 2, |row| *row), (vec![1, 2], Some(2)));
        assert_eq!(cut(vec![1, 2], 2, |row| *row), (vec![1, 2], None));
        assert_eq!(cut(Vec::<i32>::new(), 2, |row| *row), (Vec::new(), None));
    }
}
