//! The stand-in for zooid as a process. It reads zooid's variables and keeps each relay in
//! `CONFIG/<id>.toml`, so that `bin/zooid-test` can be shown to work without zooid.
//!
//! - `PORT`: the port on the loopback interface (3334).
//! - `API_HOST`: the `Host` header of the API. Without it the API is off.
//! - `API_WHITELIST`: public keys in hex, separated by commas.
//! - `CONFIG`: the folder of the relays' files (`./config`). It is read again before each call.
//! - `DATA`, `MEDIA`: ignored; the stand-in stores no events and no media.

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::Context;
use serde_json::Value;
use tender::demo::zooid::{File, Rules, Store, ZooidStandIn};
use tokio::net::TcpListener;

/// How a file is recognized as unchanged: its time and its length.
type Stamp = (SystemTime, u64);

/// The folder of the relays' files.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    known: BTreeMap<String, Stamp>,
}

impl Folder {
    fn open(path: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        Ok(Self { path, known: BTreeMap::new() })
    }

    fn file(&self, relay_id: &str) -> PathBuf {
        self.path.join(format!("{relay_id}.toml"))
    }

    /// Returns the files that are present.
    fn present(&self) -> io::Result<BTreeMap<String, Stamp>> {
        let mut present = BTreeMap::new();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            let is_toml = path.extension().is_some_and(|extension| extension == "toml");
            let name = path.file_stem().and_then(|name| name.to_str());
            // A file may vanish between the list and the look at it.
            if let (true, Some(name), Ok(stamp)) = (is_toml, name, stamp(&path)) {
                present.insert(name.to_owned(), stamp);
            }
        }
        Ok(present)
    }
}

impl Store for Folder {
    fn changes(&mut self) -> io::Result<Vec<(String, File)>> {
        let present = self.present()?;
        let gone = self.known.keys().filter(|id| !present.contains_key(*id));
        let mut changes: Vec<_> = gone.map(|id| (id.clone(), File::Gone)).collect();
        for (id, stamp) in &present {
            if self.known.get(id) != Some(stamp) {
                changes.push((id.clone(), read(&self.file(id))));
            }
        }
        self.known = present;
        Ok(changes)
    }

    /// Writes in place, as zooid does: a process that is killed meanwhile leaves a broken file.
    fn write(&mut self, relay_id: &str, document: Option<&Value>) -> io::Result<()> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if !relay_id.bytes().all(is_plain) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file name"));
        }
        let path = self.file(relay_id);
        let Some(document) = document else {
            self.known.remove(relay_id);
            return fs::remove_file(path);
        };
        fs::write(&path, toml::to_string(document).map_err(io::Error::other)?)?;
        self.known.insert(relay_id.to_owned(), stamp(&path)?);
        Ok(())
    }
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.modified()?, metadata.len()))
}

fn read(path: &Path) -> File {
    let text = fs::read_to_string(path).unwrap_or_default();
    // A file that a killed process has just opened for writing is empty.
    if text.is_empty() {
        return File::Broken;
    }
    toml::from_str(&text).map_or(File::Broken, File::Document)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let variables: BTreeMap<String, String> = env::vars().collect();
    let variable = |name: &str| variables.get(name).cloned().filter(|value| !value.is_empty());
    let port = variable("PORT").unwrap_or_else(|| "3334".to_owned());
    let port = port.parse::<u16>().context("PORT is not a port, such as 3334")?;
    let whitelist = variable("API_WHITELIST").unwrap_or_default();
    let whitelist = whitelist.split(',').map(|key| key.trim().to_owned()).collect();
    let rules = Rules { host: variable("API_HOST"), whitelist, ..Rules::default() };
    let path = PathBuf::from(variable("CONFIG").unwrap_or_else(|| "./config".to_owned()));
    let folder = Folder::open(path.clone())
        .with_context(|| format!("could not open the folder CONFIG={}", path.display()))?;
    let listener = TcpListener::bind(("127.0.0.1", port))
        .await
        .with_context(|| format!("could not open port {port}"))?;
    let _stand_in = ZooidStandIn::start_on(listener, rules, Some(Box::new(folder)))
        .context("could not read the relays' files")?;
    tokio::signal::ctrl_c().await.context("could not wait for Ctrl-C")
}
