//! Who migrates: `tender migrate`, and `tender serve` unless it is told not to.

use nix::sys::signal::Signal;
use tender_jobs::database::is_migrated;

use crate::support::{
    database::{TestDatabase, server},
    eventually,
    process::{Tender, run},
    server::Pooler,
};

async fn is_refused(arguments: &[&str], environment: &[(&str, &str)]) {
    let output = run(arguments, environment).await;
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {words}");
    assert!(words.contains("run `tender migrate`"), "{arguments:?}: {words}");
}

#[tokio::test]
async fn only_migrate_and_serve_change_the_schema() {
    let database = TestDatabase::empty().await;
    let url = database.url();
    let environment = [("DATABASE_URL", url.as_str()), ("API_BIND", "127.0.0.1:0")];
    for command in
        [&["queue", "status"][..], &["relay", "list"], &["api"], &["work"], &["top", "--json"]]
    {
        is_refused(command, &environment).await;
    }
    let told_not_to = [&environment[..], &[("MIGRATE_ON_START", "false")]].concat();
    is_refused(&["serve"], &told_not_to).await;
    let tables: i64 =
        sqlx::query_scalar("select count(*) from pg_tables where tablename = 'relay'")
            .fetch_one(&database.pool)
            .await
            .unwrap();
    assert_eq!(tables, 0);
    let doctor = run(&["doctor"], &environment).await;
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("run `tender migrate`"), "{doctor:?}");
    let migrated = run(&["migrate"], &environment).await;
    assert!(migrated.status.success(), "{migrated:?}");
    assert!(run(&["queue", "status"], &environment).await.status.success());
    sqlx::query("delete from _sqlx_migrations where version = 20261120000001")
        .execute(&database.pool)
        .await
        .unwrap();
    is_refused(&["queue", "status"], &environment).await;
}

#[tokio::test]
async fn serve_migrates_when_it_starts() {
    let database = TestDatabase::empty().await;
    let url = database.url();
    let environment = [("DATABASE_URL", url.as_str()), ("API_BIND", "127.0.0.1:0")];
    let mut serve = Tender::start_with(&["serve"], &environment);
    eventually("the schema is up to date", async || is_migrated(&database.pool).await.unwrap())
        .await;
    serve.serves(&database.pool, "prune").await;
    serve.signal(Signal::SIGTERM);
    assert!(serve.wait().await.success(), "{}", serve.log());
}

#[tokio::test]
async fn migrations_behind_a_pooler_use_the_direct_address_or_are_refused() {
    let database = TestDatabase::empty().await;
    let direct = server();
    let pooler = Pooler::start(direct.get_host(), direct.get_port(), &database.name).await;
    let url = format!("postgres://tender@127.0.0.1:{}/{}", pooler.port, database.name);
    let only_pooler = [("DATABASE_URL", url.as_str())];
    let output = run(&["migrate"], &only_pooler).await;
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("pooler in transaction mode") && words.contains("DATABASE_LISTEN_URL"));
    assert!(!is_migrated(&database.pool).await.unwrap());
    let own = database.url();
    let with_direct = [only_pooler[0], ("DATABASE_LISTEN_URL", own.as_str())];
    let output = run(&["migrate"], &with_direct).await;
    // A pooler before 1.21 may refuse the first statement of a command, which reads the version.
    let is_done = output.status.success() || !Pooler::keeps_statements();
    assert!(is_done, "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(is_migrated(&database.pool).await.unwrap(), output.status.success());
}
