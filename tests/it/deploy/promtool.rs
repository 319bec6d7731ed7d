//! Prometheus's own tool checks the metrics, the rules, and the tests of the rules.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{ALERTS, CATALOGUE, metrics_in};
use crate::support::{api::TestApi, grasp_rows};

/// promtool: where `PROMTOOL` says, or where `bin/test` puts it, or where the system has it.
#[expect(clippy::disallowed_methods, reason = "not a setting of Tender")]
fn promtool() -> Command {
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/prometheus/usr/bin/promtool");
    let usual = if Path::new(ours).exists() { ours } else { "promtool" };
    Command::new(std::env::var("PROMTOOL").unwrap_or_else(|_| usual.to_owned()))
}

/// Runs promtool with this input. It must accept it; what it says is returned.
fn accepts(arguments: &[&str], input: &str) -> String {
    let mut child = promtool()
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed: bin/test does that");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    said
}

async fn page(api: &TestApi) -> String {
    let page = api.http.get(format!("{}/metrics", api.base_url)).send().await.unwrap();
    page.text().await.unwrap()
}

#[tokio::test]
async fn promtool_accepts_the_metrics() {
    let api = TestApi::new().await;
    api.world.relay("alpha").await;
    api.world.attempt().await;
    grasp_rows::fill(&api.world.db).await;
    let page = page(&api).await;
    assert_eq!(accepts(&["check", "metrics"], &page), "", "{page}");
    let helps: Vec<_> = page.lines().filter(|line| line.starts_with("# HELP ")).collect();
    for line in &helps {
        assert!(line.contains(". Unit: ") && line.ends_with('.'), "{line}");
    }
    let types = page.lines().filter(|line| line.starts_with("# TYPE "));
    assert_eq!(helps.len(), types.count(), "{page}");
}

#[test]
fn the_catalogue_has_every_metric_and_no_other() {
    let mut named = BTreeSet::new();
    for folder in ["src", "workers/src", "jobs/src"] {
        names_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut named);
    }
    let cookies = ["tender_notice", "tender_scheme"];
    named.retain(|name| !cookies.contains(&name.as_str()));
    assert_eq!(named, metrics_in(CATALOGUE));
}

/// Collects the quoted names that look like metrics.
fn names_below(folder: &Path, named: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        if path.is_dir() {
            names_below(&path, named);
        } else if !path.ends_with("telemetry/catalogue.rs") {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let quoted = text.split('"').filter(|part| part.starts_with("tender_"));
            let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
            named.extend(quoted.filter(|name| name.chars().all(is_name)).map(str::to_owned));
        }
    }
}

#[tokio::test]
async fn every_counter_begins_at_zero() {
    let api = TestApi::new().await;
    let page = page(&api).await;
    for series in [
        "tender_leases_lost_total ",
        "tender_jobs_rescued_total ",
        "tender_relays_reasserted_total ",
        "tender_job_attempts_total{queue=\"sync-relay\",outcome=\"gave_up\"} ",
        "tender_job_attempts_total{queue=\"prune\",outcome=\"killed\"} ",
        "tender_schedule_ticks_total{queue=\"prune\"} ",
        "tender_zooid_requests_total{method=\"PATCH\",class=\"error\"} ",
        "tender_events_total{outcome=\"bad-signature\"} ",
        "tender_uploads_total{outcome=\"rejected\"} ",
        "tender_http_connections_refused_total{reason=\"limit\"} ",
        "tender_http_requests_total{route=\"/relays/{id}/sync\",method=\"POST\",status=\"429\"} ",
    ] {
        assert!(page.lines().any(|line| line.starts_with(series)), "{series}: {page}");
    }
    for counter in CATALOGUE.split("(\"").skip(1).filter(|part| part.contains("\", Counter,")) {
        let name = counter.split('"').next().unwrap();
        let is_of_rows = name.starts_with("tender_grasp_") || name.starts_with("tender_lane_");
        assert!(is_of_rows || page.contains(&format!("# TYPE {name} counter")), "{name}: {page}");
    }
}

#[test]
fn promtool_accepts_the_rules() {
    accepts(&["check", "rules", "deploy/alerts.yml"], "");
}

#[test]
fn every_alert_fires_when_it_must_and_not_before() {
    let tests = ["provision", "queue", "mirror", "grasp"];
    let files = tests.map(|name| format!("deploy/tests/{name}.yml"));
    let mut arguments = vec!["test", "rules"];
    arguments.extend(files.iter().map(String::as_str));
    accepts(&arguments, "");
    let all = files.map(|file| fs::read_to_string(file).unwrap()).concat();
    let checks: Vec<&str> = all.split("eval_time:").skip(1).collect();
    for alert in ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let of = checks.iter().filter(|check| check.contains(&format!("alertname: {alert}\n")));
        let (firing, quiet): (Vec<&&str>, Vec<_>) = of.partition(|c| c.contains("exp_alerts"));
        assert!(!firing.is_empty() && !quiet.is_empty(), "{alert}");
    }
}
