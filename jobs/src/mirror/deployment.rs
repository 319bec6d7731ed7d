//! The deployment's settings: one row in the database, so that all processes agree. Operators change
//! it with [`change`], and every job reads it.
//!
//! `MIRROR_DEFAULTS` and `MIRROR_PROFILE` of the first process that has them are stored by [`import`].
//! Later, they have no effect: a process or a shell with another environment must not change which
//! events are mirrored.

mod change;

use serde_json::{Map, Value, json};
use sqlx::{PgExecutor, PgPool};

pub use change::{ChangeError, Edit, change};

use super::upstream::settings::Settings;

/// How often the recurring jobs of the mirror run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// Realtime every 5 min, uploads every 15 min, backfill every hour, a full run at 03:00.
    #[default]
    Production,
    /// Everything more often, and no full run.
    Development,
    /// This process enqueues no recurring job. It is never stored, because it concerns one process.
    Off,
}

impl Profile {
    /// Returns the name that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Development => "development",
            Self::Off => "off",
        }
    }

    /// Returns the profile with this name; `None` if there is none.
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Production, Self::Development, Self::Off];
        all.into_iter().find(|profile| profile.as_str() == text)
    }
}

/// The stored settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// The settings that are set, as a configuration. The others have their defaults.
    pub config: Map<String, Value>,
    /// How often the recurring jobs run.
    pub profile: Profile,
    /// Whether a row is stored; without one, everything has its default.
    pub is_stored: bool,
}

impl Deployment {
    /// Returns the settings in effect for an upstream that overrides none.
    pub fn settings(&self) -> Settings {
        Settings::of_stored(&self.config)
    }

    /// Returns the settings of a row, config and profile; `None` if none is stored.
    pub(super) fn of(row: Option<(Value, String)>) -> Self {
        let Some((config, profile)) = row else {
            return Self { config: Map::new(), profile: Profile::default(), is_stored: false };
        };
        let config = match config {
            Value::Object(config) => config,
            _ => Map::new(),
        };
        let profile = Profile::parse(&profile).unwrap_or_default();
        Self { config, profile, is_stored: true }
    }
}

/// The environment of a process, as far as it concerns the deployment's settings.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `MIRROR_DEFAULTS`, checked; `None` if it is not set.
    pub config: Option<Value>,
    /// `MIRROR_PROFILE`; `None` if it is not set.
    pub profile: Option<Profile>,
}

impl Environment {
    /// Returns the profile that the environment would store.
    fn stored_profile(&self) -> Option<Profile> {
        self.profile.filter(|profile| *profile != Profile::Off)
    }

    fn object(&self) -> Option<Map<String, Value>> {
        self.config.as_ref().and_then(Value::as_object).cloned()
    }

    /// Returns a sentence for each variable that contradicts the stored settings and therefore has no
    /// effect.
    pub fn contradictions(&self, deployment: &Deployment) -> Vec<String> {
        let mut found = Vec::new();
        if let Some(config) = self.object() {
            found.extend(contradiction(&config, deployment));
        }
        if let Some(profile) = self.stored_profile().filter(|own| *own != deployment.profile) {
            let (own, stored) = (profile.as_str(), deployment.profile.as_str());
            found.push(format!(
                "MIRROR_PROFILE is {own}, but the database says {stored}, and the database decides: \
                 remove the variable, or run `tender mirror config set profile={own}`"
            ));
        }
        found
    }
}

fn contradiction(config: &Map<String, Value>, deployment: &Deployment) -> Option<String> {
    let (own, stored) = (Settings::of_stored(config).to_json(), deployment.settings().to_json());
    let names: Vec<&str> = own
        .as_object()?
        .iter()
        .filter(|(name, value)| stored.get(name.as_str()) != Some(*value))
        .map(|(name, _)| name.as_str())
        .collect();
    (!names.is_empty()).then(|| {
        format!(
            "MIRROR_DEFAULTS differs from the settings in the database ({}), and the database \
             decides: remove the variable, or run `tender mirror config set NAME=VALUE`",
            names.join(", ")
        )
    })
}

/// Reads the stored settings.
pub async fn find(db: impl PgExecutor<'_>) -> Result<Deployment, sqlx::Error> {
    let row = sqlx::query!("select config, profile from mirror_setting").fetch_optional(db).await?;
    Ok(Deployment::of(row.map(|row| (row.config, row.profile))))
}

/// Reads the settings in effect for an upstream that overrides none.
pub async fn settings(db: impl PgExecutor<'_>) -> Result<Settings, sqlx::Error> {
    Ok(find(db).await?.settings())
}

/// Stores the environment's settings if none are stored, and returns the stored ones. Of several
/// processes that start at the same time, one stores its own.
pub async fn import(db: &PgPool, environment: &Environment) -> Result<Deployment, sqlx::Error> {
    let (config, profile) = (environment.object(), environment.stored_profile());
    if config.is_some() || profile.is_some() {
        sqlx::query!(
            "insert into mirror_setting (config, profile) values ($1, $2) on conflict do nothing",
            json!(config.unwrap_or_default()),
            profile.unwrap_or_default().as_str(),
        )
        .execute(db)
        .await?;
    }
    find(db).await
}
