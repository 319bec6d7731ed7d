//! Whether an instance of zooid answers and accepts our key.

use reqwest::{Method, Url};
use tender_jobs::provision::relay::Relay;

use super::{
    Zooid, ZooidError,
    answer::{skew, unreadable},
    endpoint,
};

/// What is known of an instance that answers and accepts our key.
#[derive(Debug, Clone, Copy)]
pub struct Checked {
    /// How far its clock is ahead of ours, in seconds; `None` if it does not tell its time.
    pub clock_ahead_secs: Option<i64>,
}

impl Zooid {
    /// Checks that each instance answers and accepts our key. Returns the result by the API's URL.
    pub async fn check(&self) -> Vec<(String, Result<Checked, ZooidError>)> {
        let mut urls: Vec<&Url> = self.settings.instances.values().collect();
        urls.push(&self.settings.default_url);
        urls.sort();
        urls.dedup();
        let mut found = Vec::new();
        for url in urls {
            found.push((url.to_string(), self.check_one(url).await));
        }
        found
    }

    /// Checks that the instance of a relay answers and accepts our key.
    ///
    /// # Errors
    /// See [`ZooidError`].
    pub async fn check_instance_of(&self, relay: &Relay) -> Result<(), ZooidError> {
        self.check_one(self.base(relay)).await.map(|_| ())
    }

    /// Requests the members of a relay that cannot exist. Only zooid answers that it does not have
    /// it, and only to an accepted key.
    async fn check_one(&self, base: &Url) -> Result<Checked, ZooidError> {
        let url = endpoint(base, "00000000-0000-0000-0000-000000000000", "/members")?;
        let response = self.send(Method::GET, url, None).await?;
        if response.status().is_success() {
            return Err(unreadable("it answers for a relay that cannot exist; it is not zooid"));
        }
        let clock_ahead_secs = skew(response.headers());
        match self.refused(response, None).await {
            ZooidError::NotFound => Ok(Checked { clock_ahead_secs }),
            error => Err(error),
        }
    }
}
