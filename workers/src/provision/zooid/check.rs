//! Whether an instance of zooid answers and accepts our key.

use reqwest::{Method, Url};
use tender_jobs::provision::relay::Relay;

use super::{Zooid, ZooidError, answer::unreadable, endpoint};

impl Zooid {
    /// Checks that each instance answers and accepts our key. Returns the result by the API's URL.
    pub async fn check(&self) -> Vec<(String, Result<(), ZooidError>)> {
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
        self.check_one(self.base(relay)).await
    }

    /// Requests the members of a relay that cannot exist. Only zooid answers that it does not have
    /// it, and only to an accepted key.
    async fn check_one(&self, base: &Url) -> Result<(), ZooidError> {
        let url = endpoint(base, "00000000-0000-0000-0000-000000000000", "/members")?;
        let response = self.send(Method::GET, url, None).await?;
        if response.status().is_success() {
            return Err(unreadable("it answers for a relay that cannot exist; it is not zooid"));
        }
        match self.refused(response, None).await {
            ZooidError::NotFound => Ok(()),
            error => Err(error),
        }
    }
}
