//! `grasp explain`: what each service would decide on an event, and why.

use std::{fs::File, io::Read};

use anyhow::{Context, bail};
use sqlx::PgPool;
use tender_jobs::{
    grasp::admission::{self, Explained},
    mirror::event::{self, Event, EventId, Limits},
};

use crate::command::{failure::usage, print};

/// The largest event, in bytes.
const MAX_EVENT: u64 = 4 * 1024 * 1024;

pub(super) async fn explain(db: &PgPool, asked: &str, as_json: bool) -> anyhow::Result<()> {
    if asked.trim().is_empty() {
        return Err(usage(
            "EVENT is empty: give its JSON, a file with it, an id of 64 hex characters, or `-`",
        ));
    }
    let event = match EventId::parse(&asked.to_ascii_lowercase()) {
        Some(id) => admission::find_event(db, id).await?.with_context(|| {
            format!(
                "event {asked} is neither stored nor parked with its body: no relay has delivered it, or it was \
                 forgotten; give its JSON instead"
            )
        })?,
        None => parsed(&text(asked).await?)?,
    };
    let explained = admission::explain(db, &event).await?;
    if as_json {
        return print::json(&explained);
    }
    if explained.is_empty() {
        return print::line("no service is enabled; see `tender grasp list`");
    }
    explained.iter().try_for_each(print_one)
}

/// Returns the JSON of an event: the argument itself, standard input, or a file.
async fn text(asked: &str) -> anyhow::Result<String> {
    if asked.trim_start().starts_with('{') {
        return Ok(asked.to_owned());
    }
    let name = asked.to_owned();
    let read = tokio::task::spawn_blocking(move || match name.as_str() {
        "-" => std::io::read_to_string(std::io::stdin().lock().take(MAX_EVENT)),
        file => std::io::read_to_string(File::open(file)?.take(MAX_EVENT)),
    });
    read.await?.with_context(|| {
        format!(
            "{asked} is neither an event as JSON, an id of 64 hex characters, `-`, nor a file that can be read"
        )
    })
}

/// Parses and verifies an event. Admission is asked only of genuine events.
fn parsed(text: &str) -> anyhow::Result<Event> {
    let genuine = serde_json::from_str::<nostr::event::Event>(text.trim());
    let genuine = genuine.context("the event is not a Nostr event as JSON")?;
    if let Err(error) = genuine.verify() {
        bail!("the event is forged ({error}): it is rejected before admission is asked");
    }
    let limits = Limits { bytes: usize::MAX, tags: usize::MAX };
    match event::parse(text.trim(), limits) {
        Ok(event) => Ok(event),
        Err(unusable) => {
            bail!("the event is rejected before admission is asked: {}", unusable.words())
        }
    }
}

fn print_one(one: &Explained) -> anyhow::Result<()> {
    print::line(&format!("{}: {} ({})", one.url, one.verdict.replace('-', " "), one.code))?;
    print::line(&format!("  {}", one.sentence))?;
    for address in &one.through {
        print::line(&format!("  through {}", crate::words::address(address)))?;
    }
    for told in &one.waits_for {
        print::line(&format!("  {}", print::visible(told)))?;
    }
    Ok(())
}
