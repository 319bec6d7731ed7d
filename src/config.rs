//! Configuration: the only room that reads the environment. Everything is read once, and everything
//! wrong or missing is said at once, each with its name and an example.

mod env;
mod sync;
mod work;
mod zooid;

use std::{collections::HashMap, fmt, net::SocketAddr, path::PathBuf};

use nostr::key::PublicKey;
use reqwest::Url;
use secrecy::SecretString;
use tender_workers::{Settings, zooid::ZooidSettings};

pub use env::{Env, NAMES};
use work::work;
use zooid::zooid;

/// What must be set for a command, beyond what has a default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Only the database.
    Database,
    /// The API: also the domain of new relays.
    Api,
    /// Workers: also zooid.
    Zooid,
}

/// Everything that an operator can set.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the ledger is.
    pub database: DatabaseConfig,
    /// The HTTP API.
    pub api: ApiConfig,
    /// zooid, when it is configured.
    pub zooid: Option<ZooidSettings>,
    /// The workers, of every queue.
    pub work: Settings,
    /// The log.
    pub log: LogConfig,
}

/// Where the ledger is.
#[derive(Debug, Clone)]
pub struct DatabaseConfig {
    /// A PostgreSQL of the operator's; without it a private one is used.
    pub url: Option<SecretString>,
    /// Where the private one keeps its files.
    pub data_dir: PathBuf,
    /// Where its programs are, when they are not in a usual place.
    pub pg_bin: Option<PathBuf>,
    /// Connections of one process.
    pub max_connections: u32,
}

/// The HTTP API.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Where it listens.
    pub bind: SocketAddr,
    /// Where workers without an API show their metrics, if they do.
    pub metrics_bind: Option<SocketAddr>,
    /// How clients call it, without a trailing slash; what NIP-98 events must name.
    pub base_url: String,
    /// Keys that see and change every relay.
    pub admins: Vec<PublicKey>,
    /// Domain of a new relay that names none.
    pub relay_domain: String,
    /// Every domain that we serve.
    pub domains: Vec<String>,
    /// Requests per second of one caller; bursts of twice as many.
    pub rate_limit: u32,
    /// Attempts of a sync, the first included: what people are told.
    pub max_attempts: u32,
    /// Keys that may look at the dashboard and not act.
    pub viewers: Vec<PublicKey>,
    /// Lets in to the dashboard without a key: itself, or its argon2 hash.
    pub dashboard_password: Option<SecretString>,
    /// Under which tokens of event sync's API are recognised; without it that API is closed.
    pub key_secret: Option<SecretString>,
    /// What upstreams do not set differently.
    pub sync: tender_jobs::upstream::settings::Settings,
}

/// The log.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// A level, or directives as tracing's `EnvFilter` takes them; `None`: the command's default.
    pub level: Option<String>,
    /// JSON lines instead of text.
    pub json: bool,
    /// Where traces go, in a build that can send them.
    pub traces: Option<Url>,
}

/// One variable that is wrong or missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The variable.
    pub name: &'static str,
    /// What is wrong with it, and an example.
    pub problem: String,
}

/// Everything that is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub struct ConfigError(pub Vec<Problem>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration cannot be used (see .env.example):")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {}: {}", problem.name, problem.problem))
    }
}

impl Config {
    /// Reads the process's environment and the file `.env`; the environment wins.
    ///
    /// # Errors
    /// Every variable that is wrong, or missing for `needs`.
    pub fn load(needs: Needs) -> Result<Self, ConfigError> {
        Self::read(&mut Env::of_process(), needs)
    }

    /// Reads `env`.
    ///
    /// # Errors
    /// Every variable that is wrong, or missing for `needs`.
    pub fn read(env: &mut Env, needs: Needs) -> Result<Self, ConfigError> {
        let relay_domain = relay_domain(env, needs);
        let instances = instances(env);
        let robot = zooid::robot(env);
        let work = work(env, robot.as_ref());
        let config = Self {
            database: database(env),
            api: ApiConfig {
                max_attempts: work.backoff.max_attempts(),
                sync: work.sync.settings.clone(),
                ..api(env, relay_domain, &instances)
            },
            zooid: zooid(env, needs, instances, robot),
            work,
            log: log(env),
        };
        let problems = env.problems();
        if problems.is_empty() { Ok(config) } else { Err(ConfigError(problems)) }
    }
}

fn database(env: &mut Env) -> DatabaseConfig {
    let example = "postgres://user:password@localhost/tender";
    let url = env.parse("DATABASE_URL", example, |text| {
        is_postgres_url(text).then(|| SecretString::from(text))
    });
    DatabaseConfig {
        url,
        data_dir: env.text("TENDER_DATA_DIR").unwrap_or_else(|| ".tender".into()).into(),
        pg_bin: env.text("TENDER_PG_BIN").map(PathBuf::from),
        max_connections: env.number("DATABASE_MAX_CONNECTIONS", 24, 4..=1000),
    }
}

fn is_postgres_url(text: &str) -> bool {
    let is_postgres = text.starts_with("postgres://") || text.starts_with("postgresql://");
    is_postgres && Url::parse(text).is_ok()
}

fn relay_domain(env: &mut Env, needs: Needs) -> String {
    let example = "spaces.example.com";
    let domain = env.parse("RELAY_DOMAIN", example, domain_name);
    if domain.is_none() && needs != Needs::Database {
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
        max_attempts: 0, // known with the schedule
        viewers,
        dashboard_password: env.text("DASHBOARD_PASSWORD").map(SecretString::from),
        relay_domain,
        domains,
        rate_limit: env.number("API_RATE_LIMIT", 50, 1..=1_000_000),
        key_secret: sync::key_secret(env),
        sync: tender_jobs::upstream::settings::Settings::default(), // known once the workers' is read
    }
}

fn keys(env: &mut Env, name: &'static str) -> Vec<PublicKey> {
    let keys = env.parse(name, "npub1…,<64 hex digits>", |text| {
        text.split(',').map(|key| PublicKey::parse(key.trim()).ok()).collect()
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
        text.split(',')
            .map(|pair| {
                let (domain, url) = pair.trim().split_once('=')?;
                Some((domain_name(domain)?, http_url(url)?))
            })
            .collect::<Option<HashMap<_, _>>>()
    });
    instances.unwrap_or_default()
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
mod tests {
    use tender_jobs::backoff::Backoff;

    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Env {
        Env::of(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    fn names(error: &ConfigError) -> Vec<&'static str> {
        error.0.iter().map(|problem| problem.name).collect()
    }

    #[test]
    fn nothing_set_is_enough_for_the_database() {
        let config = Config::read(&mut env(&[]), Needs::Database).expect("defaults");
        assert!(config.database.url.is_none());
        assert_eq!(config.api.base_url, "http://127.0.0.1:4848");
        assert_eq!(config.work.backoff, Backoff::default());
        assert_eq!(config.work.sync_concurrency, 16);
    }

    #[test]
    fn all_that_is_missing_is_named_at_once() {
        let error = Config::read(&mut env(&[]), Needs::Zooid).expect_err("missing");
        assert_eq!(names(&error), ["RELAY_DOMAIN", "ZOOID_API_URL", "ROBOT_SECRET"]);
    }

    #[test]
    fn all_that_is_wrong_is_named_at_once_and_secrets_are_not_repeated() {
        let error = Config::read(
            &mut env(&[
                ("DATABASE_URL", "mysql://root:hunter2@db"),
                ("API_BIND", "nowhere"),
                ("ADMIN_PUBKEYS", "npub1bad"),
                ("ROBOT_SECRET", "hunter2"),
                ("ZOOID_INSTANCES", "a=b"),
                ("RELAY_SYNC_CONCURRENCY", "0"),
                ("RELAY_SYNC_RETRY_JITTER", "2"),
                ("RECONCILE_SCHEDULE", "sometimes"),
                ("LOG_FORMAT", "xml"),
            ]),
            Needs::Database,
        )
        .expect_err("wrong");
        let mut found = names(&error);
        found.sort_unstable();
        let expected = [
            "ADMIN_PUBKEYS",
            "API_BIND",
            "DATABASE_URL",
            "LOG_FORMAT",
            "RECONCILE_SCHEDULE",
            "RELAY_SYNC_CONCURRENCY",
            "RELAY_SYNC_RETRY_JITTER",
            "ROBOT_SECRET",
            "ZOOID_INSTANCES",
        ];
        assert_eq!(found, expected);
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn s3_needs_all_four_and_blanks_do_not_count() {
        let mut pairs = vec![
            ("BLOSSOM_S3_REGION", "eu"),
            ("BLOSSOM_S3_BUCKET", "b"),
            ("BLOSSOM_S3_ACCESS_KEY", "k"),
            ("BLOSSOM_S3_SECRET_KEY", " "),
        ];
        assert!(zooid::blossom(&mut env(&pairs)).is_none());
        pairs[3].1 = "s";
        assert!(zooid::blossom(&mut env(&pairs)).is_some());
    }

    #[test]
    fn the_example_file_lists_exactly_the_variables_that_are_read() {
        let mut read = env(&[]);
        let _all_variables_are_read_whatever_is_missing = Config::read(&mut read, Needs::Zooid);
        let example = include_str!("../.env.example");
        let listed: Vec<_> = example
            .lines()
            .filter_map(|line| line.trim_start_matches("# ").split_once('='))
            .map(|(name, _)| name)
            .filter(|name| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_' || b == b'3'))
            .collect();
        assert_eq!(listed, NAMES, "in .env.example");
        let mut known = NAMES.to_vec();
        known.sort_unstable();
        assert_eq!(read.names_read(), known, "read by Config");
    }
}
