//! What fails again and again is logged once: when it begins, and when it ends.

use std::{collections::HashSet, sync::Mutex};

/// Whether one thing fails at present.
#[derive(Debug, Default)]
pub(crate) struct Trouble(bool);

impl Trouble {
    /// Notes a failure. Returns whether it begins: the failures that follow are the same trouble.
    pub(crate) fn begins(&mut self) -> bool {
        !std::mem::replace(&mut self.0, true)
    }

    /// Notes a success. Returns whether it ends a trouble.
    pub(crate) fn ends(&mut self) -> bool {
        std::mem::take(&mut self.0)
    }
}

/// Which of several things, each with a name, fail at present.
#[derive(Debug, Default)]
pub(crate) struct Troubles(Mutex<HashSet<String>>);

impl Troubles {
    /// Notes a failure of the thing with this name. Returns whether it begins.
    pub(crate) fn begin(&self, name: &str) -> bool {
        self.0.lock().is_ok_and(|mut failing| failing.insert(name.to_owned()))
    }

    /// Notes a success of the thing with this name. Returns whether it ends a trouble.
    pub(crate) fn end(&self, name: &str) -> bool {
        self.0.lock().is_ok_and(|mut failing| failing.remove(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_begins_once_and_ends_once() {
        let mut trouble = Trouble::default();
        let told =
            [trouble.ends(), trouble.begins(), trouble.begins(), trouble.ends(), trouble.ends()];
        assert_eq!(told, [false, true, false, true, false]);
        let troubles = Troubles::default();
        let told =
            [troubles.begin("a"), troubles.begin("b"), troubles.begin("a"), troubles.end("a")];
        assert_eq!(told, [true, true, false, true]);
        assert!(troubles.begin("a") && !troubles.end("c"));
    }
}
