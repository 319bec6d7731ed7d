//! The arguments of the `relay` commands.

use clap::{Args, ValueEnum};
use nostr::key::PublicKey;
use tender_jobs::provision::relay::{Change, Flags, RelayId, Search, Status, SyncState};

use crate::command::{failure::usage, print::Size};

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only relays with this status.
    #[arg(long, value_enum)]
    status: Option<StatusArg>,
    /// Only relays in this sync state.
    #[arg(long, value_enum)]
    sync: Option<SyncArg>,
    /// Only relays whose host or name contains this, or whose id or tenant starts with it. Those whose host is the
    /// text, or begins with it, come first.
    #[arg(long, value_name = "TEXT")]
    query: Option<String>,
    /// Only relays that wait for this zooid instance, as `instance list` names it.
    #[arg(long, value_name = "INSTANCE")]
    held_by: Option<String>,
    /// Only relays after this one in the list: the last one of the page before.
    #[arg(long, value_name = "ID")]
    after: Option<RelayId>,
    #[command(flatten)]
    pub(super) size: Size,
}

impl ListArgs {
    /// Returns the search that the arguments describe.
    pub(super) fn search(&self) -> Search {
        Search {
            status: self.status.map(Status::from),
            sync: self.sync.map(SyncState::from),
            text: self.query.as_deref().and_then(crate::search::normal),
            held_by: self.held_by.as_deref().map(|name| name.replace('\0', "")),
            after: self.after.clone(),
            ..Search::default()
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum StatusArg {
    Active,
    Inactive,
    Delinquent,
    Deleting,
}

impl From<StatusArg> for Status {
    fn from(status: StatusArg) -> Self {
        match status {
            StatusArg::Active => Self::Active,
            StatusArg::Inactive => Self::Inactive,
            StatusArg::Delinquent => Self::Delinquent,
            StatusArg::Deleting => Self::Deleting,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SyncArg {
    Synced,
    Pending,
    /// The last attempt failed, and a retry is scheduled.
    #[value(alias = "retrying")]
    Failing,
    #[value(name = "gave_up", alias = "gave-up")]
    GaveUp,
}

impl From<SyncArg> for SyncState {
    fn from(sync: SyncArg) -> Self {
        match sync {
            SyncArg::Synced => Self::Synced,
            SyncArg::Pending => Self::Pending,
            SyncArg::Failing => Self::Failing,
            SyncArg::GaveUp => Self::GaveUp,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    /// Domain of the relay's host, after the first label (default for a new relay: `RELAY_DOMAIN`).
    #[arg(long)]
    domain: Option<String>,
    /// Id of the billing plan.
    #[arg(long)]
    plan: Option<String>,
    /// Name that clients display.
    #[arg(long)]
    name: Option<String>,
    /// URL of the icon.
    #[arg(long)]
    icon: Option<String>,
    /// Description that clients display.
    #[arg(long)]
    description: Option<String>,
    /// Custom domain of the relay, such as relay.example.com.
    #[arg(long)]
    custom_domain: Option<String>,
    /// Switch a feature on; may be repeated.
    #[arg(long, value_name = "FLAG", value_parser = Flags::NAMES)]
    on: Vec<String>,
    /// Switch a feature off; may be repeated.
    #[arg(long, value_name = "FLAG", value_parser = Flags::NAMES)]
    off: Vec<String>,
}

/// Parses the public key of a tenant, in hex or as npub.
///
/// # Errors
/// A message for people.
pub(super) fn tenant(text: &str) -> Result<PublicKey, String> {
    let key = PublicKey::parse(text);
    let key = key.map_err(|_| "not a public key: give 64 hex digits, or npub1…".to_owned())?;
    match key.xonly() {
        Ok(_) => Ok(key),
        Err(_) => Err("not a public key: no secret key has it".to_owned()),
    }
}

/// The command whose spelling of the fields counts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Spelling {
    Create,
    Update,
}

impl Spelling {
    /// Returns a field of the API as it is typed.
    pub(super) fn of(self, field: &'static str) -> &'static str {
        match (field, self) {
            ("subdomain", Self::Create) => "SUBDOMAIN",
            ("subdomain", Self::Update) => "--subdomain",
            ("tenant_pubkey", _) => "--tenant",
            ("zooid_domain", _) => "--domain",
            ("plan_id", _) => "--plan",
            ("info_name", _) => "--name",
            ("info_icon", _) => "--icon",
            ("info_description", _) => "--description",
            ("custom_domain", _) => "--custom-domain",
            _ => field,
        }
    }
}

impl ChangeArgs {
    /// Returns the change that the arguments describe.
    ///
    /// # Errors
    /// A flag is switched both on and off.
    pub(super) fn into_change(self, subdomain: Option<String>) -> anyhow::Result<Change> {
        if let Some(flag) = self.on.iter().find(|flag| self.off.contains(flag)) {
            return Err(usage(format!(
                "--on {flag} and --off {flag} contradict each other: give one of them"
            )));
        }
        let named = |names: Vec<String>, on: bool| {
            Flags::NAMES
                .into_iter()
                .filter(move |name| names.iter().any(|n| n == name))
                .map(move |name| (name, on))
        };
        Ok(Change {
            subdomain,
            zooid_domain: self.domain,
            plan_id: self.plan,
            info_name: self.name,
            info_icon: self.icon,
            info_description: self.description,
            custom_domain: self.custom_domain,
            flags: named(self.on, true).chain(named(self.off, false)).collect(),
        })
    }
}
