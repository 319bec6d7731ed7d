//! `keys …`: the keys of the API `/api/v1`.

use anyhow::{Context, bail};
use clap::Subcommand;
use serde_json::json;
use tender_jobs::{console::api_key, queue};

use super::{
    ask::Yes,
    audit, load,
    migrate::check_exists,
    print::{self, Cell, Color, Column, Table},
    with_new_database,
};
use crate::{config::Needs, http::key_name, tokens};

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Create a key. Its token is shown once.
    Create {
        /// Name of the key.
        #[arg(default_value = "Admin Key", value_parser = named)]
        name: String,
    },
    /// List all keys, including revoked ones.
    List,
    /// Revoke a key. Its token is refused from then on. Asks for confirmation.
    Revoke {
        /// First characters of the key's token, enough to match only one active key.
        #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
        prefix: String,
        #[command(flatten)]
        yes: Yes,
    },
}

/// Parses the name of a key.
fn named(name: &str) -> Result<String, String> {
    key_name(name).map(|()| name.to_owned())
}

impl KeysCommand {
    pub(super) async fn run(self, json: bool) -> anyhow::Result<()> {
        let config = load(Needs::Database, "warn")?;
        if !matches!(self, Self::Create { .. }) {
            check_exists(&config)?;
        }
        with_new_database(&config, async |database| {
            let db = &database.pool;
            match &self {
                Self::Create { name } => {
                    let secret = config.api.key_secret.as_ref();
                    let secret = secret.context(
                        "API_KEY_HMAC_SECRET is not set: set it to the value that the API uses",
                    )?;
                    let mut tx = tender_jobs::database::begin(db).await?;
                    let new = tokens::create(&mut *tx, secret, name).await?;
                    audit::commit(tx, "create_key", &new.key.prefix, name).await?;
                    if json {
                        return print::json(&json!({ "key": new.key, "token": new.token }));
                    }
                    print::pairs(&[
                        ("name", new.key.name.clone()),
                        ("prefix", new.key.prefix.clone()),
                        ("token", new.token.clone()),
                    ])?;
                    print::line("\nStore the token now: it is not shown again.")
                }
                Self::List => list(db, json).await,
                Self::Revoke { prefix, yes } => revoke(db, prefix, *yes, json).await,
            }
        })
        .await
    }
}

const COLUMNS: [Column; 4] = [
    Column::whole("PREFIX", Column::ALWAYS),
    Column::text("NAME", 9, 12),
    Column::whole("STATE", 8),
    Column::whole("LAST USED", 5),
];

async fn list(db: &sqlx::PgPool, json: bool) -> anyhow::Result<()> {
    let keys = api_key::list(db, true).await?;
    if json {
        return print::json(&keys);
    }
    if keys.is_empty() {
        return print::line("No API keys found");
    }
    let now = queue::now(db).await?;
    let mut table = Table::new(&COLUMNS);
    for key in &keys {
        table.add_row(vec![
            Cell::new(&key.prefix),
            key.name.as_str().into(),
            match key.revoked_at {
                Some(_) => Cell::new("revoked").fg(Color::Red),
                None => Cell::new("active").fg(Color::Green),
            },
            key.last_used_at
                .map_or_else(|| "never".to_owned(), |at| print::relative(at, now))
                .into(),
        ]);
    }
    table.print()
}

async fn revoke(db: &sqlx::PgPool, prefix: &str, yes: Yes, json: bool) -> anyhow::Result<()> {
    let shown: String = prefix.chars().take(8).collect();
    let found = api_key::with_prefix(db, &shown).await?;
    match found.as_slice() {
        [] => bail!("no active key has the prefix {shown}; see `tender keys list`"),
        [key] => {
            let (prefix, name) = (&key.prefix, print::visible(&key.name));
            let question = format!("Revoke 1 key, {prefix} ({name})? Its requests are refused.");
            yes.or_asks(&question).await?;
            let mut tx = tender_jobs::database::begin(db).await?;
            api_key::revoke(&mut *tx, key.id).await?;
            audit::commit(tx, "revoke_key", &key.prefix, &key.name).await?;
            print::done(json, &format!("revoked {} ({})", key.prefix, key.name))
        }
        many => bail!("{} active keys have the prefix {shown}: give a longer prefix", many.len()),
    }
}
