//! A database per test, copied from a template that the first test makes.

use sqlx::{
    AssertSqlSafe, Connection, Executor, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

/// The name of the template. It is deleted with the cluster of the test run.
const TEMPLATE: &str = "tender_template";
/// The advisory lock under which the template is made; any number.
const LOCK: i64 = 4848;

/// Tender's migrations, as files.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

pub struct TestDatabase {
    pub pool: PgPool,
    pub name: String,
}

#[expect(clippy::disallowed_methods, reason = "the tests' own variable")]
pub fn server() -> PgConnectOptions {
    let url = std::env::var("TENDER_TEST_DATABASE_URL");
    let url = url
        .expect("run the tests by bin/test, or set TENDER_TEST_DATABASE_URL to a server for tests");
    url.parse().unwrap()
}

impl TestDatabase {
    pub async fn new() -> Self {
        let mut server = PgConnection::connect_with(&self::server()).await.unwrap();
        make_template(&mut server).await;
        Self::copy_of(&mut server, TEMPLATE).await
    }

    /// A database without any migration.
    pub async fn empty() -> Self {
        let mut server = PgConnection::connect_with(&self::server()).await.unwrap();
        Self::copy_of(&mut server, "template0").await
    }

    /// A database with the migrations up to this version.
    pub async fn at(version: i64) -> Self {
        let database = Self::empty().await;
        apalis_postgres::PostgresStorage::<()>::setup(&database.pool).await.unwrap();
        MIGRATIONS.run_to(version, &database.pool).await.unwrap();
        database
    }

    async fn copy_of(server: &mut PgConnection, template: &str) -> Self {
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        let create = format!("create database {name} template {template}");
        server.execute(AssertSqlSafe(create)).await.unwrap();
        let options = self::server().database(&name);
        let pool = PgPoolOptions::new().max_connections(24).connect_with(options).await.unwrap();
        Self { pool, name }
    }

    /// A URL for another process.
    pub fn url(&self) -> String {
        let server = server();
        let (user, host, port) = (server.get_username(), server.get_host(), server.get_port());
        format!("postgres://{user}@{host}:{port}/{}", self.name)
    }
}

async fn make_template(server: &mut PgConnection) {
    sqlx::query("select pg_advisory_lock($1)").bind(LOCK).execute(&mut *server).await.unwrap();
    let exists: Option<i32> = sqlx::query_scalar("select 1 from pg_database where datname = $1")
        .bind(TEMPLATE)
        .fetch_optional(&mut *server)
        .await
        .unwrap();
    if exists.is_none() {
        let making = "tender_template_new";
        let drop = format!("drop database if exists {making}");
        server.execute(AssertSqlSafe(drop)).await.unwrap();
        server.execute(AssertSqlSafe(format!("create database {making}"))).await.unwrap();
        let options = self::server().database(making);
        let pool = PgPoolOptions::new().max_connections(2).connect_with(options).await.unwrap();
        tender_jobs::database::migrate(&pool).await.unwrap();
        pool.close().await;
        let rename = format!("alter database {making} rename to {TEMPLATE}");
        server.execute(AssertSqlSafe(rename)).await.unwrap();
    }
    sqlx::query("select pg_advisory_unlock($1)").bind(LOCK).execute(server).await.unwrap();
}

impl Drop for TestDatabase {
    /// Deletes the database, so that a run does not fill the disk or the memory that holds it.
    fn drop(&mut self) {
        let name = std::mem::take(&mut self.name);
        let dropping = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut server = PgConnection::connect_with(&server()).await.unwrap();
                let drop = format!("drop database if exists {name} with (force)");
                let _whatever_came_of_it = server.execute(AssertSqlSafe(drop)).await;
            });
        });
        let _a_panic_there_is_no_failure_of_the_test = dropping.join();
    }
}

/// Returns how many rows and index entries of the jobs and the relays were read by sessions that told.
pub async fn read(db: &PgPool) -> i64 {
    let read = "select coalesce(sum(pg_stat_get_tuples_returned(oid)), 0)::bigint from pg_class
                where oid in ('apalis.jobs'::regclass, 'relay'::regclass)
                   or oid in (select indexrelid from pg_index
                              where indrelid in ('apalis.jobs'::regclass, 'relay'::regclass))";
    db.execute("select pg_stat_force_next_flush()").await.unwrap();
    sqlx::query_scalar(read).fetch_one(db).await.unwrap()
}

/// Runs `work` in a session of its own, and waits until the session has ended: then it has reported what it did to
/// PostgreSQL's statistics.
pub async fn in_a_session<T>(db: &PgPool, work: impl AsyncFnOnce(&PgPool) -> T) -> T {
    let options = (*db.connect_options()).clone().application_name("counted");
    let session = PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    let done = work(&session).await;
    session.close().await;
    super::eventually("the session ends", async || {
        let open = "select not exists (select from pg_stat_activity
                    where application_name = 'counted' and datname = current_database())";
        sqlx::query_scalar(open).fetch_one(db).await.unwrap()
    })
    .await;
    done
}
