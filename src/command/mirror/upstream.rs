//! `mirror add`, `list`, `update`, `remove`, `seed`: the commands on upstreams.

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde_json::Value;
use sqlx::PgPool;
use tender_jobs::mirror::{
    lane,
    upstream::{self, Change, Removal, Upstream, UpstreamError, UpstreamUrl},
};

use crate::{
    command::{
        ask::Yes,
        failure::wrong_fields,
        operator,
        print::{self, Cell, Color, Column, Table},
        provision,
    },
    search,
    words::counted,
};

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DirectionArg {
    Down,
    Up,
    Both,
}

#[derive(Debug, Args)]
pub(crate) struct Fields {
    /// Direction of the events: down from the upstream, up to it, or both.
    #[arg(long, value_enum)]
    direction: Option<DirectionArg>,
    /// Whether the upstream is mirrored at all.
    #[arg(long, value_name = "BOOL")]
    enabled: Option<bool>,
    /// Whether to download the upstream's history.
    #[arg(long, value_name = "BOOL")]
    backfill: Option<bool>,
    /// Whether to try NIP-77 (negentropy).
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    negentropy: Option<bool>,
    /// Whether to keep a subscription open and to push local events at once.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    live: Option<bool>,
    /// Whether the host may have an address that is not public, such as 127.0.0.1 or 10.0.0.1.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    private: Option<bool>,
    /// Notes for operators.
    #[arg(long)]
    notes: Option<String>,
    /// Settings that override the deployment's, as a JSON object; replaces all earlier overrides.
    /// See `tender mirror config`.
    #[arg(long, value_name = "JSON", value_parser = json_value)]
    config: Option<Value>,
}

/// Parses the settings of an upstream.
fn json_value(text: &str) -> Result<Value, String> {
    let parsed = serde_json::from_str(text);
    parsed.map_err(|error| format!("not JSON such as '{{\"poll_page_limit\": 300}}': {error}"))
}

/// Parses the address of a relay, and returns it as it was typed.
pub(in crate::command) fn address(text: &str) -> Result<String, &'static str> {
    UpstreamUrl::parse(text).map(|_| text.to_owned())
}

/// Returns the error of an upstream that was not stored.
fn refused(error: UpstreamError) -> anyhow::Error {
    match error {
        UpstreamError::Invalid(problems) => wrong_fields(&problems),
        error => error.into(),
    }
}

impl Fields {
    fn change(self) -> Change {
        let direction = self.direction.map(|direction| match direction {
            DirectionArg::Down => "down",
            DirectionArg::Up => "up",
            DirectionArg::Both => "both",
        });
        Change {
            enabled: self.enabled,
            backfill: self.backfill,
            negentropy: self.negentropy,
            live: self.live,
            direction: direction.map(str::to_owned),
            allow_private: self.private,
            notes: self.notes,
            config: self.config,
            by: Some(operator().who),
            ..Change::default()
        }
    }
}

pub(super) async fn update(
    db: &PgPool,
    name: &str,
    fields: Fields,
    json: bool,
) -> anyhow::Result<()> {
    let found = named(db, name).await?;
    let changed = upstream::update(db, found.id, &fields.change()).await.map_err(refused)?;
    said(&changed, "changed", json)
}

pub(super) async fn remove(db: &PgPool, name: &str, yes: Yes, json: bool) -> anyhow::Result<()> {
    let found = named(db, name).await?;
    let lanes = counted(lane::number(db, Some(found.id)).await?, "lane");
    let question =
        format!("Remove {} with the progress of {lanes}? Its events are kept.", found.url);
    yes.or_asks(&question).await?;
    upstream::delete(db, found.id, Some(&operator().who)).await?;
    let url = &found.url;
    print::done(
        json,
        &format!(
            "removing {url}: it has no more work, and its events are kept; `tender mirror list` shows \
             the removal until its rows are deleted"
        ),
    )
}

/// Finds an upstream by its address, its host or its id. The error lists those of which the name is a part.
pub(super) async fn named(db: &PgPool, name: &str) -> anyhow::Result<Upstream> {
    let found = upstream::find_named(db, name).await?.filter(|found| found.mirrored);
    if let Some(found) = found {
        return Ok(found);
    }
    let part = search::normal(name).unwrap_or_default();
    let named = upstream::matching(db, &part, 5).await?;
    match named.iter().map(|one| one.url.as_str()).collect::<Vec<_>>().as_slice() {
        [] => bail!("there is no upstream {name}; see `tender mirror list`"),
        urls => bail!("there is no upstream {name}; it is a part of {}", urls.join(", ")),
    }
}

fn said(upstream: &Upstream, what: &str, json: bool) -> anyhow::Result<()> {
    if json { print::json(upstream) } else { print::line(&format!("{what} {}", upstream.url)) }
}

pub(super) async fn add(
    db: &PgPool,
    url: Option<String>,
    hosted: Option<String>,
    fields: Fields,
    allows_private: bool,
    json: bool,
) -> anyhow::Result<()> {
    let mut change = fields.change();
    change.url = url;
    if let Some(hosted) = hosted {
        let relay = provision::find(db, &hosted).await?;
        change.url = Some(format!("wss://{}", relay.host()));
        change.relay_id = Some(relay.id.as_str().to_owned());
        // Our own relays often have addresses of our own network.
        change.allow_private = change.allow_private.or(Some(true));
    }
    let created = match upstream::create(db, &change).await {
        Err(UpstreamError::Taken) => {
            bail!("this upstream already exists; `tender mirror update` changes it")
        }
        created => created.map_err(refused)?,
    };
    said(&created, "added", json)?;
    warn_private(&created, allows_private);
    if !json {
        let mode = if created.direction.as_str() == "up" { "upload" } else { "backfill" };
        print::line(&format!(
            "mirroring starts at the next scheduled run; `tender mirror trigger {mode}` starts it now"
        ))?;
    }
    Ok(())
}

/// Says on standard error that an upstream is not reached, because its host is certain not to be public.
#[expect(clippy::print_stderr, reason = "a warning, beside the output")]
fn warn_private(created: &Upstream, allows_private: bool) {
    let url = &created.url;
    let is_allowed = allows_private || created.allow_private;
    if !is_allowed && UpstreamUrl::parse(url).is_ok_and(|url| url.is_private()) {
        eprintln!(
            "warning: {url} has no public address and is not reached; allow it by `tender mirror update \
             {url} --private true`, or for all upstreams by ALLOW_PRIVATE_UPSTREAMS=true"
        );
    }
}

const COLUMNS: [Column; 7] = [
    Column::text("URL", Column::ALWAYS, 30),
    Column::whole("", 9),
    Column::whole("DIRECTION", 6),
    Column::whole("BACKFILL", 3),
    Column::whole("NEGENTROPY", 3),
    Column::whole("LIVE", 4),
    Column::text("NOTES", 2, 10),
];

pub(super) async fn list(db: &PgPool, json: bool) -> anyhow::Result<()> {
    let upstreams = upstream::list(db).await?;
    if json {
        return print::json(&upstreams);
    }
    let removals = upstream::removals(db).await?;
    if upstreams.is_empty() && removals.is_empty() {
        return print::line(
            "no upstreams yet: `tender mirror add wss://relay.example.com` adds one",
        );
    }
    let mut table = Table::new(&COLUMNS);
    for one in &upstreams {
        table.add_row(vec![
            Cell::new(&one.url),
            if one.enabled { Cell::new("on").fg(Color::Green) } else { Cell::new("off") },
            one.direction.as_str().into(),
            yes(one.backfill).into(),
            negentropy_of(one).into(),
            yes(one.live).into(),
            one.notes.as_deref().unwrap_or_default().into(),
        ]);
    }
    if !upstreams.is_empty() {
        table.print()?;
    }
    for Removal { url, rows, .. } in &removals {
        print::line(&format!("removing {url}: {rows} rows deleted so far"))?;
    }
    Ok(())
}

pub(super) fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

/// Returns whether NIP-77 is tried, with the verdict on the upstream's support if it is known.
pub(super) fn negentropy_of(upstream: &Upstream) -> String {
    match (upstream.negentropy, upstream.negentropy_verdict.as_str()) {
        (false, _) => "no".to_owned(),
        (true, "unknown") => "yes".to_owned(),
        (true, verdict) => format!("yes ({verdict})"),
    }
}

pub(super) async fn seed(
    db: &PgPool,
    file: &std::path::Path,
    allows_private: bool,
    json: bool,
) -> anyhow::Result<()> {
    let text = tokio::fs::read_to_string(file).await;
    let text = text.with_context(|| format!("failed to read {}", file.display()))?;
    let changes: Vec<Change> = serde_json::from_str(&text).with_context(|| {
        format!(
            "{} is not a JSON list such as [{{\"url\": \"wss://relay.example.com\"}}]",
            file.display()
        )
    })?;
    let mut seeded = Vec::with_capacity(changes.len());
    for change in changes {
        let url = change.url.clone().unwrap_or_default();
        let change = Change { by: Some(operator().who), ..change };
        match upstream::create(db, &change).await {
            Ok(created) => {
                warn_private(&created, allows_private);
                seeded.push(("Created", created.url));
            }
            Err(UpstreamError::Taken) => seeded.push(("Exists", url)),
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("failed to add {url} from {}", file.display()));
            }
        }
    }
    if json {
        return print::json(&seeded);
    }
    for (what, url) in &seeded {
        print::line(&format!("{what:<8} {url}"))?;
    }
    print::line(&format!("{} upstreams", upstream::list(db).await?.len()))
}
