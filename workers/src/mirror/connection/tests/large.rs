//! Messages over the limits.

use tender_jobs::mirror::event::{EventId, Limits, Reason};
use tokio_tungstenite::tungstenite::protocol::frame::{
    Frame,
    coding::{Data, OpCode},
};

use super::*;

const LIMITS: Limits = Limits { bytes: MAX_EVENT, tags: 10 };

fn event(content: usize) -> Value {
    json!({ "content": "x".repeat(content), "created_at": 7, "id": "ab".repeat(32), "tags": [] })
}

async fn fragment(server: &mut Server, opcode: OpCode, text: &str, is_last: bool) {
    let frame = Frame::message(text.as_bytes().to_vec(), opcode, is_last);
    server.send(Message::Frame(frame)).await.expect("sent");
}

#[tokio::test]
async fn events_over_the_limit_are_told_without_their_bytes_and_the_connection_goes_on() {
    let url = upstream(|mut server| async move {
        let subscription = heard(&mut server).await[1].clone();
        for content in [MAX_EVENT, MAX_MESSAGE, 5_000_000] {
            say(&mut server, json!(["EVENT", subscription, event(content)])).await;
        }
        let text = json!(["EVENT", subscription, event(300_000)]).to_string();
        fragment(&mut server, OpCode::Data(Data::Text), &text[..1000], false).await;
        for part in text.as_bytes()[1000..].chunks(7000) {
            let part = std::str::from_utf8(part).expect("ASCII");
            fragment(&mut server, OpCode::Data(Data::Continue), part, false).await;
        }
        fragment(&mut server, OpCode::Data(Data::Continue), "", true).await;
        say(&mut server, json!(["EOSE", subscription])).await;
        heard(&mut server).await;
    });
    let connection = connected(&url.await, None).await;
    let mut subscription = connection.subscribe("poll");
    connection.send(&json!(["REQ", subscription.id(), {}])).await.expect("sent");
    for _ in 0..4 {
        let Ok(Heard::Event(event)) = subscription.next(PATIENCE).await else { panic!("no event") };
        assert_eq!(event.json(), None);
        let unusable = event.parse(LIMITS).expect_err("too large");
        assert_eq!(unusable.reason, Reason::TooLarge);
        assert_eq!(unusable.claims, Some((EventId([0xab; 32]), 7)));
    }
    assert!(matches!(subscription.next(PATIENCE).await, Ok(Heard::Eose)));
    assert_eq!(connection.lost(), None);
}

#[tokio::test]
async fn fragments_without_an_end_lose_the_connection() {
    let url = upstream(|mut server| async move {
        fragment(&mut server, OpCode::Data(Data::Text), "[", false).await;
        let part = vec![b'x'; 1024 * 1024];
        loop {
            let frame = Frame::message(part.clone(), OpCode::Data(Data::Continue), false);
            if server.send(Message::Frame(frame)).await.is_err() {
                return;
            }
        }
    });
    let connection = connected(&url.await, None).await;
    assert!(loss(&connection).await.contains("a message is longer than"));
}

#[tokio::test]
async fn a_large_negentropy_frame_refuses_the_reconciliation() {
    let url = upstream(|mut server| async move {
        let subscription = heard(&mut server).await[1].clone();
        say(&mut server, json!(["NEG-MSG", subscription, "61".repeat(MAX_MESSAGE)])).await;
        heard(&mut server).await;
    });
    let connection = connected(&url.await, None).await;
    let mut subscription = connection.subscribe("neg");
    connection.send(&json!(["NEG-OPEN", subscription.id(), {}])).await.expect("sent");
    let heard = subscription.next(PATIENCE).await;
    assert!(matches!(heard, Ok(Heard::NegErr(why, None)) if why.contains("too large")));
}
