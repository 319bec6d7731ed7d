//! The table of rooms in `docs/ARCHITECTURE.md`, held against the imports.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// A room: a folder or file directly below a crate's `src`, such as `jobs/queue`.
type Room = String;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The crates, by the prefix of their rooms and the name that imports use.
const CRATES: [(&str, &str, &str); 3] = [
    ("src", "src", "crate"),
    ("workers", "workers/src", "tender_workers"),
    ("jobs", "jobs/src", "tender_jobs"),
];

pub(crate) fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The room that a file belongs to; `None` for the roots of crates.
fn room_of(prefix: &str, below: &Path) -> Option<Room> {
    let first = below.components().next()?.as_os_str().to_str()?;
    let name = first.trim_end_matches(".rs");
    (!matches!(name, "lib" | "main")).then(|| format!("{prefix}/{name}"))
}

fn rooms(prefix: &str, folder: &Path) -> BTreeMap<Room, Vec<PathBuf>> {
    let mut files = Vec::new();
    sources(folder, &mut files);
    let mut rooms: BTreeMap<Room, Vec<PathBuf>> = BTreeMap::new();
    for file in files {
        if let Some(room) = room_of(prefix, file.strip_prefix(folder).unwrap()) {
            rooms.entry(room).or_default().push(file);
        }
    }
    rooms
}

/// The text without comments and without the unit tests at its end.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The first names of every path below `base`: `base::a::…` and `base::{a::…, b}`.
fn first_names(code: &str, base: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let start = format!("{base}::");
    for (at, _) in code.match_indices(&start) {
        let is_path = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        let rest = &code[at + start.len()..];
        if is_path {
            continue;
        }
        if let Some(group) = rest.strip_prefix('{') {
            names.extend(members(group));
        } else {
            names.extend(name_at(rest));
        }
    }
    names
}

fn name_at(text: &str) -> Option<String> {
    let name: String =
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// The first names of a group's members; the group ends at its closing brace.
fn members(group: &str) -> Vec<String> {
    let (mut depth, mut member, mut names) = (0, String::new(), Vec::new());
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => names.extend(name_at(&std::mem::take(&mut member))),
            _ => {
                depth += i32::from(c == '{') - i32::from(c == '}');
                member.push(c);
            }
        }
    }
    names.extend(name_at(&member));
    names
}

/// What each room uses, as the code says.
fn used() -> BTreeMap<Room, BTreeSet<Room>> {
    let all: Vec<_> = CRATES
        .iter()
        .map(|(prefix, folder, name)| (*prefix, *name, rooms(prefix, &root().join(folder))))
        .collect();
    let mut table = BTreeMap::new();
    for (prefix, _, rooms) in &all {
        for (room, files) in rooms {
            let uses: &mut BTreeSet<Room> = table.entry(room.clone()).or_default();
            let code: String = files.iter().map(|file| code(file)).collect();
            for (other, name, others) in &all {
                let base = if other == prefix { "crate" } else { name };
                let named = first_names(&code, base).into_iter().map(|n| format!("{other}/{n}"));
                uses.extend(named.filter(|named| others.contains_key(named) && named != room));
            }
        }
    }
    table
}

/// The rows of the document's table: room → what it may use. A row is `` `path` | text | rooms ``.
fn allowed() -> BTreeMap<Room, BTreeSet<Room>> {
    let text = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let mut allowed = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [places, _, uses] = cells[..] else { continue };
        let uses: BTreeSet<Room> = uses
            .split(',')
            .map(|name| name.trim().trim_matches('`').to_owned())
            .filter(|name| name.contains('/'))
            .collect();
        for place in places.split(',').map(|place| place.trim().trim_matches('`')) {
            if let Some(room) = room_named(place) {
                allowed.insert(room, uses.clone());
            }
        }
    }
    allowed
}

/// `src/http/`, `workers/src/runtime/` and `jobs/src/steer.rs` name rooms; other places are none.
fn room_named(place: &str) -> Option<Room> {
    let (prefix, folder, _) = CRATES.iter().rev().find(|(_, folder, _)| {
        place.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
    })?;
    room_of(prefix, Path::new(place.strip_prefix(folder)?.trim_matches('/')))
}

fn may_use(allowed: &BTreeSet<Room>, room: &Room) -> bool {
    let folder = room.split('/').next().unwrap_or_default();
    allowed.contains(room) || allowed.contains(&format!("{folder}/*"))
}

#[test]
fn rooms_use_what_the_architecture_says_and_nothing_else() {
    let (used, allowed) = (used(), allowed());
    assert!(used.len() > 15, "{used:?}");
    let mut problems = Vec::new();
    for (room, uses) in &used {
        let Some(allowed) = allowed.get(room) else {
            problems.push(format!("{room} has no row"));
            continue;
        };
        for other in uses.iter().filter(|other| !may_use(allowed, other)) {
            problems.push(format!("{room} must not use {other}"));
        }
    }
    problems.extend(
        allowed
            .keys()
            .filter(|room| !used.contains_key(*room))
            .map(|room| format!("{room} has a row and does not exist")),
    );
    assert!(problems.is_empty(), "docs/ARCHITECTURE.md, Rooms:\n{}", problems.join("\n"));
}

#[test]
fn generic_rooms_know_no_wing_and_wings_do_not_know_each_other() {
    let used = used();
    for generic in ["jobs/queue", "workers/runtime"] {
        let wings = used[generic].iter().filter(|room| {
            room.ends_with("/provision") || room.ends_with("/mirror") || room.ends_with("/grasp")
        });
        assert_eq!(wings.collect::<Vec<_>>(), Vec::<&String>::new(), "{generic}");
    }
    for (one, other) in [("provision", "mirror"), ("mirror", "provision")] {
        for folder in ["jobs", "workers"] {
            let of_one = &used[&format!("{folder}/{one}")];
            for folder in ["jobs", "workers"] {
                assert!(!of_one.contains(&format!("{folder}/{other}")), "{one} uses {other}");
            }
        }
    }
}

#[test]
fn no_room_is_in_a_circle() {
    let used = used();
    for (room, others) in &used {
        let back: Vec<_> = others.iter().filter(|other| used[*other].contains(room)).collect();
        assert!(back.is_empty(), "{room} and {back:?} use each other");
    }
}
