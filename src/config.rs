//! Configuration. Only this module reads the environment, and it reads each variable once. An error
//! lists every invalid or missing variable, each with its name and an example.

mod connections;
mod env;
mod file;
mod mirror;
mod provision;
mod proxies;
mod runtime;

use std::{collections::HashMap, fmt, net::SocketAddr, path::PathBuf, time::Duration};

use nostr::key::PublicKey;
use reqwest::Url;
use secrecy::SecretString;
use tender_jobs::{
    mirror::deployment,
    provision::{backoff::Backoff, instance::Instances},
    queue::Retention,
};
use tender_workers::provision::{
    self as provisioning,
    zooid::{ZooidSettings, name_of},
};

pub use connections::ConnectionLimits;
pub use env::{Env, NAMES};
pub use file::path as env_file;
pub use proxies::{Proxies, network, site};

/// The variables that a command requires, beyond those that have defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// No variable.
    Database,
    /// The variables of every configured wing. `ZOOID_API_URL` configures provisioning.
    Wings,
    /// The domain of new relays.
    Relays,
    /// The domain of new relays, and access to zooid.
    Zooid,
}

/// The configuration, parsed.
#[derive(Debug, Clone)]
pub struct Config {
    /// The connection to the database.
    pub database: DatabaseConfig,
    /// The HTTP API and the dashboard.
    pub api: ApiConfig,
    /// zooid; `None` if provisioning is not configured.
    pub zooid: Option<ZooidSettings>,
    /// The settings of provisioning.
    pub provision: provisioning::Settings,
    /// The settings of the mirror.
    pub mirror: tender_workers::mirror::Settings,
    /// The variables that are stored once as the deployment's settings of the mirror.
    pub mirror_environment: deployment::Environment,
    /// How this process fetches and runs jobs.
    pub runtime: tender_workers::runtime::Settings,
    /// How long finished jobs are kept.
    pub retention: Retention,
    /// The log and the traces.
    pub log: LogConfig,
}

/// The database that Tender uses.
#[derive(Debug, Clone)]
pub struct DatabaseConfig {
    /// The URL of the operator's database; `None` means a private PostgreSQL.
    pub url: Option<SecretString>,
    /// The directory of the private PostgreSQL's files.
    pub data_dir: PathBuf,
    /// The directory of PostgreSQL's programs; `None` means that Tender searches for them.
    pub pg_bin: Option<PathBuf>,
    /// The most connections of one process.
    pub max_connections: u32,
    /// Whether `serve` migrates the database when it starts.
    pub migrate_on_start: bool,
    /// Whether a pooler in transaction mode lies before the database; `DATABASE_LISTEN_URL` is then
    /// set.
    pub is_pooled: bool,
}

/// The settings of the HTTP API and of the dashboard.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// The address at which the API listens.
    pub bind: SocketAddr,
    /// The address at which a process without an API serves its metrics; `None` means that it does
    /// not.
    pub metrics_bind: Option<SocketAddr>,
    /// The URL that clients use, without a trailing slash. NIP-98 events must name it.
    pub base_url: String,
    /// The public keys that may read and change every relay.
    pub admins: Vec<PublicKey>,
    /// The domain of new relays that name none; empty if it is not configured.
    pub relay_domain: String,
    /// Every domain of our zooid instances.
    pub domains: Vec<String>,
    /// The zooid instance of each domain.
    pub instances: Instances,
    /// The most relays of a tenant; admins may create more.
    pub relays_per_tenant: u32,
    /// Requests per second of one caller; bursts may be twice as large.
    pub rate_limit: u32,
    /// The limits of the connections of the API and of the metrics.
    pub connections: ConnectionLimits,
    /// The proxies whose `X-Forwarded-For` names the address of a client.
    pub proxies: Proxies,
    /// Whether `/stats` requires an API key or a session of the dashboard.
    pub stats_auth: bool,
    /// When a failed SyncRelay attempt is retried, as shown to operators.
    pub backoff: Backoff,
    /// When a relay that gave up after a transient failure starts over; zero means never.
    pub exhausted_after: Duration,
    /// The public keys that may read the dashboard, but not act.
    pub viewers: Vec<PublicKey>,
    /// The password of the dashboard, or its argon2 hash; `None` disables this login.
    pub dashboard_password: Option<SecretString>,
    /// HMAC key of API tokens; without it `/api/v1` answers 503.
    pub key_secret: Option<SecretString>,
    /// Whether callers of the API may add upstreams whose address is not public.
    pub allow_private_upstreams: bool,
}

/// The settings of the log and the traces.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// A level, or the directives of tracing's `EnvFilter`; `None` means the default of the
    /// command.
    pub level: Option<String>,
    /// Whether lines are JSON instead of text.
    pub json: bool,
    /// The URL of the collector of traces. It has an effect only in a build with the feature
    /// `otel`.
    pub traces: Option<Url>,
}

/// An invalid or missing variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The name of the variable.
    pub name: &'static str,
    /// The violated rule and an example, worded to follow the variable's name.
    pub problem: String,
}

/// Every invalid or missing variable of a configuration.
#[derive(Debug, thiserror::Error)]
pub struct ConfigError(pub Vec<Problem>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration is invalid (see .env.example):")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {}: {}", problem.name, problem.problem))
    }
}

impl Config {
    /// Reads the process's environment and the file `.env`. The environment takes precedence.
    ///
    /// # Errors
    /// Every variable that is invalid, or that is missing and that `needs` requires.
    pub fn load(needs: Needs) -> Result<Self, ConfigError> {
        Self::read(&mut Env::of_process(), needs)
    }

    /// Reads the configuration from `env`.
    ///
    /// # Errors
    /// Every variable that is invalid, or that is missing and that `needs` requires.
    pub fn read(env: &mut Env, needs: Needs) -> Result<Self, ConfigError> {
        let instances = instances(env);
        let robot = provision::robot(env);
        let provision = provision::settings(env);
        let mirror_environment = mirror::environment(env);
        let mirror = mirror::mirror(env, &mirror_environment);
        let zooid = provision::zooid(env, needs, instances.clone(), robot);
        let relay_domain = relay_domain(env, needs);
        let config = Self {
            database: database(env),
            api: ApiConfig {
                instances: instance_names(zooid.as_ref(), &instances),
                backoff: provision.backoff,
                exhausted_after: provision.exhausted_after,
                allow_private_upstreams: mirror.allow_private,
                ..api(env, relay_domain, &instances)
            },
            zooid,
            provision,
            mirror,
            mirror_environment,
            runtime: runtime::runtime(env),
            retention: runtime::retention(env),
            log: log(env),
        };
        env.renamed();
        let problems = env.problems();
        if problems.is_empty() { Ok(config) } else { Err(ConfigError(problems)) }
    }
}

fn database(env: &mut Env) -> DatabaseConfig {
    let example = "postgres://user:password@localhost/tender";
    let url = env.parse("DATABASE_URL", example, |text| {
        is_postgres_url(text).then(|| SecretString::from(text))
    });
    let is_pooled = env.text("DATABASE_LISTEN_URL").is_some() && url.is_some();
    DatabaseConfig {
        url,
        data_dir: env.text("TENDER_DATA_DIR").unwrap_or_else(|| ".tender".into()).into(),
        pg_bin: env.text("TENDER_PG_BIN").map(PathBuf::from),
        max_connections: env.number("DATABASE_MAX_CONNECTIONS", 24, 4..=1000),
        migrate_on_start: env.flag("MIGRATE_ON_START", true),
        is_pooled,
    }
}

fn is_postgres_url(text: &str) -> bool {
    let is_postgres = text.starts_with("postgres://") || text.starts_with("postgresql://");
    is_postgres && Url::parse(text).is_ok()
}

fn relay_domain(env: &mut Env, needs: Needs) -> String {
    let example = "spaces.example.com";
    let domain = env.parse("RELAY_DOMAIN", example, domain_name);
    let is_needed = match needs {
        Needs::Database => false,
        Needs::Relays | Needs::Zooid => true,
        Needs::Wings => env.text("ZOOID_API_URL").is_some(),
    };
    if domain.is_none() && is_needed {
        env.missing("RELAY_DOMAIN", example);
    }
    domain.unwrap_or_default()
}

fn domain_name(text: &str) -> Option<String> {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    (text.len() <= 253 && text.split('.').all(is_label)).then(|| text.to_owned())
}

fn api(env: &mut Env, relay_domain: String, instances: &HashMap<String, Url>) -> ApiConfig {
    let default_bind = SocketAddr::from(([127, 0, 0, 1], 4848));
    let bind = env.parse("API_BIND", "127.0.0.1:4848", |text| text.parse().ok());
    let bind = bind.unwrap_or(default_bind);
    let metrics_bind = env.parse("METRICS_BIND", "127.0.0.1:4849", |text| text.parse().ok());
    let base_url = env.parse("API_BASE_URL", "https://api.example.com", |text| {
        http_url(text).map(|url| url.as_str().trim_end_matches('/').to_owned())
    });
    let (admins, viewers) = (keys(env, "ADMIN_PUBKEYS"), keys(env, "VIEWER_PUBKEYS"));
    let mut domains: Vec<String> = instances.keys().cloned().collect();
    domains.sort();
    if !relay_domain.is_empty() && !domains.contains(&relay_domain) {
        domains.insert(0, relay_domain.clone());
    }
    ApiConfig {
        bind,
        metrics_bind,
        base_url: base_url.unwrap_or_else(|| format!("http://{bind}")),
        admins,
        backoff: Backoff::default(),     // set by the caller
        exhausted_after: Duration::ZERO, // set by the caller
        viewers,
        dashboard_password: env.text("DASHBOARD_PASSWORD").map(SecretString::from),
        relay_domain,
        domains,
        instances: Instances::default(), // set by the caller
        relays_per_tenant: env.number("RELAYS_PER_TENANT", 100, 1..=1_000_000),
        rate_limit: env.number("API_RATE_LIMIT", 50, 1..=1_000_000),
        connections: connections::connections(env),
        proxies: env
            .parse("TRUSTED_PROXIES", "10.0.0.0/8,192.0.2.7", Proxies::parse)
            .unwrap_or_default(),
        stats_auth: env.flag("STATS_AUTH_ENABLED", true),
        key_secret: mirror::key_secret(env),
        allow_private_upstreams: false, // set by the caller
    }
}

fn keys(env: &mut Env, name: &'static str) -> Vec<PublicKey> {
    let keys = env.parse(name, "npub1…,<64 hex digits>", |text| {
        let key = |key: &str| PublicKey::parse(key.trim()).ok().filter(|key| key.xonly().is_ok());
        text.split(',').map(key).collect()
    });
    keys.unwrap_or_default()
}

fn http_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url)
}

fn instances(env: &mut Env) -> HashMap<String, Url> {
    let example = "a.example.com=http://zooid-a:3334,b.example.com=http://zooid-b:3334";
    let instances = env.parse("ZOOID_INSTANCES", example, |text| {
        let pair = |pair: &str| {
            let (domain, url) = pair.trim().split_once('=')?;
            Some((domain_name(domain)?, http_url(url)?))
        };
        let urls = text.split(',').map(pair).collect::<Option<HashMap<_, _>>>()?;
        // A domain that is named twice has one instance too many.
        (urls.len() == text.split(',').count()).then_some(urls)
    });
    instances.unwrap_or_default()
}

/// Returns the name of the instance of each domain. A process that does not provision may not know the
/// default instance; its name is then empty.
fn instance_names(zooid: Option<&ZooidSettings>, urls: &HashMap<String, Url>) -> Instances {
    Instances {
        default: zooid.map(|zooid| name_of(&zooid.default_url)).unwrap_or_default(),
        by_domain: urls.iter().map(|(domain, url)| (domain.clone(), name_of(url))).collect(),
        // This process makes no claim with them.
        max_in_flight: 0,
        timeout: Duration::ZERO,
    }
}

fn log(env: &mut Env) -> LogConfig {
    let format = env.parse("LOG_FORMAT", "text or json", |text| match text {
        "text" => Some(false),
        "json" => Some(true),
        _ => None,
    });
    let level = env.parse("LOG_LEVEL", "info or tender=debug,warn", |text| {
        tracing_subscriber::EnvFilter::try_new(text).ok().map(|_| text.to_owned())
    });
    let traces = env.parse("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318", http_url);
    LogConfig { level, json: format.unwrap_or(false), traces }
}

#[cfg(test)]
mod tests;
