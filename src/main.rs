//! The executable: parses the command line, runs the command, and reports a failure.

use std::process::ExitCode;

use clap::Parser;
use tender::command::{Cli, exit_code, words};

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _scenario = fail::FailScenario::setup();
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let ended = runtime.block_on(cli.run());
    tender::telemetry::shutdown();
    // A thread that looks up a name may take long to return; nothing waits for it.
    runtime.shutdown_background();
    match ended {
        Ok(code) => code,
        Err(error) => failed(&error),
    }
}

/// Prints the error with its causes to standard error.
#[expect(clippy::print_stderr, reason = "the answer of a failed command")]
fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("tender: {}", words(error));
    ExitCode::from(exit_code(error))
}
