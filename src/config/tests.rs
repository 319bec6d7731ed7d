//! Tests of the configuration as a whole.

use tender_jobs::provision::backoff::Backoff;

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
    assert_eq!(config.provision.backoff, Backoff::default());
    assert_eq!(config.provision.concurrency, 16);
}

#[test]
fn all_that_is_missing_is_named_at_once() {
    let error = Config::read(&mut env(&[]), Needs::Zooid).expect_err("missing");
    assert_eq!(names(&error), ["ZOOID_API_URL", "ROBOT_SECRET", "RELAY_DOMAIN"]);
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
    let error = Config::read(&mut env(&pairs), Needs::Database).expect_err("half set");
    assert_eq!(names(&error), ["BLOSSOM_S3_SECRET_KEY"]);
    pairs[3].1 = "s";
    assert!(provision::blossom(&mut env(&pairs)).is_some());
    assert!(Config::read(&mut env(&pairs), Needs::Database).is_ok());
    let only = [("BLOSSOM_S3_ENDPOINT", "http://s3"), ("LIVEKIT_API_KEY", "hunter2")];
    let error = Config::read(&mut env(&only), Needs::Database).expect_err("half set");
    let mut missing = names(&error);
    missing.sort_unstable();
    let expected = [
        "BLOSSOM_S3_ACCESS_KEY",
        "BLOSSOM_S3_BUCKET",
        "BLOSSOM_S3_REGION",
        "BLOSSOM_S3_SECRET_KEY",
        "LIVEKIT_API_SECRET",
        "LIVEKIT_URL",
    ];
    assert_eq!(missing, expected);
    assert!(!error.to_string().contains("hunter2"));
}

#[test]
fn a_zooid_url_with_credentials_is_refused() {
    for (name, value) in [
        ("ZOOID_API_URL", "http://user:hunter2@zooid:3334"),
        ("ZOOID_INSTANCES", "a.test=http://hunter2@zooid:3334"),
    ] {
        let error = Config::read(&mut env(&[(name, value)]), Needs::Database);
        let error = error.expect_err("credentials");
        assert_eq!(names(&error), [name]);
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[test]
fn a_name_of_an_earlier_release_is_reported() {
    let error = Config::read(&mut env(&[("SYNC_DEFAULTS", "{}")]), Needs::Database);
    assert!(error.expect_err("renamed").to_string().contains("MIRROR_DEFAULTS now"));
}

#[test]
fn a_schedule_that_never_fires_is_refused() {
    let never = [("RECONCILE_SCHEDULE", "0 0 0 31 2 *")];
    let error = Config::read(&mut env(&never), Needs::Database).expect_err("never");
    assert_eq!(names(&error), ["RECONCILE_SCHEDULE"]);
    let leap = [("RECONCILE_SCHEDULE", "0 0 0 29 2 *")];
    assert!(Config::read(&mut env(&leap), Needs::Database).is_ok());
}

#[test]
fn the_example_file_lists_exactly_the_variables_that_are_read() {
    let mut read = env(&[]);
    let _all_variables_are_read_whatever_is_missing = Config::read(&mut read, Needs::Zooid);
    let example = include_str!("../../.env.example");
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

#[test]
fn the_key_of_zooid_is_told_to_no_upstream() {
    let robot =
        ("ROBOT_SECRET", "7f7ff03d123792d6ac594bfa67bf6d0c0ab55b6b1fdb6249303fe861f1ccba9a");
    let config = Config::read(&mut env(&[robot]), Needs::Database).expect("valid");
    assert!(config.mirror.key.is_none());
    let own =
        ("RELAY_PRIVATE_KEY", "1f7ff03d123792d6ac594bfa67bf6d0c0ab55b6b1fdb6249303fe861f1ccba9a");
    let config = Config::read(&mut env(&[robot, own]), Needs::Database).expect("valid");
    assert_eq!(
        config.mirror.key.map(|key| key.secret_key().to_secret_hex()),
        Some(own.1.to_owned())
    );
}
