//! Mirrors 10,000 events of all kinds down from a relay, up to it, in both directions, and live, with
//! Tender's processes. Each scenario must end exact, or with the gaps named by the lanes.
//! `bin/relays-test` installs the relays and starts this program; `CONTRIBUTING.md` describes it.
//!
//! Arguments: the executable of Tender, then relays: `nostr-rs-relay=EXECUTABLE`,
//! `nostr-relay=EXECUTABLE`, or the URL of a relay that runs. Environment: `DATABASE_URL` of a server on
//! which databases can be created.
#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a program of its own: it prints, and reads its own environment"
)]

mod client;
mod events;
mod relay;
mod scenarios;
mod world;

use std::{env, process::ExitCode, time::Instant};

use anyhow::{Context, bail};
use relay::Target;
use scenarios::Verdict;

#[tokio::main]
async fn main() -> ExitCode {
    let _set_already = rustls::crypto::ring::default_provider().install_default();
    match run().await {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            println!("relays-test could not run: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs every scenario with every relay. Returns how many failed.
async fn run() -> anyhow::Result<usize> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [tender, targets @ ..] = arguments.as_slice() else {
        bail!("usage: relays-test TENDER RELAY… (see bin/relays-test)");
    };
    let server = env::var("DATABASE_URL").context("DATABASE_URL is not set")?;
    let only = env::var("SCENARIO").ok();
    let mut failed = 0;
    for target in targets {
        let target = Target::parse(target)?;
        for (name, scenario) in scenarios::all() {
            if only.as_ref().is_some_and(|only| only != name) {
                continue;
            }
            let started = Instant::now();
            let result = scenarios::run(tender, &server, &target, scenario).await;
            let seconds = started.elapsed().as_secs_f64();
            let (word, text) = match &result {
                Ok(verdict @ Verdict { is_told: true, .. }) => ("ok  ", verdict.to_string()),
                Ok(verdict) => ("FAIL", verdict.to_string()),
                Err(error) => ("FAIL", format!("{error:#}")),
            };
            failed += usize::from(word == "FAIL");
            println!("{word}  {} {name} ({seconds:.1} s): {text}", target.name());
        }
    }
    println!("{}", if failed == 0 { "PASSED" } else { "FAILED" });
    Ok(failed)
}
