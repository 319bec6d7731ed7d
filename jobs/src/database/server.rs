//! What doctor asks of the server: its clock, its connections and the state of the schema.

use sqlx::PgPool;

use super::MIGRATOR;

/// The server of the database.
#[derive(Debug, Clone, Copy)]
pub struct Server {
    /// The server's time, in Unix seconds.
    pub now: f64,
    /// Open connections of all clients to all databases.
    pub connections: i64,
    /// The most connections of clients that are no superusers.
    pub max_connections: i64,
}

/// Reads the clock and the connections of the server.
pub async fn server(db: &PgPool) -> Result<Server, sqlx::Error> {
    sqlx::query_as!(
        Server,
        r#"select extract(epoch from clock_timestamp())::float8 as "now!",
                  (select coalesce(sum(numbackends), 0)::bigint from pg_stat_database) as "connections!",
                  current_setting('max_connections')::bigint
                    - current_setting('superuser_reserved_connections')::bigint as "max_connections!""#
    )
    .fetch_one(db)
    .await
}

/// How the schema differs from this release's, in migrations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// Migrations of this release that were not applied.
    pub missing: i64,
    /// Applied migrations that this release does not know.
    pub newer: i64,
}

/// Returns how the schema differs from this release's. A database without any migration is not an error.
pub async fn schema(db: &PgPool) -> Result<Schema, sqlx::Error> {
    let versions: Vec<i64> = MIGRATOR.iter().map(|migration| migration.version).collect();
    let all = i64::try_from(versions.len()).unwrap_or(i64::MAX);
    let applied = sqlx::query_as::<_, (i64, i64)>(
        "select count(*) filter (where version = any($1)), count(*) filter (where version <> all($1))
         from _sqlx_migrations where success",
    )
    .bind(&versions)
    .fetch_one(db)
    .await;
    match applied {
        Ok((known, newer)) => Ok(Schema { missing: all - known, newer }),
        // 42P01: the table of migrations does not exist, so no migration was ever applied.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P01") => {
            Ok(Schema { missing: all, newer: 0 })
        }
        Err(error) => Err(error),
    }
}
