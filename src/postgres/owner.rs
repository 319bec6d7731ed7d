//! The user that PostgreSQL runs as: ours, or an unprivileged one if Tender runs as root, because
//! PostgreSQL does not run as root.

use std::{
    collections::hash_map::DefaultHasher,
    fs,
    hash::{Hash, Hasher},
    io::Write,
    os::unix::{
        fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use nix::unistd::{Uid, User};

use super::{LONGEST_SOCKET_DIR, PostgresError, error::file};

/// The directory of root's clusters if the unprivileged user has no access to the data directory.
const ROOTS_PLACE: &str = "/var/lib/tender";

/// The user that PostgreSQL runs as.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    /// The user's uid and gid; `None` means the user that Tender runs as.
    drop_to: Option<(u32, u32)>,
}

impl Owner {
    pub(super) fn choose() -> Result<Self, PostgresError> {
        if !Uid::effective().is_root() {
            return Ok(Self { drop_to: None });
        }
        let known =
            ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten());
        let user = known.ok_or(PostgresError::NoUser)?;
        Ok(Self { drop_to: Some((user.uid.as_raw(), user.gid.as_raw())) })
    }

    pub(super) fn run_as(self, command: &mut Command) {
        if let Some((uid, gid)) = self.drop_to {
            command.uid(uid).gid(gid);
        }
    }

    /// Returns `dir` as an absolute path. Returns a directory under [`ROOTS_PLACE`] instead if the
    /// owner has no access to a directory above `dir`, such as `/root`.
    pub(super) fn reachable(self, dir: &Path) -> Result<PathBuf, PostgresError> {
        let dir = std::path::absolute(dir).map_err(|source| file("find", dir, source))?;
        let Some((uid, gid)) = self.drop_to else { return Ok(dir) };
        let may_enter = |path: &Path| {
            fs::metadata(path).is_ok_and(|meta| {
                let mode = meta.permissions().mode();
                let bit = match (meta.uid() == uid, meta.gid() == gid) {
                    (true, _) => 0o100,
                    (_, true) => 0o010,
                    _ => 0o001,
                };
                mode & bit != 0
            })
        };
        if dir.ancestors().filter(|above| above.exists()).all(may_enter) {
            return Ok(dir);
        }
        let place = Path::new(ROOTS_PLACE).join(short_hash(&dir));
        tracing::info!(
            wanted = %dir.display(), used = %place.display(),
            "PostgreSQL's user has no access to the data directory; using another one"
        );
        Ok(place)
    }

    /// Creates a directory that belongs to the owner. Missing directories above it belong to the
    /// user that Tender runs as.
    pub(super) fn create_dir(self, dir: &Path) -> Result<(), PostgresError> {
        fs::create_dir_all(dir).map_err(|source| file("create", dir, source))?;
        self.own(dir)?;
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(dir, mode).map_err(|source| file("protect", dir, source))
    }

    /// Writes a file that only the owner may read.
    pub(super) fn write_secret(self, path: &Path, text: &str) -> Result<(), PostgresError> {
        let mut options = fs::File::options();
        options.create(true).truncate(true).write(true).mode(0o600);
        let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|source| file("write", path, source))?;
        self.own(path)
    }

    /// Creates and returns the directory of the socket: beside the cluster, or in `/tmp` if that
    /// path is too long for a socket.
    pub(super) fn socket_dir(self, dir: &Path) -> Result<PathBuf, PostgresError> {
        let beside = dir.join("socket");
        let socket_dir = if beside.as_os_str().len() <= LONGEST_SOCKET_DIR {
            beside
        } else {
            PathBuf::from(format!("/tmp/tender-{}", short_hash(dir)))
        };
        // In `/tmp`, another user may have created a link with this name.
        let planted = fs::symlink_metadata(&socket_dir).is_ok_and(|meta| !meta.is_dir());
        if planted {
            let reason = std::io::Error::other("it is not a directory");
            return Err(file("use", &socket_dir, reason));
        }
        self.create_dir(&socket_dir)?;
        Ok(socket_dir)
    }

    fn own(self, path: &Path) -> Result<(), PostgresError> {
        let Some((uid, gid)) = self.drop_to else { return Ok(()) };
        chown(path, Some(uid), Some(gid)).map_err(|source| file("hand over", path, source))
    }
}

/// Returns a name for a directory, which is the same for the same path.
fn short_hash(path: &Path) -> String {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_gets_its_socket_elsewhere() {
        let owner = Owner { drop_to: None };
        let long = std::env::temp_dir().join("a".repeat(90));
        let socket_dir = owner.socket_dir(&long).expect("a directory");
        assert!(socket_dir.starts_with("/tmp") && socket_dir.as_os_str().len() < 40);
        fs::remove_dir(socket_dir).expect("empty");
    }

    #[test]
    fn root_does_not_use_a_directory_that_the_owner_cannot_enter() {
        let owner = Owner { drop_to: Some((4_000_000, 4_000_000)) };
        let closed = tempfile::tempdir().expect("a directory");
        fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).expect("ours");
        let used = owner.reachable(&closed.path().join("data")).expect("a place");
        assert!(used.starts_with(ROOTS_PLACE), "{}", used.display());
    }
}
