//! A PostgreSQL of one test's own, which may be stopped, and a pooler before it.

use std::{
    net::{TcpListener, UdpSocket},
    path::PathBuf,
    process::Stdio,
};

use tokio::process::{Child, Command};

/// The user that PostgreSQL and its pooler run as when the tests are run by root, whom both refuse.
fn unprivileged(command: &mut Command) {
    if nix::unistd::Uid::effective().is_root() {
        let user = nix::unistd::User::from_name("postgres").unwrap().expect("a user postgres");
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
}

/// Returns a TCP port on which nothing listens, and that no other test is given until this process ends.
///
/// The ports are below the range from which systems take the ports of outgoing connections, and below
/// those of `bin/lib.sh`. A UDP socket of the same number, which stays open, marks a port as taken.
pub fn free_port() -> u16 {
    let offset = u16::try_from(std::process::id() % 10_000).unwrap();
    let mut ports = (0..10_000).map(|next| 10_000 + (offset + next) % 10_000);
    let port = ports.find(|port| {
        let Ok(mark) = UdpSocket::bind(("127.0.0.1", *port)) else { return false };
        std::mem::forget(mark);
        TcpListener::bind(("127.0.0.1", *port)).is_ok()
    });
    port.expect("a port is free")
}

/// A PostgreSQL, gone with its owner.
pub struct Server {
    bin: String,
    dir: PathBuf,
    temporary: Option<tempfile::TempDir>,
    pub port: u16,
}

impl Server {
    pub async fn start() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().to_owned();
        Self::start_in(dir, temporary).await
    }

    /// In a directory that exists, under a temporary one.
    pub async fn start_in(dir: PathBuf, temporary: tempfile::TempDir) -> Self {
        let output = Command::new("sh")
            .args(["-c", "ls -d \"$(pg_config --bindir)\" /usr/lib/postgresql/*/bin 2>/dev/null | while read d; do [ -x $d/initdb ] && echo $d && break; done"])
            .output()
            .await
            .unwrap();
        let bin = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        let server = Self { bin, dir, temporary: Some(temporary), port: free_port() };
        server.hand_over();
        let data = server.data();
        let arguments = ["-D", &data, "-U", "tender", "-A", "trust", "-E", "UTF8", "--locale=C"];
        let arguments = [&arguments[..], &["--wal-segsize=1", "--no-sync"]].concat();
        server.run("initdb", &arguments).await;
        server.ctl(&["start"]).await;
        server
    }

    /// As root the tests give the directories to PostgreSQL's usual user.
    fn hand_over(&self) {
        if nix::unistd::Uid::effective().is_root() {
            let user = nix::unistd::User::from_name("postgres").unwrap().expect("a user postgres");
            let temporary = self.temporary.as_ref().map(tempfile::TempDir::path);
            for dir in temporary.into_iter().chain([self.dir.as_path()]) {
                nix::unistd::chown(dir, Some(user.uid), Some(user.gid)).unwrap();
            }
        }
    }

    fn data(&self) -> String {
        self.dir.join("data").display().to_string()
    }

    async fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(format!("{}/{program}", self.bin));
        unprivileged(&mut command);
        command.args(arguments).current_dir(&self.dir).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(command.status().await.unwrap().success(), "{program} {arguments:?}");
    }

    pub async fn ctl(&self, verb: &[&str]) {
        let dir = self.dir.display().to_string();
        // It need not survive a crash of the machine.
        let options =
            format!("-p {} -k {dir} -c listen_addresses=127.0.0.1 -c fsync=off", self.port);
        let (data, log) = (self.data(), format!("{dir}/log"));
        let base = ["-D", &data, "-w", "-t", "300", "-l", &log, "-o", &options];
        self.run("pg_ctl", &[&base[..], verb].concat()).await;
    }

    /// After a crash.
    pub async fn restart(&self) {
        let _gone_already = self.stop();
        self.ctl(&["start"]).await;
    }

    /// Stops it; the directory is the caller's then.
    pub fn stop_now(mut self) -> Option<tempfile::TempDir> {
        let _gone_already = self.stop();
        self.temporary.take()
    }

    pub fn url(&self) -> String {
        format!("postgres://tender@127.0.0.1:{}/postgres", self.port)
    }
}

impl Server {
    fn stop(&self) -> std::io::Result<std::process::ExitStatus> {
        let mut command = std::process::Command::new(format!("{}/pg_ctl", self.bin));
        if nix::unistd::Uid::effective().is_root() {
            let user = nix::unistd::User::from_name("postgres").unwrap().unwrap();
            std::os::unix::process::CommandExt::uid(&mut command, user.uid.as_raw());
        }
        command.args(["-D", &self.data(), "-m", "immediate", "stop"]);
        command.current_dir("/").stdout(Stdio::null()).stderr(Stdio::null()).status()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone_already = self.stop();
    }
}

/// PgBouncer in transaction mode; killed when dropped.
pub struct Pooler {
    _child: Child,
    _dir: tempfile::TempDir,
    pub port: u16,
}

/// PgBouncer: where `PGBOUNCER` says, or where the system has it.
#[expect(clippy::disallowed_methods, reason = "the tests' own variable")]
fn program() -> String {
    let usual = "/usr/sbin/pgbouncer";
    let usual = if std::path::Path::new(usual).exists() { usual } else { "pgbouncer" };
    std::env::var("PGBOUNCER").unwrap_or_else(|_| usual.to_owned())
}

impl Pooler {
    /// Whether it carries prepared statements over in transaction mode: since 1.21.
    pub fn keeps_statements() -> bool {
        let version = std::process::Command::new(program()).arg("--version").output();
        let version = String::from_utf8(version.expect("bin/test installs it").stdout).unwrap();
        let number = version.split_whitespace().nth(1).unwrap_or_default();
        let mut parts = number.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        (parts.next(), parts.next()) >= (Some(1), Some(21))
    }

    /// In front of the server that the tests share.
    pub async fn start(host: &str, port: u16, database: &str) -> Self {
        let keeps_statements = Self::keeps_statements();
        let dir = tempfile::tempdir().unwrap();
        let (users, config) = (dir.path().join("users.txt"), dir.path().join("pgbouncer.ini"));
        std::fs::write(&users, "\"tender\" \"\"\n").unwrap();
        let listen = free_port();
        let settings = format!(
            "[databases]\n{database} = host={host} port={port} dbname={database}\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {listen}\nunix_socket_dir =\n\
             auth_type = trust\nauth_file = {}\npool_mode = transaction\n\
             default_pool_size = 8\nmax_client_conn = 200\nignore_startup_parameters = extra_float_digits\n{}",
            users.display(),
            if keeps_statements { "max_prepared_statements = 200\n" } else { "" },
        );
        std::fs::write(&config, settings).unwrap();
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.path(), readable).unwrap();
        let mut command = Command::new(program());
        unprivileged(&mut command);
        command
            .arg("-q")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let child = command.spawn().expect("pgbouncer is installed: bin/test does that");
        super::eventually("the pooler listens", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", listen)).await.is_ok()
        })
        .await;
        Self { _child: child, _dir: dir, port: listen }
    }
}
