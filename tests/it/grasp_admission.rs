//! Which events a service accepts, and which it parks.

use nostr::key::Keys;
use tender_jobs::{
    grasp::{
        admission::Followed,
        service::{self, ServiceChange},
    },
    mirror::event::{self, Batch, Gate, Reason, Stored},
    queue::Settled,
};

use crate::support::{
    grasp_store::{
        AT, GraspStore, SERVICE, address, announcement, comment, elsewhere, id_of, issue,
        new_service, parsed,
    },
    relays::{event as make, note},
};

#[tokio::test]
async fn an_announcement_that_names_the_service_is_accepted_and_others_are_parked() {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    let ours = announcement(&keys, AT, "x", &["wss://a.test"]);
    let theirs = elsewhere(&keys, AT, "y");
    let twice = make(
        &keys,
        30617,
        AT,
        "",
        vec![
            vec!["d", "z"],
            vec!["relays", SERVICE],
            vec!["clone", "https://git.example.com/a"],
            vec!["clone", "https://git.example.com/b"],
        ],
    );
    let bad = announcement(&keys, AT, "a/b", &[]);
    let stored = grasp.deliver(&[ours.clone(), theirs.clone(), twice.clone(), bad.clone()]).await;
    let refused = Stored::Refused(Reason::NotAdmitted);
    assert_eq!(stored, [Stored::New, refused, refused, refused]);
    assert_eq!(grasp.rule(&ours).await.as_deref(), Some("names-service"));
    assert_eq!(grasp.reason(&theirs).await.as_deref(), Some("names-another-service"));
    assert_eq!(grasp.reason(&twice).await.as_deref(), Some("several-clone-tags"));
    assert_eq!(grasp.reason(&bad).await.as_deref(), Some("bad-identifier"));
    assert_eq!(grasp.world.stored().await, [ours.id.to_hex()]);
}

#[tokio::test]
async fn a_host_that_only_contains_our_name_is_another_service() {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    for (n, host) in ["evil-git.example.com", "git.example.com.evil.test"].iter().enumerate() {
        let (relay, clone) = (format!("wss://{host}"), format!("https://{host}/x.git"));
        let tags = vec![vec!["d", "x"], vec!["relays", &relay], vec!["clone", &clone]];
        let event = make(&keys, 30617, AT + i64::try_from(n).unwrap(), "", tags);
        grasp.deliver(std::slice::from_ref(&event)).await;
        assert_eq!(grasp.reason(&event).await.as_deref(), Some("names-another-service"), "{host}");
    }
    let both = announcement(&keys, AT + 9, "x", &["wss://evil-git.example.com"]);
    grasp.deliver(&[both]).await;
    assert!(grasp.wanted().await.contains("wss://evil-git.example.com"), "it is not ourselves");
}

#[tokio::test]
async fn every_way_to_point_at_what_is_accepted_admits() {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    let repo = announcement(&keys, AT, "x:y", &[]);
    let root = issue(&keys, AT, &address(&keys, "x:y"));
    grasp.deliver(&[repo.clone(), root.clone()]).await;
    let (to, id) = (address(&keys, "x:y"), root.id.to_hex());
    for (tag, value) in [("a", &to), ("A", &to), ("q", &to), ("e", &id), ("E", &id), ("q", &id)] {
        let event = make(&Keys::generate(), 1, AT, tag, vec![vec![tag, value]]);
        assert_eq!(grasp.deliver(&[event]).await, [Stored::New], "{tag} {value}");
    }
    let quoted = note(&Keys::generate(), AT, "quoted");
    let quoting = make(&keys, 1111, AT, "", vec![vec!["E", &id], vec!["q", &quoted.id.to_hex()]]);
    assert_eq!(grasp.deliver(&[quoting, quoted.clone()]).await, [Stored::New, Stored::New]);
    assert_eq!(grasp.rule(&quoted).await.as_deref(), Some("referenced"));
    let unrelated = note(&keys, AT, "unrelated");
    grasp.deliver(std::slice::from_ref(&unrelated)).await;
    assert_eq!(grasp.reason(&unrelated).await.as_deref(), Some("orphan"));
}

/// The author of one accepted repository with the identifier of another one is neither (F9).
#[tokio::test]
async fn an_address_matches_by_kind_author_and_identifier_together() {
    let (grasp, a, b) = (GraspStore::new().await, Keys::generate(), Keys::generate());
    grasp.deliver(&[announcement(&a, AT, "x", &[]), announcement(&b, AT, "y", &[])]).await;
    let other_kind = address(&a, "x").replace("30617", "30023");
    for wrong in [address(&a, "y"), address(&b, "x"), address(&a, "X"), other_kind] {
        let event = issue(&a, AT, &wrong);
        grasp.deliver(std::slice::from_ref(&event)).await;
        assert_eq!(grasp.reason(&event).await.as_deref(), Some("orphan"), "{wrong}");
    }
    let right = issue(&a, AT, &address(&a, "x").to_uppercase().replace(":X", ":x"));
    assert_eq!(grasp.deliver(&[right]).await, [Stored::New], "keys are compared in lower case");
}

/// Relays send the newest first: replies come before what they reply to.
#[tokio::test]
async fn what_comes_too_early_is_released_when_what_it_waits_for_comes() {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    let repo = announcement(&keys, AT, "x", &[]);
    let root = issue(&keys, AT + 1, &address(&keys, "x"));
    let reply = comment(&keys, AT + 2, &root);
    let answer = comment(&keys, AT + 3, &reply);
    let state = make(&keys, 30618, AT + 4, "", vec![vec!["d", "x"]]);
    for event in [&answer, &reply, &root, &state] {
        grasp.deliver(std::slice::from_ref(event)).await;
        assert!(grasp.reason(event).await.is_some());
    }
    grasp.deliver(&[repo]).await;
    grasp.release().await;
    assert_eq!(grasp.parked().await.len(), 0);
    assert_eq!(grasp.admitted().await.len(), 5);
    assert_eq!(grasp.world.stored().await.len(), 5);
    assert_eq!(grasp.count("select count(*) from grasp_root").await, 1);
}

#[tokio::test]
async fn maintainers_are_followed_from_announcement_to_announcement() {
    let (grasp, keys) = (GraspStore::new().await, [(); 4].map(|()| Keys::generate()));
    let [owner, first, second, stranger] = &keys;
    let listing = |keys: &Keys, at, maintainer: &Keys| {
        let tags = [
            vec!["d".to_owned(), "x".to_owned()],
            vec!["maintainers".to_owned(), maintainer.public_key().to_hex()],
        ];
        let tags = tags.iter().map(|tag| tag.iter().map(String::as_str).collect()).collect();
        make(keys, 30617, at, "lists a maintainer", tags)
    };
    let state = |keys: &Keys| make(keys, 30618, AT, "", vec![vec!["d", "x"]]);
    let of_first = listing(first, AT, second);
    let (of_second, of_stranger) = (state(second), state(stranger));
    grasp.deliver(&[of_second.clone(), of_first.clone(), of_stranger.clone()]).await;
    assert_eq!(grasp.reason(&of_second).await.as_deref(), Some("not-a-maintainer"));
    let mut tags: Vec<Vec<String>> = vec![vec!["d".into(), "x".into()]];
    tags.push(vec!["relays".into(), SERVICE.into()]);
    tags.push(vec!["clone".into(), "https://git.example.com/x".into()]);
    tags.push(vec!["maintainers".into(), first.public_key().to_hex()]);
    let tags = tags.iter().map(|tag| tag.iter().map(String::as_str).collect()).collect();
    grasp.deliver(&[make(owner, 30617, AT, "", tags)]).await;
    grasp.release().await;
    assert_eq!(grasp.rule(&of_first).await.as_deref(), Some("maintainer"));
    assert_eq!(grasp.rule(&of_second).await.as_deref(), Some("state"));
    assert_eq!(grasp.reason(&of_stranger).await.as_deref(), Some("not-a-maintainer"));
}

#[tokio::test]
async fn a_newer_announcement_without_us_lets_the_repository_leave_in_either_order() {
    for is_late in [false, true] {
        let (grasp, keys) = (GraspStore::new().await, Keys::generate());
        let (old, new) =
            (announcement(&keys, AT, "x", &["wss://a.test"]), elsewhere(&keys, AT + 1, "x"));
        let order = if is_late { [new.clone(), old.clone()] } else { [old, new] };
        for event in order {
            grasp.deliver(&[event]).await;
        }
        assert_eq!(grasp.wanted().await.len(), 0);
        let late = issue(&keys, AT + 2, &address(&keys, "x"));
        grasp.deliver(std::slice::from_ref(&late)).await;
        assert_eq!(grasp.reason(&late).await.as_deref(), Some("orphan"));
        grasp.deliver(&[announcement(&keys, AT + 3, "x", &["wss://a.test"])]).await;
        grasp.release().await;
        assert_eq!(grasp.rule(&late).await.as_deref(), Some("repository"), "it came back");
        grasp.assert_settled().await;
    }
}

#[tokio::test]
async fn deletions_and_grasp_lists_are_accepted_and_admit_nothing() {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    let target = note(&keys, AT, "target");
    let id = target.id.to_hex();
    let list = make(&keys, 10317, AT, "", vec![vec!["g", SERVICE], vec!["e", &id]]);
    let other = Keys::generate();
    let deletion = make(&other, 5, AT, "", vec![vec!["e", &id]]);
    let on_list = comment(&keys, AT, &list);
    grasp.deliver(&[list.clone(), deletion.clone()]).await;
    grasp.deliver(&[target.clone(), on_list.clone()]).await;
    assert_eq!(grasp.rule(&list).await.as_deref(), Some("grasp-list"));
    assert_eq!(grasp.rule(&deletion).await.as_deref(), Some("deletion"));
    assert_eq!(grasp.reason(&target).await.as_deref(), Some("orphan"));
    assert_eq!(grasp.reason(&on_list).await.as_deref(), Some("orphan"));
}

#[tokio::test]
async fn a_late_epoch_stores_nothing() {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    let late = Followed { epoch: 0, ..grasp.followed() };
    let event = announcement(&keys, AT, "x", &[]);
    assert_eq!(
        grasp.through(&late, grasp.service.id, std::slice::from_ref(&event)).await,
        Settled::LeaseLost
    );
    grasp.run("update grasp_relay set lease_until = now() - interval '1 s'").await;
    let over = grasp.through(&grasp.followed(), grasp.service.id, &[event]).await;
    assert_eq!(over, Settled::LeaseLost);
    assert_eq!(grasp.count("select count(*) from event").await, 0);
}

#[tokio::test]
async fn an_event_is_known_once_every_service_has_decided_under_its_current_policy() {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    let (ours, orphan) = (announcement(&keys, AT, "x", &[]), note(&keys, AT, "orphan"));
    grasp.world.put(&[note(&keys, AT, "of the mirror")]).await;
    let of_mirror = note(&keys, AT, "of the mirror");
    let ids = [id_of(&ours), id_of(&orphan), id_of(&of_mirror)];
    let known = async || {
        let known = grasp.followed().known(&grasp.world.db, grasp.service.id, &ids).await.unwrap();
        ids.map(|id| known.contains(&id))
    };
    assert_eq!(known().await, [false, false, false]);
    grasp.deliver(&[ours, orphan, of_mirror]).await;
    assert_eq!(known().await, [true, true, true]);
    let names = Some(vec!["git.example.com".to_owned(), "other.example.com".to_owned()]);
    let change = ServiceChange { names, ..ServiceChange::default() };
    service::update(&grasp.world.db, grasp.service.id, &change).await.unwrap();
    assert_eq!(known().await, [true, false, false], "accepted events stay accepted");
    let second = new_service("wss://second.example.com");
    service::create(&grasp.world.db, &second).await.unwrap();
    assert_eq!(known().await, [false, false, false], "the second service has not decided");
}

#[tokio::test]
async fn a_service_stores_what_it_accepts_although_another_one_refuses_it() {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    let second = new_service("wss://second.example.com");
    let other = service::create(&grasp.world.db, &second).await.unwrap();
    let event = announcement(&keys, AT, "x", &[]);
    grasp.deliver(std::slice::from_ref(&event)).await;
    assert!(grasp.rule(&event).await.is_some());
    assert!(grasp.admitted_to(other.id).await.is_empty());
    let (reason, body): (String, Option<String>) =
        sqlx::query_as("select reason, body from parked").fetch_one(&grasp.world.db).await.unwrap();
    assert_eq!((reason.as_str(), body), ("names-another-service", None));
}

#[tokio::test]
async fn everything_of_the_own_feed_is_accepted_and_wanted() {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    let foreign = elsewhere(&keys, AT, "x");
    let root = issue(&keys, AT, &address(&keys, "x"));
    let stray = note(&keys, AT, "stray");
    grasp.own(&[stray.clone(), root.clone(), foreign.clone()]).await;
    for event in [&foreign, &root, &stray] {
        assert_eq!(grasp.rule(event).await.as_deref(), Some("own"));
    }
    assert!(grasp.wanted().await.contains("wss://other.test"));
    assert_eq!(grasp.count("select count(*) from grasp_root").await, 1);
    grasp.assert_settled().await;
}

#[tokio::test]
async fn only_accepted_events_are_uploaded_and_late_ones_are_offered() {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    let repo = announcement(&keys, AT, "x", &[]);
    let (root, stray) = (issue(&keys, AT, &address(&keys, "x")), note(&keys, AT, "stray"));
    grasp.world.put(&[root.clone(), stray]).await;
    let held = issue(&keys, AT + 1, &address(&keys, "x"));
    let from_its_relay = [parsed(&held)];
    let batch = Batch::new(grasp.service.id, &from_its_relay);
    event::store(&grasp.world.db, batch).await.unwrap();
    let candidates = async || {
        let filter = tender_jobs::mirror::filter::Filter::default();
        let found = tender_jobs::mirror::event::outgoing::candidates(
            &grasp.world.db,
            grasp.service.id,
            &filter,
            None,
            0,
            100,
        );
        let events = found.await.unwrap().events;
        events.iter().map(|one| one.event.id).collect::<Vec<_>>()
    };
    assert_eq!(candidates().await, []);
    grasp.deliver(std::slice::from_ref(&repo)).await;
    grasp.release().await;
    for event in [&root, &held] {
        assert_eq!(grasp.rule(event).await.as_deref(), Some("repository"));
    }
    assert_eq!(candidates().await, [id_of(&repo)], "the issue waits for the lane instead");
    let waiting =
        tender_jobs::mirror::event::outgoing::waiting(&grasp.world.db, grasp.service.id, 10);
    let waiting: Vec<_> = waiting.await.unwrap().iter().map(|one| one.event.id).collect();
    assert_eq!(waiting, [id_of(&root)], "the other issue came from the service's relay");
}
