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
    let Some(path) = find() else { return File::default() };
    match fs::read_to_string(&path) {
        Ok(text) => parse(&text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => File::default(),
        Err(error) => {
            let problem = format!("{} cannot be read: {error}", path.display());
            File { values: Vec::new(), problems: vec![Problem { name: ".env", problem }] }
        }
    }
}

fn find() -> Option<PathBuf> {
    let start = std::env::current_dir().ok()?;
    start.ancestors().map(|dir| dir.join(".env")).find(|path| path.is_file())
}

fn parse(text: &str) -> File {
    let (mut file, mut passed) = (File::default(), 0);
    let read = Rc::new(Cell::new(0));
    let lines = Lines { rest: text.split_inclusive('\n'), read: Rc::clone(&read) };
    for item in dotenvy::from_read_iter(lines) {
        match item {
            Ok(pair) => file.values.push(pair),
            Err(_) => file.problems.push(unreadable(text, passed)),
        }
        passed = read.get();
    }
    file
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
}
