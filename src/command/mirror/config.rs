//! `mirror config`: the settings, and where each value is set.

use serde_json::{Value, json};
use sqlx::PgPool;
use tender_jobs::mirror::upstream::settings::{NUMBERS, Settings};

use super::upstream::named;
use crate::{command::print, config::Config};

pub(super) async fn show(
    db: &PgPool,
    config: &Config,
    upstream: Option<&str>,
    as_json: bool,
) -> anyhow::Result<()> {
    let deployment = &config.mirror.defaults;
    let (settings, own) = match upstream {
        Some(name) => {
            let upstream = named(db, name).await?;
            (upstream.settings(deployment), upstream.config)
        }
        None => (deployment.clone(), json!({})),
    };
    if as_json {
        return print::json(&json!({ "settings": settings.to_json(), "overridden": own }));
    }
    print_settings(&settings, &own)
}

fn print_settings(settings: &Settings, own: &Value) -> anyhow::Result<()> {
    let mut group = "";
    for number in NUMBERS {
        if number.group != group {
            group = number.group;
            print::line(&format!("\n{group}"))?;
        }
        let value = settings.get(number);
        let mark = match () {
            () if own.get(number.name).is_some() => " (set for this upstream)",
            () if value != number.default => " (set in MIRROR_DEFAULTS)",
            () => "",
        };
        let years = if number.name == "backfill_since_hours" {
            format!(", {}.{} years", value / 8760, value % 8760 * 10 / 8760)
        } else {
            String::new()
        };
        print::line(&format!("  {:<28} {value}{years}{mark}", number.name))?;
        print::line(&format!("  {:<28} {}", "", number.about))?;
    }
    print::line("\nselection of events")?;
    let kinds = if settings.event_kinds.is_empty() {
        "all".to_owned()
    } else {
        format!("{:?}", settings.event_kinds)
    };
    print::line(&format!("  {:<28} {kinds}", "event_kinds"))?;
    print::line(&format!("  {:<28} {}", "filter", Value::Object(settings.filter.to_json())))
}
