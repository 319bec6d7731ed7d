//! What is in `deploy/` names metrics that exist, and every alert is explained.

mod promtool;

use std::collections::BTreeSet;

use tender_jobs::grasp::policy::{Reason, Rule};

use crate::support::api::TestApi;

const ALERTS: &str = include_str!("../../deploy/alerts.yml");
const GRAFANA: &str = include_str!("../../deploy/grafana-dashboard.json");
const CATALOGUE: &str = include_str!("../../src/telemetry/catalogue.rs");
const OPERATING: &str = include_str!("../../docs/OPERATING.md");

/// Everything that looks like a metric of ours, without the suffixes of histograms.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !is_part(c))
        .filter(|word| word.starts_with("tender_"))
        .map(|word| word.trim_end_matches("_bucket").to_owned())
        .collect()
}

#[tokio::test]
async fn panels_and_alerts_name_metrics_that_exist() {
    let api = TestApi::new().await;
    api.world.relay("alpha").await;
    api.world.attempt().await;
    let page = api.http.get(format!("{}/metrics", api.base_url)).send().await.unwrap();
    let page = page.text().await.unwrap();
    let known = metrics_in(CATALOGUE);
    for metric in metrics_in(ALERTS).into_iter().chain(metrics_in(GRAFANA)) {
        assert!(known.contains(&metric), "{metric} is not a metric");
    }
    for line in
        ["tender_relays{state=\"synced\"}", "tender_breaker_open{", "tender_database_connections{"]
    {
        assert!(page.contains(line), "{line}: {page}");
    }
}

#[test]
fn every_alert_is_explained() {
    let alerts: Vec<_> =
        ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 5);
    for alert in alerts {
        assert!(OPERATING.contains(&format!("### {alert}\n")), "{alert}");
    }
}

#[test]
fn every_rule_and_reason_of_admission_is_in_the_chapter() {
    let chapter = include_str!("../../docs/GRASP.md");
    let rules = Rule::ALL.iter().map(|rule| rule.as_str());
    for code in rules.chain(Reason::ALL.iter().map(|reason| reason.as_str())) {
        assert!(chapter.contains(&format!("| `{code}` |")), "{code}");
    }
}

#[test]
fn the_dashboard_is_json_with_a_query_and_a_description_in_each_panel() {
    let dashboard: serde_json::Value = serde_json::from_str(GRAFANA).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(!panel["targets"][0]["expr"].as_str().unwrap().is_empty(), "{panel}");
        assert!(panel["description"].as_str().is_some_and(|text| text.len() > 20), "{panel}");
    }
}
