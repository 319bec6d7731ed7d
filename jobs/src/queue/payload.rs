//! Payloads with a version, so that a worker refuses a job of another release and does not misread it.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::NewJob;

/// The version that this release writes and reads.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Versioned<W> {
    v: u32,
    #[serde(flatten)]
    work: W,
}

impl NewJob {
    /// A job of `queue` whose payload is `work` with its version; [`parse`] reads it.
    pub fn versioned(queue: &'static str, work: &impl Serialize) -> Self {
        Self::new(queue, &Versioned { v: VERSION, work })
    }
}

/// Reads the payload of a job that [`NewJob::versioned`] made.
///
/// # Errors
/// The reason why this job can never be done: its payload is malformed, or of another version.
pub fn parse<W: DeserializeOwned>(payload: &[u8]) -> Result<W, String> {
    let read = serde_json::from_slice::<Versioned<W>>(payload);
    let read = read.map_err(|error| format!("the payload is unreadable: {error}"))?;
    match read.v {
        VERSION => Ok(read.work),
        v => Err(format!("the payload has version {v}; this worker reads version {VERSION}")),
    }
}
