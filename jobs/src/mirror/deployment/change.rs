//! Changes of the deployment's settings by operators.

use serde_json::{Map, Value, json};
use sqlx::{PgConnection, PgPool};

use super::{Deployment, Profile};
use crate::{
    console::operator::Entry,
    mirror::upstream::settings::{Settings, SettingsError},
};

/// One change of a setting. `profile` is a name too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Sets a name to a value.
    Set(String, Value),
    /// Returns a name to its default.
    Unset(String),
}

impl Edit {
    /// Reads `NAME=VALUE`. The value is JSON, or else a text.
    ///
    /// # Errors
    /// A message for people.
    pub fn parse_set(text: &str) -> Result<Self, String> {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| format!("{text} is not NAME=VALUE, such as poll_page_limit=300"))?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
        Ok(Self::Set(name.trim().to_owned(), value))
    }

    /// The name of the setting.
    pub fn name(&self) -> &str {
        match self {
            Self::Set(name, _) | Self::Unset(name) => name,
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Set(name, value) => format!("{name}={value}"),
            Self::Unset(name) => format!("unset {name}"),
        }
    }
}

/// Why the settings were not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Names or values are invalid; each message names its setting.
    #[error(transparent)]
    Invalid(#[from] SettingsError),
    /// The database is unreachable or refused a statement.
    #[error("could not store the settings")]
    Database(#[from] sqlx::Error),
}

/// Changes the settings, all edits or none, and records the action of the operator `who`.
///
/// # Errors
/// [`ChangeError::Invalid`].
pub async fn change(db: &PgPool, who: &str, edits: &[Edit]) -> Result<Deployment, ChangeError> {
    let mut tx = crate::database::begin(db).await?;
    let mut deployment = locked(&mut tx).await?;
    let before = told(&deployment);
    apply(&mut deployment, edits)?;
    sqlx::query!(
        "update mirror_setting set config = $1, profile = $2, updated_at = now()",
        Value::Object(deployment.config.clone()),
        deployment.profile.as_str(),
    )
    .execute(&mut *tx)
    .await?;
    let words: Vec<String> = edits.iter().map(Edit::words).collect();
    let words = words.join(", ");
    let entry = Entry::new(who, "configure_mirror", "deployment", &words);
    entry.changed(&before, &told(&deployment)).record(&mut *tx).await?;
    tx.commit().await?;
    Ok(deployment)
}

/// Returns the settings as the record of operators has them.
fn told(deployment: &Deployment) -> Value {
    let mut told = deployment.config.clone();
    told.insert("profile".to_owned(), json!(deployment.profile.as_str()));
    Value::Object(told)
}

async fn locked(tx: &mut PgConnection) -> Result<Deployment, sqlx::Error> {
    sqlx::query!("insert into mirror_setting default values on conflict do nothing")
        .execute(&mut *tx)
        .await?;
    let row = sqlx::query!("select config, profile from mirror_setting for update");
    let row = row.fetch_one(tx).await?;
    Ok(Deployment::of(Some((row.config, row.profile))))
}

fn apply(deployment: &mut Deployment, edits: &[Edit]) -> Result<(), SettingsError> {
    let (mut problems, mut config) = (repeated(edits), Map::new());
    for edit in edits {
        match edit {
            Edit::Set(name, value) if name == "profile" => match profile_of(value) {
                Some(profile) => deployment.profile = profile,
                None => problems.push("profile must be production or development".to_owned()),
            },
            Edit::Unset(name) if name == "profile" => deployment.profile = Profile::default(),
            Edit::Set(name, value) => {
                config.insert(name.clone(), value.clone());
            }
            Edit::Unset(name) if Settings::is_name(name) => {
                deployment.config.remove(name);
            }
            Edit::Unset(name) => {
                problems.push(format!("{name} is an unknown setting; see `tender mirror config`"));
            }
        }
    }
    if let Err(SettingsError(found)) = Settings::of_deployment(&Value::Object(config.clone())) {
        problems.extend(found);
    }
    deployment.config.extend(config);
    if problems.is_empty() { Ok(()) } else { Err(SettingsError(problems)) }
}

/// Returns a message for each name that is given more than once.
fn repeated(edits: &[Edit]) -> Vec<String> {
    let is_again = |index: usize, name: &str| edits[..index].iter().any(|one| one.name() == name);
    let again = edits.iter().enumerate().filter(|(index, edit)| is_again(*index, edit.name()));
    again.map(|(_, edit)| format!("{} is given more than once", edit.name())).collect()
}

fn profile_of(value: &Value) -> Option<Profile> {
    value.as_str().and_then(Profile::parse).filter(|profile| *profile != Profile::Off)
}
