//! `mirror config`: the settings, where each value is set, and changes of the deployment's.

use clap::Subcommand;
use serde_json::{Map, Value, json};
use sqlx::PgPool;
use tender_jobs::mirror::{
    deployment::{self, ChangeError, Deployment, Edit},
    upstream::settings::{NUMBERS, Settings},
};

use super::upstream::named;
use crate::command::{failure::usage, operator, print};

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Set settings of the deployment. Progress is kept; a changed filter starts only what is new.
    Set {
        /// `NAME=VALUE`, such as `poll_page_limit=300`, `'event_kinds=[1, 30023]'` or
        /// `profile=development`.
        #[arg(required = true, value_name = "NAME=VALUE", value_parser = Edit::parse_set)]
        settings: Vec<Edit>,
    },
    /// Return settings of the deployment to their defaults.
    Unset {
        /// Names of settings.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

pub(super) async fn change(db: &PgPool, command: ConfigCommand, json: bool) -> anyhow::Result<()> {
    let edits: Vec<Edit> = match command {
        ConfigCommand::Set { settings } => settings,
        ConfigCommand::Unset { names } => names.into_iter().map(Edit::Unset).collect(),
    };
    match deployment::change(db, &operator().who, &edits).await {
        Err(ChangeError::Invalid(problems)) => return Err(usage(problems.to_string())),
        changed => changed?,
    };
    print::done(json, &format!("changed the deployment's settings; {}", effect(&edits)))
}

/// The settings that a process reads only when it starts.
const AT_START: [&str; 3] = ["profile", "max_concurrent_connections", "max_live_connections"];

/// Returns when the processes use the changed settings.
fn effect(edits: &[Edit]) -> String {
    let names = edits.iter().map(Edit::name);
    let (late, soon): (Vec<&str>, Vec<&str>) = names.partition(|name| AT_START.contains(name));
    let soon = (!soon.is_empty())
        .then(|| format!("every process uses {} from its next job on", soon.join(", ")));
    let late = (!late.is_empty())
        .then(|| format!("a process uses {} after its next start: restart it", late.join(", ")));
    soon.into_iter().chain(late).collect::<Vec<_>>().join("; ")
}

/// The settings in effect, and where they are set.
struct Shown {
    settings: Settings,
    deployment: Deployment,
    own: Map<String, Value>,
}

impl Shown {
    fn origin(&self, name: &str) -> &'static str {
        match () {
            () if self.own.contains_key(name) => "upstream",
            () if self.deployment.config.contains_key(name) => "deployment",
            () => "default",
        }
    }

    fn origins(&self) -> Value {
        let all = self.settings.to_json();
        let names = all.as_object().into_iter().flat_map(Map::keys);
        names.map(|name| (name.clone(), json!(self.origin(name)))).collect()
    }
}

pub(super) async fn show(db: &PgPool, upstream: Option<&str>, as_json: bool) -> anyhow::Result<()> {
    let deployment = deployment::find(db).await?;
    let settings = deployment.settings();
    let shown = match upstream {
        None => Shown { settings, deployment, own: Map::new() },
        Some(name) => {
            let upstream = named(db, name).await?;
            let own = upstream.config.as_object().cloned().unwrap_or_default();
            Shown { settings: upstream.settings(&settings), deployment, own }
        }
    };
    if as_json {
        return print::json(&json!({
            "settings": shown.settings.to_json(), "origin": shown.origins(),
            "profile": shown.deployment.profile.as_str(), "overridden": shown.own,
        }));
    }
    print_settings(&shown)
}

fn print_settings(shown: &Shown) -> anyhow::Result<()> {
    let mut group = "";
    for number in NUMBERS {
        if number.group != group {
            group = number.group;
            print::line(&format!("\n{group}"))?;
        }
        let value = shown.settings.get(number);
        let years = if number.name == "backfill_since_hours" {
            format!(", {}.{} years", value / 8760, value % 8760 * 10 / 8760)
        } else {
            String::new()
        };
        line(shown, number.name, &format!("{value}{years}"))?;
        print::line(&format!("  {:<28} {}", "", number.about))?;
    }
    print::line("\nselection of events")?;
    let kinds = match &shown.settings.event_kinds {
        kinds if kinds.is_empty() => "all".to_owned(),
        kinds => format!("{kinds:?}"),
    };
    line(shown, "event_kinds", &kinds)?;
    line(shown, "filter", &Value::Object(shown.settings.filter.to_json()).to_string())?;
    print::line("\nschedule")?;
    print::line(&format!("  {:<28} {}", "profile", shown.deployment.profile.as_str()))
}

fn line(shown: &Shown, name: &str, value: &str) -> anyhow::Result<()> {
    let mark = match shown.origin(name) {
        "default" => "",
        "upstream" => " (set for this upstream)",
        _ => " (set for the deployment)",
    };
    print::line(&format!("  {name:<28} {value}{mark}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_says_from_when_on_it_holds() {
        let edits =
            ["batch_size=7", "profile=development"].map(|text| Edit::parse_set(text).unwrap());
        let both = effect(&edits);
        assert!(both.contains("batch_size from its next job on"), "{both}");
        assert!(both.contains("profile after its next start"), "{both}");
        assert!(!effect(&edits[..1]).contains("restart"));
    }
}
