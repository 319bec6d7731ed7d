//! The commands of the GRASP wing, as an operator types them.

mod events;
mod relays;
mod repositories;
mod services;

use serde_json::Value;

use crate::support::{grasp_rows, mirror::MirrorWorld, process::run};

/// A ledger with the rows of [`grasp_rows`].
struct Desk(MirrorWorld);

impl Desk {
    async fn new() -> Self {
        let desk = Self::empty().await;
        grasp_rows::fill(&desk.0.db).await;
        desk
    }

    async fn empty() -> Self {
        Self(MirrorWorld::new().await)
    }

    /// Runs a command; its exit code, and what it wrote to both outputs.
    async fn types(&self, arguments: &[&str]) -> (i32, String, String) {
        let arguments = [&["grasp"], arguments].concat();
        let output = run(&arguments, &[("DATABASE_URL", &self.0.database.url())]).await;
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    async fn says(&self, arguments: &[&str], words: &[&str]) -> String {
        let (code, out, err) = self.types(arguments).await;
        assert_eq!(code, 0, "{arguments:?}: {err}");
        for word in words {
            assert!(out.contains(word), "{arguments:?} says no {word:?}: {out}");
        }
        out
    }

    async fn refuses(&self, arguments: &[&str], words: &str) {
        self.fails(1, arguments, words).await;
    }

    /// The command line itself is wrong.
    async fn is_misused(&self, arguments: &[&str], words: &str) {
        self.fails(2, arguments, words).await;
    }

    async fn fails(&self, with: i32, arguments: &[&str], words: &str) {
        let (code, out, err) = self.types(arguments).await;
        assert_eq!(code, with, "{arguments:?}: {out}{err}");
        assert!(err.contains(words), "{arguments:?}: {err}");
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let out = self.says(&[arguments, &["--json"]].concat(), &[]).await;
        serde_json::from_str(&out).unwrap()
    }
}
