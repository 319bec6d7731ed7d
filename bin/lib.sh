# What the scripts in bin/ share: installing what is missing (said before it is done), and a
# throw-away PostgreSQL. Sourced, with the repository as the working directory.

say() { printf '%s\n' "bin: $*" >&2; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# The newest directory with PostgreSQL's programs, or nothing.
find_postgres() {
    for dir in "${TENDER_PG_BIN:-}" "$(pg_config --bindir 2>/dev/null || true)" \
        $(ls -d /usr/lib/postgresql/*/bin /opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin 2>/dev/null | sort -rV); do
        if [ -n "$dir" ] && [ -x "$dir/initdb" ] && [ -x "$dir/pg_ctl" ]; then echo "$dir"; return; fi
    done
}

need_postgres() {
    pg_bin=$(find_postgres)
    [ -n "$pg_bin" ] && return
    if command -v apt-get >/dev/null; then
        say "PostgreSQL is missing: installing it with apt-get"
        as_root apt-get update -qq
        # The package's own cluster is not needed.
        as_root mkdir -p /etc/postgresql-common
        [ -e /etc/postgresql-common/createcluster.conf ] ||
            echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postgresql >/dev/null
    elif command -v brew >/dev/null; then
        say "PostgreSQL is missing: installing it with brew"
        brew install --quiet postgresql@17
    else
        say "PostgreSQL is missing: install its server and contrib modules with your package manager"
        exit 1
    fi
    pg_bin=$(find_postgres)
    [ -n "$pg_bin" ] || { say "PostgreSQL was installed but not found: set TENDER_PG_BIN"; exit 1; }
}

need_c_compiler() {
    command -v cc >/dev/null && return
    command -v apt-get >/dev/null || { say "a C compiler is missing (cc)"; exit 1; }
    say "a C compiler is missing: installing gcc with apt-get"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq gcc libc6-dev >/dev/null
}

# A browser, what drives it, and the pooler of the fault tests.
need_browser() {
    if command -v node >/dev/null && [ "$(node --version | tr -d v | cut -d. -f1)" -ge 20 ]; then :; else
        command -v apt-get >/dev/null || { say "Node.js 20 or newer is missing"; exit 1; }
        say "Node.js is missing or old: installing it with apt-get"
        as_root apt-get update -qq
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq nodejs npm >/dev/null
    fi
    if [ -z "${CHROMIUM:-}" ] && [ ! -x /usr/bin/chromium ]; then
        command -v apt-get >/dev/null || { say "Chromium is missing: set CHROMIUM to its executable"; exit 1; }
        say "Chromium is missing: installing it with apt-get"
        as_root apt-get update -qq
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null
    fi
    if [ ! tests/browser/node_modules/.package-lock.json -nt tests/browser/package-lock.json ]; then
        say "installing what drives the browser into tests/browser/node_modules"
        (cd tests/browser && npm ci --silent --no-audit --no-fund >/dev/null 2>&1 && touch node_modules/.package-lock.json)
    fi
}

need_pgbouncer() {
    [ -n "${PGBOUNCER:-}" ] || [ -x /usr/sbin/pgbouncer ] || command -v pgbouncer >/dev/null && return
    command -v apt-get >/dev/null || { say "PgBouncer is missing: set PGBOUNCER to its executable"; exit 1; }
    say "PgBouncer is missing: installing it with apt-get"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq pgbouncer >/dev/null
}

need_rust() {
    command -v cargo >/dev/null || { say "Rust is missing: see https://rustup.rs"; exit 1; }
}

# cargo-sqlx of the version that the code uses, under target/tools.
need_sqlx() {
    PATH=$PWD/target/tools/bin:$PATH
    version=$(sed -n '/^name = "sqlx"$/{n;s/version = "\(.*\)"/\1/p;}' Cargo.lock)
    if command -v cargo-sqlx >/dev/null && cargo sqlx --version 2>/dev/null | grep -qF "$version"; then return; fi
    say "sqlx-cli $version is missing: building it into target/tools"
    cargo install --quiet --locked --root target/tools --target-dir target/tools/build \
        --version "$version" --no-default-features --features postgres,rustls sqlx-cli
}

as_postgres_user() {
    if [ "$(id -u)" != 0 ]; then "$@"; return; fi
    user=postgres; id postgres >/dev/null 2>&1 || user=nobody
    su -s /bin/sh "$user" -c "$(printf "'%s' " "$@")"
}

# Sets TENDER_TEST_DATABASE_URL to a cluster that lives as long as this script. It loses data in a
# crash, which is none of a test's business: tests that need a durable one start their own.
start_postgres() {
    work=$(mktemp -d /tmp/tender-test.XXXXXX)
    trap 'as_postgres_user "$pg_bin/pg_ctl" -D "$work/data" -m immediate stop >/dev/null 2>&1; rm -rf "$work"' EXIT
    trap 'exit 130' INT TERM
    if [ "$(id -u)" = 0 ]; then
        user=postgres; id postgres >/dev/null 2>&1 || user=nobody
        chown "$user" "$work"
    fi
    as_postgres_user "$pg_bin/initdb" -D "$work/data" -U tender -A trust -E UTF8 --locale=C >/dev/null
    port=$(free_port)
    as_postgres_user "$pg_bin/pg_ctl" -D "$work/data" -w -l "$work/log" \
        -o "-p $port -k $work -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=400" start >/dev/null
    export TENDER_TEST_DATABASE_URL="postgres://tender@127.0.0.1:$port/postgres"
}

# A port that nothing listens on.
free_port() {
    port=$((20000 + $$ % 10000))
    while "$pg_bin/pg_isready" -q -h 127.0.0.1 -p "$port"; [ $? != 2 ]; do port=$((port + 1)); done
    echo "$port"
}
