//! Half-open connections, readers and writers that stop.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// The wait that these tests run into.
const SHORT: Duration = Duration::from_millis(50);
/// Only pings are waited for briefly.
const PING: Patience =
    Patience { ping: SHORT, write: Duration::from_secs(30), route: Duration::from_secs(30) };

/// A long text that cannot be compressed much, so that the buffers of the system are full soon.
fn noise(seed: u64) -> String {
    let mut state = seed;
    let letters = (0..500_000).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'0' + u8::try_from(state >> 58).unwrap_or(0))
    });
    letters.filter(|letter| *letter != '\\').collect()
}

/// Never ends, and keeps what it holds open.
async fn hold<T>(held: T) {
    std::future::pending::<()>().await;
    drop(held);
}

#[tokio::test]
async fn an_upstream_that_answers_no_ping_is_lost() {
    let connection = impatient(&upstream(hold).await, PING).await;
    assert!(loss(&connection).await.contains("did not answer a ping"));
    assert!(matches!(connection.send(&json!(["REQ"])).await, Err(StepError::Connection(_))));
}

#[tokio::test]
async fn an_upstream_that_stops_within_a_frame_is_lost() {
    let url = upstream(|mut server| async move {
        server.get_mut().write_all(&[0x81, 126, 3, 232, b'[']).await.expect("written");
        hold(server).await;
    });
    let connection = impatient(&url.await, PING).await;
    assert!(loss(&connection).await.contains("did not answer a ping"));
}

#[tokio::test]
async fn an_upstream_that_answers_pings_is_kept_and_closed_when_it_is_idle() {
    let url = upstream(|mut server| async move { while server.next().await.is_some() {} }).await;
    let connection = connected(&url, None).await;
    for _ in 0..3 {
        let _full = connection.0.outgoing.try_send(Outgoing::Ping);
    }
    let subscription = connection.subscribe("live");
    assert!(connection.unused_since().is_none());
    drop(subscription);
    assert!(connection.unused_since().is_some());
    assert_eq!(connection.lost(), None);
}

#[tokio::test]
async fn an_upstream_that_does_not_read_loses_the_connection_and_its_permit() {
    let url = upstream(hold).await;
    let permits = Arc::new(Semaphore::new(1));
    let mut opening = opening(&url, None, socket::tls(&[]));
    opening.target.patience = Patience { write: SHORT, ..Patience::default() };
    opening.room = permits.clone().try_acquire_owned().expect("a permit");
    let connection = Connection::open(opening).await.expect("a connection");
    let messages: Vec<String> = (0..40).map(noise).collect();
    let mut subscription = connection.subscribe("poll");
    let sent = async {
        for message in &messages {
            connection.send(&json!(message)).await?;
        }
        Ok::<(), StepError>(())
    };
    assert!(matches!(sent.await, Err(StepError::Connection(_))));
    assert!(connection.lost().expect("lost").contains("accepted no messages"));
    assert!(matches!(subscription.next(PATIENCE).await, Err(StepError::Connection(_))));
    assert_eq!(permits.available_permits(), 1);
}

#[tokio::test]
async fn a_subscription_that_nobody_reads_ends_and_the_others_go_on() {
    let url = upstream(|mut server| async move {
        let (slow, other) = (heard(&mut server).await, heard(&mut server).await);
        for _ in 0..1100 {
            say(&mut server, json!(["EVENT", slow[1], {}])).await;
        }
        say(&mut server, json!(["EOSE", other[1]])).await;
        hold(server).await;
    });
    let connection = impatient(&url.await, Patience { route: SHORT, ..Patience::default() }).await;
    let (mut slow, mut other) = (connection.subscribe("poll"), connection.subscribe("poll"));
    for subscription in [&slow, &other] {
        connection.send(&json!(["REQ", subscription.id(), {}])).await.expect("sent");
    }
    assert!(matches!(other.next(PATIENCE).await, Ok(Heard::Eose)));
    let mut last = slow.next(PATIENCE).await;
    while matches!(last, Ok(Heard::Event(_))) {
        last = slow.next(PATIENCE).await;
    }
    assert!(matches!(last, Err(StepError::Silent(why)) if why.contains("this process")));
}

/// The error of a connect to an upstream that answers the upgrade so.
async fn refusal(answer: &'static str) -> StepError {
    let address = raw_upstream(move |mut stream| async move {
        let _request = stream.read(&mut [0; 2000]).await;
        let _gone = stream.write_all(answer.as_bytes()).await;
        hold(stream).await;
    });
    let url = format!("ws://{}", address.await);
    let opened = Connection::open(opening(&url, None, socket::tls(&[]))).await;
    opened.expect_err("refused")
}

#[tokio::test]
async fn an_upstream_that_limits_our_connections_says_for_how_long() {
    let error = refusal("HTTP/1.1 429 Too Many Requests\r\nRetry-After: 120\r\n\r\n").await;
    assert_eq!(error.retry_after(), Some(Duration::from_mins(2)), "{error}");
    assert!(error.is_transient());
    let error = refusal("HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n").await;
    assert!(matches!(error, StepError::RateLimited(_)), "{error}");
    let error = refusal("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
    assert!(error.to_string().contains("answered 404"), "{error}");
    let error = refusal("HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\n\r\n").await;
    assert!(error.to_string().contains("answered 302"), "{error}");
}

#[tokio::test]
async fn a_subscription_whose_messages_we_did_not_process_is_over() {
    let connection = connected(&upstream(hold).await, None).await;
    let mut subscription = connection.subscribe("live");
    assert!(!subscription.is_over(), "a silent one goes on");
    locked(&connection.0.routes).remove(subscription.id());
    assert!(subscription.is_over());
    let heard = subscription.next(PATIENCE).await;
    assert!(matches!(heard, Err(StepError::Silent(why)) if why.contains("did not process")));
}
