//! What the commands print at a terminal of 80 columns, with long hosts and long errors.
//!
//! Each file in `snapshots` is the screen of one command. `TENDER_SNAPSHOTS=write` writes them anew; the
//! difference is then read by the author of the change. insta would add a dependency for this comparison.

use std::path::Path;

use sqlx::{Executor, PgPool};

use crate::support::{TestDatabase, grasp_rows, process::run, terminal::Terminal};

/// The rows that the screens show. The times are days ago, so that a slow test shows the same.
async fn desk() -> TestDatabase {
    let database = TestDatabase::new().await;
    grasp_rows::fill(&database.pool).await;
    database.pool.execute(sqlx::raw_sql(include_str!("snapshots/rows.sql"))).await.unwrap();
    database
}

/// The workers of the rows are alive, however long ago the rows were made.
async fn heartbeats(db: &PgPool) {
    sqlx::query("update apalis.workers set last_seen = now()").execute(db).await.unwrap();
}

#[expect(clippy::disallowed_methods, reason = "the tests' own variable")]
fn is_writing() -> bool {
    std::env::var("TENDER_SNAPSHOTS").is_ok_and(|value| value == "write")
}

/// Compares a screen with its file.
fn compare(name: &str, screen: &str) {
    // The lines below a table have times of a second.
    let screen: Vec<&str> =
        screen.lines().map(str::trim_end).take_while(|line| !line.is_empty()).collect();
    let screen = format!("{}\n", screen.join("\n"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/processes/snapshots").join(name);
    if is_writing() {
        std::fs::write(&path, &screen).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(screen == expected, "{name} is now:\n{screen}\ninstead of:\n{expected}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_fit_80_columns() {
    let database = desk().await;
    let url = database.url();
    for (name, arguments) in [
        ("relay-list", &["relay", "list", "--limit", "4"][..]),
        ("relay-activity", &["relay", "activity", "00000000-0000-4000-8000-000000000303"]),
        ("instance-list", &["instance", "list"]),
        ("queue-status", &["queue", "status"]),
        ("queue-list", &["queue", "list", "--limit", "3"]),
        ("", &["workers"]),
        ("schedule", &["schedule"]),
        ("keys-list", &["keys", "list"]),
        ("mirror-list", &["mirror", "list"]),
        ("mirror-status", &["mirror", "status"]),
        ("grasp-list", &["grasp", "list"]),
        ("", &["grasp", "repos", "--limit", "1"]),
        ("", &["grasp", "relays"]),
        ("", &["grasp", "parked"]),
    ] {
        heartbeats(&database.pool).await;
        let ended = Terminal::run(arguments, &[("DATABASE_URL", &url)]).await;
        assert_eq!(ended.code, 0, "{arguments:?}: {}", ended.screen);
        let longest = ended.screen.lines().map(|line| line.chars().count()).max();
        let is_note = |line: &str| line.contains("--after") || line.contains("; --wide shows all");
        let is_word = |line: &str| line.split_whitespace().count() == 1;
        let tables = ended.screen.lines().filter(|line| !is_note(line) && !is_word(line));
        let widest = tables.map(|line| line.chars().count()).max();
        assert!(widest <= Some(80), "{arguments:?} has lines of {longest:?}:\n{}", ended.screen);
        // The rows of the others have times of a minute.
        if !name.is_empty() {
            compare(&format!("{name}.txt"), &ended.screen);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_attention_is_wrapped_between_words_and_ends_with_1() {
    let database = desk().await;
    let environment = [("DATABASE_URL", &*database.url())];
    heartbeats(&database.pool).await;
    let status = Terminal::run(&["status"], &environment).await;
    assert_eq!(status.code, 1, "{}", status.screen);
    let doctor = Terminal::run(&["doctor"], &environment).await;
    assert_eq!(doctor.code, 0, "nothing fails: {}", doctor.screen);
    for screen in [&status.screen, &doctor.screen] {
        // A word that is longer than its line is not broken.
        let fits = |line: &str| line.chars().count() <= 80 || line.split_whitespace().count() == 1;
        assert!(screen.lines().all(fits), "{screen}");
        let whole = screen.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "zooid at http://zooid-of-a-long-name.internal.example.com:3334 is out",
            "mirror is paused",
            "Lane backfill of wss://a-relay-of-a-long-name.many-labels.internal.example.com:7777",
            "failed to connect: the certificate of the relay is not valid",
        ] {
            assert!(whole.contains(part), "{part}: {screen}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wide_and_a_pipe_show_everything() {
    let database = desk().await;
    let url = database.url();
    let environment = [("DATABASE_URL", &*url)];
    let list = ["relay", "list", "--limit", "2"];
    let wide = Terminal::run(&[&list[..], &["--wide"]].concat(), &environment).await;
    let piped = run(&list, &environment).await;
    let piped = String::from_utf8(piped.stdout).unwrap();
    for screen in [&wide.screen, &piped] {
        for part in [
            &format!("{}.zooid.test", "x".repeat(46)),
            "00000000-0000-4000-8000-000000000303",
            "and many more words that no table of eighty columns has room for",
        ] {
            assert!(screen.contains(part), "{part}: {screen}");
        }
        assert!(!screen.contains('…') && !screen.contains("--wide"), "{screen}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_list_says_so_and_goes_on() {
    let database = desk().await;
    let url = database.url();
    let environment = [("DATABASE_URL", &*url)];
    let said = async |arguments: &[&str]| {
        let output = run(arguments, &environment).await;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    };
    let (out, note) = said(&["relay", "list"]).await;
    assert_eq!(out.lines().count(), 101, "a header and 100 relays");
    let last = "00000000-0000-4000-8000-000000000204";
    assert_eq!(note.trim(), format!("100 of 303; --all, or --after {last}"));
    let (out, note) = said(&["relay", "list", "--after", last, "--limit", "300"]).await;
    assert_eq!((out.lines().count(), note.as_str()), (204, ""));
    let (out, note) = said(&["relay", "list", "--all"]).await;
    assert_eq!((out.lines().count(), note.as_str()), (304, ""));
    let (_, note) = said(&["relay", "list", "-q"]).await;
    assert_eq!(note, "", "--quiet leaves the notes out");
    let (_, note) = said(&["queue", "list", "--limit", "1"]).await;
    let (_, mark) = note.trim().split_once("1 of 3; --all, or --after ").expect(&note);
    let (out, note) = said(&["queue", "list", "--after", mark]).await;
    assert_eq!((out.lines().count(), note.as_str()), (3, ""), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn top_shows_its_keys_and_ends_with_q() {
    let database = desk().await;
    let mut top = Terminal::start(80, &["top"], &[("DATABASE_URL", &database.url())]);
    crate::support::eventually("the overview is on the screen", async || {
        // A blank that was there before is passed over, not written.
        let screen: String = top.screen().split_whitespace().collect();
        ["needsattention", "qquit", "live"].into_iter().all(|part| screen.contains(part))
    })
    .await;
    top.types("p");
    crate::support::eventually("it is paused", async || top.screen().contains("paused")).await;
    top.types("q");
    assert_eq!(top.ends().await.code, 0);
}

#[tokio::test]
async fn completions_and_man_pages_are_made_from_the_commands() {
    for (shell, part) in [
        ("bash", "complete -F _tender"),
        ("zsh", "#compdef tender"),
        ("fish", "complete -c tender"),
    ] {
        let output = run(&["completions", shell], &[]).await;
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.contains(part) && script.contains("dashboard-link"), "{shell}: {script}");
    }
    assert_eq!(run(&["completions", "csh"], &[]).await.status.code(), Some(2));
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    let output = run(&["man", pages.to_str().unwrap()], &[]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for page in ["tender.1", "tender-relay-list.1", "tender-mirror-config-set.1"] {
        let text = std::fs::read_to_string(pages.join(page)).unwrap_or_default();
        assert!(text.contains(".SH SYNOPSIS"), "{page}: {text}");
    }
}
