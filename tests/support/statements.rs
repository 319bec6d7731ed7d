//! Records the statements of a test.

use std::{
    fmt::{self, Write},
    sync::{Arc, Mutex},
};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    subscriber::DefaultGuard,
};
use tracing_subscriber::{Layer, layer::Context, prelude::*};

/// Records the statements of this thread, until the guard is dropped.
pub fn recorded() -> (Statements, DefaultGuard) {
    let statements = Statements::default();
    let recording = tracing_subscriber::registry().with(statements.clone()).set_default();
    (statements, recording)
}

/// The statements that were executed on this thread, without superfluous white space.
#[derive(Debug, Clone, Default)]
pub struct Statements(Arc<Mutex<Vec<String>>>);

impl Statements {
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// How often a statement with this text was executed.
    pub fn count(&self, text: &str) -> usize {
        self.all().iter().filter(|one| one.contains(text)).count()
    }

    pub fn clear(&self) {
        self.0.lock().unwrap().clear();
    }
}

/// The text of an event of sqlx.
#[derive(Default)]
struct Text {
    summary: String,
    statement: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "summary" => value.clone_into(&mut self.summary),
            "db.statement" => value.clone_into(&mut self.statement),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        write!(text, "{value:?}").unwrap();
        self.record_str(field, &text);
    }
}

impl<S: Subscriber> Layer<S> for Statements {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "sqlx::query" {
            let mut text = Text::default();
            event.record(&mut text);
            let whole = if text.statement.is_empty() { text.summary } else { text.statement };
            let words: Vec<&str> = whole.split_whitespace().collect();
            self.0.lock().unwrap().push(words.join(" "));
        }
    }
}
