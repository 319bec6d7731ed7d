//! The dashboard of a process of its own, and how long its pages take.

use std::time::{Duration, Instant};

use super::{Bench, Process};

const BASE: &str = "http://127.0.0.1:4919";
const PASSWORD: &str = "a password for the benchmark";

/// A process that serves the dashboard, and a session.
pub struct Dashboard {
    _process: Process,
    client: reqwest::Client,
    cookie: String,
}

impl Dashboard {
    pub async fn start(bench: &Bench) -> Self {
        let process = bench.spawn_with("api", &[("DASHBOARD_PASSWORD", PASSWORD)]);
        let client =
            reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let cookie = log_in(&client).await;
        Self { _process: process, client, cookie }
    }

    /// Requests a page so many times, after five times that warm up. Returns its size, and the times to the first
    /// byte.
    pub async fn load(&self, path: &str, requests: usize) -> (usize, Vec<Duration>) {
        let (mut bytes, mut waits) = (0, Vec::new());
        for request in 0..requests + 5 {
            let started = Instant::now();
            let page = self.client.get(format!("{BASE}/dashboard{path}"));
            let answer = page.header("cookie", &self.cookie).send().await.unwrap();
            let wait = started.elapsed();
            assert!(answer.status().is_success(), "{path}: {}", answer.status());
            bytes = answer.bytes().await.unwrap().len();
            if request >= 5 {
                waits.push(wait);
            }
        }
        (bytes, waits)
    }
}

/// Waits until the process answers, and returns the cookie of a session.
async fn log_in(client: &reqwest::Client) -> String {
    let started = Instant::now();
    loop {
        let form = [("password", PASSWORD)];
        let answer =
            client.post(format!("{BASE}/dashboard/login/password")).form(&form).send().await;
        if let Some(cookie) =
            answer.ok().and_then(|answer| answer.headers().get("set-cookie").cloned())
        {
            return cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
        }
        assert!(started.elapsed() < Duration::from_mins(1), "the process serves its dashboard");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
