# Functions that the scripts in bin/ share: they install missing programs and start a temporary
# PostgreSQL. Each script sources this file with the repository as the working directory. A POSIX
# shell has no local variables: do not use the names of this file's variables in a script.

say() { printf '%s\n' "bin: $*" >&2; }

fail() { say "$@"; exit 1; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# Installs Debian packages. The first argument is the missing program, the others are the packages.
# Fails where there is no apt-get; the caller then says how to install the program by hand.
apt_install() {
    missing=$1
    shift
    command -v apt-get >/dev/null || return 1
    say "$missing is missing: installing $* with apt-get"
    as_root apt-get update -qq || say "apt-get update failed: trying the package lists of this machine"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null
}

need_rust() {
    command -v cargo >/dev/null || fail "Rust is missing: install it from https://rustup.rs"
}

need_c_compiler() {
    command -v cc >/dev/null && return
    apt_install "a C compiler" gcc libc6-dev ||
        fail "a C compiler is missing: install one that provides cc"
}

# Prints the directory of PostgreSQL's programs: TENDER_PG_BIN, else the directory that pg_config
# names, else the newest version. Prints nothing if there is none.
find_postgres() {
    for dir in "${TENDER_PG_BIN:-}" "$(pg_config --bindir 2>/dev/null || true)" \
        $(ls -d /usr/lib/postgresql/*/bin /opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin 2>/dev/null | sort -rV); do
        if [ -n "$dir" ] && [ -x "$dir/initdb" ] && [ -x "$dir/pg_ctl" ]; then
            (cd "$dir" && pwd)
            return
        fi
    done
}

# Sets pg_bin.
need_postgres() {
    pg_bin=$(find_postgres)
    [ -n "$pg_bin" ] && return
    if command -v apt-get >/dev/null; then
        # Without this file the package creates and starts a cluster that Tender does not use.
        as_root mkdir -p /etc/postgresql-common
        [ -e /etc/postgresql-common/createcluster.conf ] ||
            echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
        apt_install PostgreSQL postgresql || fail "apt-get could not install PostgreSQL: see its error above"
    elif command -v brew >/dev/null; then
        say "PostgreSQL is missing: installing it with brew"
        brew install --quiet postgresql@17
    else
        fail "PostgreSQL is missing: install its server and contrib modules with your package manager"
    fi
    pg_bin=$(find_postgres)
    [ -n "$pg_bin" ] || fail "PostgreSQL is installed, but initdb was not found: set TENDER_PG_BIN to its directory"
}

# Node.js, Chromium and the npm packages of the browser tests.
need_browser() {
    if ! command -v node >/dev/null || [ "$(node --version | tr -d v | cut -d. -f1)" -lt 20 ]; then
        apt_install "Node.js 20 or newer" nodejs npm ||
            fail "Node.js 20 or newer is missing: install it with npm"
    fi
    if [ -z "${CHROMIUM:-}" ] && [ ! -x /usr/bin/chromium ]; then
        apt_install Chromium chromium || fail "Chromium is missing: set CHROMIUM to its executable"
    fi
    if [ ! tests/browser/node_modules/.package-lock.json -nt tests/browser/package-lock.json ]; then
        say "npm packages of the browser tests are missing: installing them into tests/browser/node_modules"
        (cd tests/browser && npm ci --loglevel=error --no-audit --no-fund >/dev/null &&
            touch node_modules/.package-lock.json) ||
            fail "npm could not install the packages of tests/browser: see its error above"
    fi
}

need_pgbouncer() {
    if [ -n "${PGBOUNCER:-}" ] || [ -x /usr/sbin/pgbouncer ] || command -v pgbouncer >/dev/null; then return; fi
    apt_install PgBouncer pgbouncer || fail "PgBouncer is missing: set PGBOUNCER to its executable"
}

# Puts promtool of Debian's package prometheus into target/tools/prometheus. The package itself would also
# start a server.
need_promtool() {
    if [ -n "${PROMTOOL:-}" ] || [ -x target/tools/prometheus/usr/bin/promtool ] || command -v promtool >/dev/null; then return; fi
    how="promtool is missing: set PROMTOOL to its executable"
    command -v apt-get >/dev/null || fail "$how"
    say "promtool is missing: unpacking Debian's package prometheus into target/tools/prometheus"
    mkdir -p target/tools/prometheus
    (cd target/tools/prometheus && apt-get download -qq prometheus >/dev/null 2>&1) ||
        { as_root apt-get update -qq; (cd target/tools/prometheus && apt-get download -qq prometheus >/dev/null); } ||
        fail "$how"
    dpkg-deb --fsys-tarfile target/tools/prometheus/prometheus_*.deb |
        tar -x -C target/tools/prometheus ./usr/bin/promtool || fail "$how"
    rm -f target/tools/prometheus/*.deb
}

# need_cargo_tool COMMAND CRATE VERSION [OPTION...]: puts `cargo COMMAND` of this version on PATH. If
# another version or none is installed, builds it into target/tools with these options of cargo install.
need_cargo_tool() {
    tool=$1 tool_crate=$2 tool_version=$3
    shift 3
    case $PATH in "$PWD/target/tools/bin:"*) ;; *) PATH=$PWD/target/tools/bin:$PATH ;; esac
    if cargo "$tool" --version 2>/dev/null | grep -qwF "$tool_version"; then return; fi
    say "$tool_crate $tool_version is missing: building it into target/tools"
    cargo install --quiet --locked --root target/tools --target-dir target/tools/build \
        --version "$tool_version" "$@" "$tool_crate"
}

# sqlx-cli must have the version of the library: it writes the files that the library's macros read.
need_sqlx() {
    need_cargo_tool sqlx sqlx-cli "$(sed -n '/^name = "sqlx"$/{n;s/version = "\(.*\)"/\1/p;}' Cargo.lock)" \
        --no-default-features --features postgres,rustls
}

need_machete() { need_cargo_tool machete cargo-machete 0.9.2; }

need_deny() { need_cargo_tool deny cargo-deny 0.20.2; }

# PostgreSQL refuses to run as root; root's clusters run as this user.
postgres_user() { if id postgres >/dev/null 2>&1; then echo postgres; else echo nobody; fi; }

# Runs a command as the current user, or as postgres_user if that is root. Arguments contain no single quote.
as_postgres_user() {
    if [ "$(id -u)" != 0 ]; then "$@"; return; fi
    # That user may not be allowed to enter the current directory.
    su -s /bin/sh "$(postgres_user)" -c "cd / && $(printf "'%s' " "$@")"
}

# make_work_folder PARENT: creates the temporary folder $work, which clean_up removes when the script
# ends or is interrupted.
make_work_folder() {
    work=$(mktemp -d "$1/tender-test.XXXXXX")
    trap clean_up EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

# Stops the cluster in $work and removes the folder.
clean_up() {
    set +e # a step that fails must not skip the next one
    if [ -e "$work/data/postmaster.pid" ]; then
        as_postgres_user "$pg_bin/pg_ctl" -D "$work/data" -m immediate stop >/dev/null 2>&1
    fi
    rm -rf "$work"
}

# Prints the parent of the temporary cluster: /dev/shm, which is memory, if it has more than 1 GB
# free, else /tmp.
cluster_parent() {
    free_kb=$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print $4 }')
    if [ -w /dev/shm ] && [ "${free_kb:-0}" -gt 1048576 ]; then echo /dev/shm; else echo /tmp; fi
}

# Starts a temporary PostgreSQL that stops when the script ends, and exports
# TENDER_TEST_DATABASE_URL. The cluster is not durable: after a crash its data is lost. Tests that
# need a durable cluster start their own. max_wal_size keeps the WAL small enough for /dev/shm.
start_postgres() {
    make_work_folder "$(cluster_parent)"
    if [ "$(id -u)" = 0 ]; then chown "$(postgres_user)" "$work"; fi
    as_postgres_user "$pg_bin/initdb" -D "$work/data" -U tender -A trust -E UTF8 --locale=C --no-sync >/dev/null
    port=$((20000 + $$ % 10000))
    last_port=$((port + 9))
    # The server fails to start if another program listens on the port; the next port is then tried.
    until as_postgres_user "$pg_bin/pg_ctl" -D "$work/data" -w -l "$work/log" \
        -o "-p $port -k $work -c listen_addresses=127.0.0.1 -c fsync=off -c full_page_writes=off -c wal_level=minimal -c max_wal_senders=0 -c max_wal_size=256MB -c max_connections=1000" \
        start >/dev/null 2>&1; do
        if [ "$port" = "$last_port" ]; then
            tail -n 20 "$work/log" >&2
            fail "the temporary PostgreSQL did not start: see the end of its log above"
        fi
        port=$((port + 1))
    done
    export TENDER_TEST_DATABASE_URL="postgres://tender@127.0.0.1:$port/postgres"
}
