//! The file `.env`. A line that cannot be read is a problem, never ignored, and its value is never shown.

use std::{
    cell::Cell,
    fs,
    io::{self, Read},
    path::PathBuf,
    rc::Rc,
    str::SplitInclusive,
};

use super::Problem;

/// The variables of the file, and a problem for each line that cannot be read.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) values: Vec<(String, String)>,
    pub(super) problems: Vec<Problem>,
}

/// Reads `.env` in the working directory or the nearest directory above it that has one.
pub(super) fn read() -> File {
    let Some(path) = path() else { return File::default() };
    match fs::read_to_string(&path) {
        Ok(text) => parse(&text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => File::default(),
        Err(error) => {
            let problem = format!("{} cannot be read: {error}", path.display());
            File { values: Vec::new(), problems: vec![Problem { name: ".env", problem }] }
        }
    }
}

/// Returns the file's path, if there is one.
pub fn path() -> Option<PathBuf> {
    let start = std::env::current_dir().ok()?;
    start.ancestors().map(|dir| dir.join(".env")).find(|path| path.is_file())
}

fn parse(text: &str) -> File {
    let (mut file, mut passed) = (File::default(), 0);
    let read = Rc::new(Cell::new(0));
    let lines = Lines { rest: text.split_inclusive('\n'), read: Rc::clone(&read) };
    for item in dotenvy::from_read_iter(lines) {
        match item {
            Ok(pair) => match substitution(text, passed, read.get()) {
                None => file.values.push(pair),
                Some(line) => file.problems.push(substituted(&pair.0, line)),
            },
            Err(_) => file.problems.push(unreadable(text, passed)),
        }
        passed = read.get();
    }
    file
}

/// Returns the first of the lines `from` to `to` with a `$` that the parser takes for a variable: outside
/// single quotes and not escaped. Passwords and hashes have such signs, and no value of ours needs a variable.
fn substitution(text: &str, from: usize, to: usize) -> Option<usize> {
    let lines = text.lines().enumerate().take(to).skip(from);
    let mut entries = lines.filter(|(_, line)| !line.trim_start().starts_with('#'));
    entries.find(|(_, line)| substitutes(line)).map(|(index, _)| index + 1)
}

fn substitutes(line: &str) -> bool {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for sign in line.chars() {
        match sign {
            _ if is_escaped => is_escaped = false,
            '\\' if !is_quoted => is_escaped = true,
            '\'' => is_quoted = !is_quoted,
            '$' if !is_quoted => return true,
            _ => {}
        }
    }
    false
}

fn substituted(name: &str, line: usize) -> Problem {
    let problem = format!(
        "line {line}: {name} has a `$` outside single quotes, which would be replaced by a variable; put the \
         value in single quotes: {name}='…'"
    );
    Problem { name: ".env", problem }
}

/// Gives the parser one line at a time, and counts them.
struct Lines<'a> {
    rest: SplitInclusive<'a, char>,
    read: Rc<Cell<usize>>,
}

impl Read for Lines<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(line) = self.rest.next() else { return Ok(0) };
        let Some(place) = buffer.get_mut(..line.len()) else {
            return Err(io::Error::other("a line is longer than 8 KiB"));
        };
        place.copy_from_slice(line.as_bytes());
        self.read.set(self.read.get() + 1);
        Ok(line.len())
    }
}

/// The problem of the first entry after the lines that were `passed`. Only a name is shown, because any
/// other part of the entry may be secret.
fn unreadable(text: &str, passed: usize) -> Problem {
    let is_entry = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let mut lines = text.lines().enumerate().skip(passed);
    let (index, line) = lines.find(|(_, line)| is_entry(line)).unwrap_or((passed, ""));
    let name = line.split('=').next().unwrap_or_default().trim();
    let name = name.strip_prefix("export ").unwrap_or(name);
    let is_name = line.contains('=')
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    let what = if is_name { format!(" ({name})") } else { String::new() };
    let problem = format!(
        "line {}{what} is not NAME=value; quote a value that has blanks, such as \
         RECONCILE_SCHEDULE=\"0 * * * * *\"",
        index + 1
    );
    Problem { name: ".env", problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unreadable_line_is_named_by_its_number_and_never_shown() {
        let text = "A=1\n\nROBOT_SECRET=two hunter2\n# a comment\nhunter3 alone\n\
                    ROBOT_SECRET=two hunter2\nB=\"two words\"\n";
        let file = parse(text);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(file.values, [pair("A", "1"), pair("B", "two words")]);
        let words: Vec<&str> = file.problems.iter().map(|one| one.problem.as_str()).collect();
        assert!(words[0].starts_with("line 3 (ROBOT_SECRET) is not NAME=value"), "{words:?}");
        assert!(words[1].starts_with("line 5 is not"), "{words:?}");
        assert!(words[2].starts_with("line 6 (ROBOT_SECRET)"), "{words:?}");
        assert_eq!(words.len(), 3);
        assert!(!words.concat().contains("hunter"));
    }

    #[test]
    fn a_sign_that_begins_a_variable_is_refused_outside_single_quotes() {
        let text = "A='$argon2id$v=19'\nDASHBOARD_PASSWORD=$argon2id$v=19\nB=\"x$y\"\nC=a\\$b\n";
        let file = parse(text);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(file.values, [pair("A", "$argon2id$v=19"), pair("C", "a$b")]);
        let words: Vec<&str> = file.problems.iter().map(|one| one.problem.as_str()).collect();
        assert!(words[0].starts_with("line 2: DASHBOARD_PASSWORD"), "{words:?}");
        assert!(words[1].starts_with("line 3"), "{words:?}");
        assert!(!words.concat().contains("argon2"), "{words:?}");
    }
}
