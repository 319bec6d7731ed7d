//! The real executable, started, signalled and killed.

use std::{
    path::PathBuf,
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::process::{Child, Command};

use super::{DOMAIN, World};

/// A `tender` process; killed when dropped. Its log is in a file.
pub struct Tender {
    child: Child,
    log: PathBuf,
}

pub const ROBOT_SECRET: &str = "7f7ff03d123792d6ac594bfa67bf6d0c0ab55b6b1fdb6249303fe861f1ccba9a";

/// The executable with an environment of its own.
pub fn command(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    command_of(env!("CARGO_BIN_EXE_tender"), arguments, environment)
}

fn command_of(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().current_dir(std::env::temp_dir()).kill_on_drop(true);
    command.env("PATH", "/usr/local/bin:/usr/bin:/bin").envs(environment.iter().copied());
    command.stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub async fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = command(arguments, environment);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    tokio::time::timeout(Duration::from_mins(2), command.output()).await.expect("it ends").unwrap()
}

impl Tender {
    /// Starts `tender work` (or what `arguments` say) on the world's database and stand-in.
    pub fn start(
        world: &World,
        zooid_url: &str,
        arguments: &[&str],
        more: &[(&str, &str)],
    ) -> Self {
        let url = world.database.url();
        let mut environment = vec![
            ("DATABASE_URL", url.as_str()),
            ("ZOOID_API_URL", zooid_url),
            ("RELAY_DOMAIN", DOMAIN),
            ("ROBOT_SECRET", ROBOT_SECRET),
        ];
        environment.extend(more);
        Self::start_with(arguments, &environment)
    }

    pub fn start_with(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_program(env!("CARGO_BIN_EXE_tender"), arguments, environment)
    }

    /// Another release's executable.
    pub fn start_program(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let log = std::env::temp_dir().join(format!("tender-{}.log", uuid::Uuid::new_v4()));
        let file = std::fs::File::create(&log).unwrap();
        let mut command = command_of(program, arguments, environment);
        command.stdout(file.try_clone().unwrap()).stderr(file);
        Self { child: command.spawn().unwrap(), log }
    }

    pub fn signal(&self, signal: Signal) {
        let id = self.child.id().expect("it runs");
        kill(Pid::from_raw(i32::try_from(id).unwrap()), signal).unwrap();
    }

    /// kill -9.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    pub async fn wait(&mut self) -> ExitStatus {
        tokio::time::timeout(Duration::from_mins(1), self.child.wait())
            .await
            .expect("it ends")
            .unwrap()
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Tender {
    fn drop(&mut self) {
        let _gone_already = std::fs::remove_file(&self.log);
    }
}
