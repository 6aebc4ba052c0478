# Sourced by the scripts beside it: paths, the PostgreSQL to use, and messages.
#   root       the top of the clone
#   PG_CONFIG  the PostgreSQL to build for; the one on the PATH unless given
#   cargo-pgrx of the right version comes first on the PATH, once setup has run

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
cd "$root"

# A Rust backtrace would appear in the DETAIL of errors that clients see.
unset RUST_BACKTRACE

PGRX_VERSION=0.18.1
# The oldest major version of PostgreSQL that is supported.
MIN_MAJOR=15
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/pg_presence
TOOLS=$CACHE/tools
# Servers run as another user where root starts them, who cannot look into root's home.
SERVERS=$CACHE/servers
[ "$(id -u)" != 0 ] || SERVERS=/var/cache/pg_presence/servers
PATH=$PATH:$HOME/.cargo/bin:$TOOLS/bin
[ "$(cargo pgrx --version 2>/dev/null)" = "cargo-pgrx $PGRX_VERSION" ] || PATH=$TOOLS/bin:$PATH
export PATH

say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Whether $PG_CONFIG (or the PATH's) names a PostgreSQL with server, headers and client.
have_postgres() {
    local config=${PG_CONFIG:-$(command -v pg_config)} bin
    [ -n "$config" ] && bin=$("$config" --bindir 2>/dev/null) &&
        [ -x "$bin/postgres" ] && [ -x "$bin/initdb" ] && [ -x "$bin/psql" ] &&
        [ -f "$("$config" --includedir-server)/postgres.h" ]
}

# Selects one PostgreSQL: sets PG_CONFIG, PGRX_PG_CONFIG_PATH, and its major version in PG_MAJOR.
use_postgres() {
    have_postgres || die "no complete PostgreSQL at ${PG_CONFIG:-pg_config on the PATH}; run pg_test/bin/setup"
    PG_CONFIG=$(command -v "${PG_CONFIG:-pg_config}")
    PG_MAJOR=$("$PG_CONFIG" --version | sed 's/^PostgreSQL \([0-9]*\).*/\1/')
    [ "$PG_MAJOR" -ge "$MIN_MAJOR" ] || die "PostgreSQL $MIN_MAJOR or newer is needed; $PG_CONFIG is of $PG_MAJOR"
    export PG_CONFIG PG_MAJOR PGRX_PG_CONFIG_PATH=$PG_CONFIG
    features=(--no-default-features --features "pg$PG_MAJOR${EXTRA_FEATURES:+,$EXTRA_FEATURES}")
}

# Runs a program of the server, which refuses to run as root.
as_server() {
    if [ "$(id -u)" = 0 ]; then (cd / && runuser -u postgres -- "$@"); else "$@"; fi
}
