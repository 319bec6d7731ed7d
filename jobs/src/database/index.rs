//! Migrations that build an index while the table is written (`create index concurrently`). Such a
//! migration has no transaction, so a failure leaves an invalid index behind.

use sqlx::{AssertSqlSafe, PgConnection};

/// Returns the statements of a migration on one line each, without comments.
pub(super) fn statements(sql: &str) -> Vec<String> {
    let lines = sql.lines().filter(|line| !line.trim_start().starts_with("--"));
    let text = lines.collect::<Vec<_>>().join(" ");
    let words = |one: &str| one.split_whitespace().collect::<Vec<_>>().join(" ");
    text.split(';').map(words).filter(|one| !one.is_empty()).collect()
}

/// Returns the name of the index that a statement builds: `create [unique] index concurrently if not
/// exists NAME on …`.
pub(super) fn built(statement: &str) -> Option<&str> {
    let rest = statement.strip_prefix("create ")?;
    let rest = rest.strip_prefix("unique ").unwrap_or(rest);
    rest.strip_prefix("index concurrently if not exists ")?.split(' ').next()
}

/// Returns the name of the index that a statement drops: `drop index concurrently if exists NAME`.
#[cfg(test)]
pub(super) fn dropped(statement: &str) -> Option<&str> {
    statement.strip_prefix("drop index concurrently if exists ")
}

/// Drops the index that a migration builds if an earlier, failed build left it invalid. The caller
/// holds the migration lock, so no build of ours is running.
pub(super) async fn drop_invalid(conn: &mut PgConnection, sql: &str) -> Result<(), sqlx::Error> {
    for name in statements(sql).iter().filter_map(|statement| built(statement)) {
        // A migration does not name a schema for the index: it is in the schema of its table.
        let invalid: Vec<String> = sqlx::query_scalar(
            "select i.indexrelid::regclass::text from pg_index i
             join pg_class c on c.oid = i.indexrelid
             join pg_namespace n on n.oid = c.relnamespace
             where c.relname = $1 and not i.indisvalid and n.nspname in (current_schema, 'apalis')",
        )
        .bind(name)
        .fetch_all(&mut *conn)
        .await?;
        for index in invalid {
            let drop = format!("drop index concurrently if exists {index}");
            sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut *conn).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_concurrent_index_is_found() {
        let sql = "-- no-transaction\n-- Why; and for whom.\ncreate unique index concurrently\n    if not exists one_idx on relay (id);\n";
        assert_eq!(
            statements(sql).iter().filter_map(|one| built(one)).collect::<Vec<_>>(),
            ["one_idx"]
        );
        assert_eq!(built("create index one_idx on relay (id)"), None);
        assert_eq!(dropped("drop index concurrently if exists one_idx"), Some("one_idx"));
    }
}
