//! Parameters of queries that write many rows.

use crate::mirror::event::EventId;

/// Returns the column of ids.
pub(crate) fn rows_of<'a>(ids: impl Iterator<Item = &'a EventId>) -> Vec<Vec<u8>> {
    ids.map(|id| id.0.to_vec()).collect()
}

/// Returns one column of many rows.
pub(crate) fn column<Row, Value>(rows: &[Row], value: impl Fn(&Row) -> Value) -> Vec<Value> {
    rows.iter().map(value).collect()
}
