//! Finds PostgreSQL's programs on this machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::PostgresError;

/// The oldest major version that Tender supports.
const OLDEST: u32 = 14;
/// Directories that contain one directory per version.
const VERSIONED: [&str; 3] = ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt"];
/// Directories that contain the programs themselves.
const PLAIN: [&str; 5] =
    ["/usr/pgsql/bin", "/usr/local/pgsql/bin", "/opt/homebrew/bin", "/usr/local/bin", "/usr/bin"];

/// The directory of PostgreSQL's programs of one version.
#[derive(Debug, Clone)]
pub(super) struct Binaries {
    /// `None` means that `PATH` finds the programs.
    dir: Option<PathBuf>,
}

impl Binaries {
    /// Returns the programs for the cluster in `data`: those of its version if the cluster exists,
    /// else the newest.
    pub(super) fn find(configured: Option<&Path>, data: &Path) -> Result<Self, PostgresError> {
        let cluster = fs::read_to_string(data.join("PG_VERSION")).ok();
        let cluster = cluster.map(|text| text.trim().to_owned());
        let candidates = match configured {
            Some(dir) => vec![Some(dir.to_owned())],
            None => candidates(),
        };
        let mut found: Vec<(u32, Self)> = candidates
            .into_iter()
            .map(|dir| Self { dir })
            .filter_map(|binaries| Some((binaries.major_version()?, binaries)))
            .collect();
        // The sort is stable, and the candidates are in the order of preference.
        found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
        let newest = found.first().map(|(version, _)| *version);
        let fits = |version: u32| match &cluster {
            Some(cluster) => *cluster == version.to_string(),
            None => version >= OLDEST,
        };
        if let Some((_, binaries)) = found.into_iter().find(|(version, _)| fits(*version)) {
            return Ok(binaries);
        }
        Err(match (newest, cluster) {
            (None, _) => PostgresError::NoBinaries(match configured {
                None => advice(),
                Some(dir) => {
                    let dir = dir.display();
                    format!("TENDER_PG_BIN ({dir}) has no programs, correct it or {}", advice())
                }
            }),
            (Some(newest), Some(cluster)) => {
                PostgresError::OtherVersion { cluster, found: newest.to_string() }
            }
            (Some(newest), None) => PostgresError::TooOld(newest.to_string()),
        })
    }

    pub(super) fn command(&self, program: &str) -> Command {
        Command::new(self.dir.as_ref().map_or_else(|| program.into(), |dir| dir.join(program)))
    }

    /// Returns the major version of the server; `None` if the server, `initdb` or `pg_ctl` is
    /// missing.
    fn major_version(&self) -> Option<u32> {
        for program in ["initdb", "pg_ctl"] {
            self.command(program).arg("--version").output().ok().filter(|o| o.status.success())?;
        }
        let output = self.command("postgres").arg("--version").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?; // postgres (PostgreSQL) 17.2 (Debian …)
        let version =
            text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
        version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }
}

fn candidates() -> Vec<Option<PathBuf>> {
    let mut candidates = Vec::new();
    let config = Command::new("pg_config").arg("--bindir").output();
    if let Ok(output) = config {
        let dir = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        candidates.push((!dir.is_empty()).then(|| PathBuf::from(dir)));
    }
    candidates.push(None);
    for parent in VERSIONED {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        let dirs = entries.map(|entry| entry.path().join("bin"));
        candidates.extend(dirs.filter(|dir| dir.join("initdb").exists()).map(Some));
    }
    let plain = PLAIN.iter().map(PathBuf::from).filter(|dir| dir.join("initdb").exists());
    candidates.extend(plain.map(Some));
    candidates
}

/// Returns how to install PostgreSQL on this system, as an imperative clause.
fn advice() -> String {
    if cfg!(target_os = "macos") {
        return "run `brew install postgresql@17`".into();
    }
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    advice_for(&release).into()
}

fn advice_for(os_release: &str) -> &'static str {
    let ids: Vec<&str> = os_release
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
        .flat_map(|ids| ids.trim_matches('"').split_whitespace())
        .collect();
    let any = |names: &[&str]| ids.iter().any(|id| names.contains(id));
    if any(&["debian", "ubuntu"]) {
        "run `apt-get install postgresql`"
    } else if any(&["fedora", "rhel", "centos"]) {
        "run `dnf install postgresql-server postgresql-contrib`"
    } else if any(&["alpine"]) {
        "run `apk add postgresql postgresql-contrib`"
    } else if any(&["arch"]) {
        "run `pacman -S postgresql`"
    } else if any(&["suse", "opensuse"]) {
        "run `zypper install postgresql-server postgresql-contrib`"
    } else {
        "install your system's PostgreSQL server and its contrib modules"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_names_the_package_of_the_system() {
        assert!(advice_for("NAME=x\nID=debian\n").contains("apt-get"));
        assert!(advice_for("ID=rocky\nID_LIKE=\"rhel centos fedora\"\n").contains("dnf"));
        assert!(advice_for("").contains("your system"));
    }

    #[test]
    fn programs_that_are_not_there_are_named_with_what_to_do() {
        let missing = Path::new("/nonexistent/bin");
        let error =
            Binaries::find(Some(missing), Path::new("/nonexistent/data")).expect_err("none");
        assert!(matches!(error, PostgresError::NoBinaries(_)), "{error}");
        assert!(error.to_string().contains("DATABASE_URL"), "{error}");
    }
}
