//! Authentication, and answers that several jobs wait for.

use std::sync::atomic::AtomicUsize;

use super::*;

/// Answers each AUTH and counts it; repeats its challenge with everything else.
async fn khatru(mut server: Server, answers: Arc<AtomicUsize>) {
    say(&mut server, json!(["AUTH", "the challenge"])).await;
    loop {
        let message = heard(&mut server).await;
        match message[0].as_str() {
            None => return,
            Some("AUTH") => {
                answers.fetch_add(1, Ordering::SeqCst);
                say(&mut server, json!(["OK", message[1]["id"], true, ""])).await;
            }
            Some(_) => {
                say(&mut server, json!(["AUTH", "the challenge"])).await;
                say(&mut server, json!(["CLOSED", message[1], "auth-required: who?"])).await;
            }
        }
    }
}

#[tokio::test]
async fn a_challenge_is_answered_once_and_only_after_a_refusal() {
    let answers = Arc::new(AtomicUsize::new(0));
    let count = answers.clone();
    let url = upstream(move |server| khatru(server, count.clone())).await;
    let connection = connected(&url, Some(Keys::generate())).await;
    let mut subscription = connection.subscribe("poll");
    connection.send(&json!(["REQ", subscription.id(), {}])).await.expect("sent");
    assert!(matches!(subscription.next(PATIENCE).await, Ok(Heard::Closed(_))));
    assert_eq!(answers.load(Ordering::SeqCst), 0, "the bare challenge is not answered");
    let all = futures_util::future::join_all((0..5).map(|_| connection.authenticated()));
    assert!(all.await.iter().all(Result::is_ok), "all who wait are told");
    assert!(connection.authenticated().await.is_ok());
    assert_eq!(answers.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_upstream_with_thousands_of_challenges_gets_no_answer_and_is_left() {
    let url = upstream(|mut server| async move {
        for index in 0..5000 {
            say(&mut server, json!(["AUTH", format!("challenge {index}")])).await;
        }
        assert_ne!(heard(&mut server).await[0], "AUTH");
    });
    let connection = connected(&url.await, Some(Keys::generate())).await;
    assert!(loss(&connection).await.contains("challenges in a minute"));
}

#[tokio::test]
async fn two_jobs_that_send_one_event_get_one_answer() {
    let (sent, mut all) = tokio::sync::mpsc::unbounded_channel();
    let url = upstream(move |mut server| {
        let sent = sent.clone();
        async move {
            for _ in 0..2 {
                let message = heard(&mut server).await;
                let _read = sent.send(message.clone());
                if message[0] == "REQ" {
                    say(&mut server, json!(["OK", "an id", true, "fine"])).await;
                }
            }
            heard(&mut server).await;
        }
    });
    let connection = connected(&url.await, None).await;
    let event = json!({ "id": "an id" });
    let first = connection.publish("an id", &event).await.expect("sent");
    let second = connection.publish("an id", &event).await.expect("sent");
    connection.send(&json!(["REQ"])).await.expect("sent");
    for answer in [first, second] {
        assert_eq!(answer.await, Ok((true, "fine".to_owned())));
    }
    assert_eq!(all.recv().await.expect("a message")[0], "EVENT");
    assert_eq!(all.recv().await.expect("a message")[0], "REQ", "the event was sent once");
}
