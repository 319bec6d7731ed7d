//! Runs Tender's processes against a zooid executable, and compares the files that zooid writes with
//! what Tender's ledger wants. `bin/zooid-test` builds and starts it; `CONTRIBUTING.md` describes it.
//!
//! Arguments: the executable of Tender, the executable of zooid. Environment: `DATABASE_URL` of an empty
//! database; `BLOSSOM_S3_*` if media are to go to a bucket that zooid can reach.
#![allow(clippy::print_stdout, reason = "the results are printed")]

mod compare;
mod scenarios;
mod world;

use std::{env, process::ExitCode, time::Instant};

use anyhow::{Context, bail};
use world::World;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            println!("zooid-test could not run: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs every scenario. Returns how many failed.
async fn run() -> anyhow::Result<usize> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [tender, zooid] = arguments.as_slice() else {
        bail!("usage: zooid-test TENDER ZOOID (two executables)");
    };
    let variables = env::vars().collect();
    let mut world = World::start(tender, zooid, variables).await.context("the start failed")?;
    let mut failed = 0;
    for (name, scenario) in scenarios::all() {
        let started = Instant::now();
        let result = scenario(&world).await;
        let seconds = started.elapsed().as_secs_f64();
        match result {
            Ok(()) => println!("ok    {name} ({seconds:.1} s)"),
            Err(error) => {
                failed += 1;
                println!("FAIL  {name} ({seconds:.1} s): {error:#}");
            }
        }
    }
    if failed > 0 {
        println!("{}", world.logs());
    }
    println!("{}", verdict(failed));
    world.stop().await;
    Ok(failed)
}

fn verdict(failed: usize) -> String {
    match failed {
        0 => "PASSED: zooid holds what Tender wants".to_owned(),
        failed => format!("FAILED: {failed} of {} scenarios", scenarios::all().len()),
    }
}
