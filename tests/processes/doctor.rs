//! What `tender doctor` finds, and what it says to do.

use serde_json::Value;
use tender_jobs::queue::process::{self, Report};

use crate::{
    commands::tender,
    support::{World, process::run},
};

#[tokio::test]
async fn doctor_says_what_is_wrong_and_what_to_do() {
    let world = World::new().await;
    world.expire_leases().await; // nobody works
    let sick = tender(&world, &["doctor"]).await;
    assert_eq!(sick.code, 1, "{}", sick.out);
    assert!(sick.out.contains("no worker is running: start `tender work`"), "{}", sick.out);
    assert!(sick.out.contains("to API_WHITELIST"), "{}", sick.out);
    world.zooid.tune(|rules| rules.host = Some("api.zooid.test".to_owned()));
    let misled = tender(&world, &["doctor"]).await;
    assert!(misled.code == 1 && misled.out.contains("API_HOST"), "{}", misled.out);
    world.zooid.tune(|rules| rules.host = Some(world.zooid.url()[7..].to_owned()));
    let url = world.database.url();
    let incomplete = [("DATABASE_URL", url.as_str()), ("ZOOID_API_URL", "http://127.0.0.1:1")];
    let findings = run(&["doctor", "--json"], &incomplete).await;
    let findings: Value = serde_json::from_slice(&findings.stdout).unwrap();
    assert_eq!(findings["ok"], false);
    assert!(
        findings["findings"]
            .as_array()
            .unwrap()
            .iter()
            .any(|f| f["what"] == "configuration" && f["grade"] == "fail")
    );
}

#[tokio::test]
async fn doctor_names_drained_processes_and_failures_that_are_kept() {
    let world = World::new().await;
    world.beat().await;
    let report = Report {
        id: uuid::Uuid::new_v4(),
        name: "1.0.0 web-1:4711".to_owned(),
        wings: Vec::new(),
        stations: std::collections::BTreeMap::new(),
        memory_bytes: None,
    };
    process::report(&world.db, &report).await.unwrap();
    let takes_jobs = tender(&world, &["doctor"]).await;
    assert!(!takes_jobs.out.contains("web-1:4711"), "{}", takes_jobs.out);
    assert!(!takes_jobs.out.contains("retention"), "{}", takes_jobs.out);
    process::drain(&world.db, report.id, "ada@desk", Some("new kernel")).await.unwrap();
    sqlx::query(
        "insert into apalis.jobs (id, job_type, job, status, done_at)
         values ('old', 'prune', '{}', 'Killed', now() - interval '8 days')",
    )
    .execute(&world.db)
    .await
    .unwrap();
    let doctor = tender(&world, &["doctor"]).await;
    let words = doctor.out.split_whitespace().collect::<Vec<_>>().join(" ");
    let says = |part: &str| assert!(words.contains(part), "{part}: {words}");
    says("web-1:4711 was drained by ada@desk");
    says("(new kernel) and takes no jobs");
    says("`tender process undrain web-1:4711` or a restart ends it");
    says("1 killed job older than FAILED_JOB_RETENTION_HOURS kept");
}
