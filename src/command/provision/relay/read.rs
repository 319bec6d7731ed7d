//! `relay list`, `show`, `activity`, `members`.

use anyhow::bail;
use serde_json::json;
use tender_jobs::{
    provision::{
        activity,
        relay::{self, RelayId},
    },
    queue,
};
use tender_workers::provision::zooid::Zooid;

use super::{arguments::ListArgs, find::find_part, view};
use crate::{command::print, config::Config, postgres::Database};

pub(super) async fn list(
    config: &Config,
    database: &Database,
    args: &ListArgs,
    json: bool,
) -> anyhow::Result<()> {
    let relays = relay::list(&database.pool, &args.search(), args.size.read()).await?;
    let (relays, cut) = args.size.cut(relays, |last| last.id.to_string());
    let max = config.provision.backoff.max_attempts();
    if json {
        print::json(&relays.iter().map(|relay| view::fields(relay, max)).collect::<Vec<_>>())?;
    } else if relays.is_empty() {
        print::line("no relays")?;
    } else {
        view::print_relays(&relays, max, queue::now(&database.pool).await?)?;
    }
    cut.say()
}

pub(super) async fn show(
    config: &Config,
    database: &Database,
    text: &str,
    json: bool,
) -> anyhow::Result<()> {
    let relay = find_part(&database.pool, text).await?;
    let records = activity::of_relay(&database.pool, &relay.id, None, 10).await?;
    if json {
        let mut view = view::fields(&relay, config.provision.backoff.max_attempts());
        view["activity"] = json!(records);
        return print::json(&view);
    }
    view::print(database, config, &relay, false).await?;
    print::line("")?;
    view::print_activity(&records)
}

pub(super) async fn show_activity(
    database: &Database,
    text: &str,
    limit: i64,
    json: bool,
) -> anyhow::Result<()> {
    // The activity outlives its relay.
    let id = match text.parse::<RelayId>() {
        Ok(id) => id,
        Err(_) => find_part(&database.pool, text).await?.id,
    };
    let records = activity::of_relay(&database.pool, &id, None, limit).await?;
    if records.is_empty() {
        bail!("there is no relay {text}, and there was none: give its id or whole host");
    }
    if json { print::json(&records) } else { view::print_activity(&records) }
}

pub(super) async fn members(
    config: &Config,
    database: &Database,
    text: &str,
    json: bool,
) -> anyhow::Result<()> {
    let relay = find_part(&database.pool, text).await?;
    let Some(settings) = config.zooid.clone() else { bail!("zooid is not configured") };
    let members = Zooid::new(settings)?.members(&relay).await?;
    if json {
        return print::json(&json!({ "members": members }));
    }
    members.iter().try_for_each(|member| print::line(member))
}
