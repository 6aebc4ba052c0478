# shellcheck shell=bash
# Sourced by the scripts beside it: paths, the PostgreSQL to use, and messages.
#   root       the top of the clone
#   PG_CONFIG  the PostgreSQL to build for: the one on the PATH, or else the distribution's, unless given
#   cargo-pgrx of the right version comes first on the PATH, once setup has run

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
cd "$root"

# A Rust backtrace would appear in the DETAIL of errors that clients see.
unset RUST_BACKTRACE

PGRX_VERSION=0.18.1
# The major versions of PostgreSQL that are supported.
MIN_MAJOR=15
MAX_MAJOR=18
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

can_be_root() { [ "$(id -u)" = 0 ] || command -v sudo >/dev/null; }
as_root() {
    can_be_root || die "this needs root or sudo: $*"
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Of the PostgreSQL that a pg_config belongs to:
major_of() { "$1" --version 2>/dev/null | sed -n 's/^PostgreSQL \([0-9]*\).*/\1/p'; }
is_supported() { [ "${1:-0}" -ge "$MIN_MAJOR" ] && [ "$1" -le "$MAX_MAJOR" ]; }
has_server() {
    local bin
    bin=$("$1" --bindir 2>/dev/null) && [ -x "$bin/postgres" ] && [ -x "$bin/initdb" ] && [ -x "$bin/psql" ]
}
has_headers() { [ -f "$("$1" --includedir-server 2>/dev/null)/postgres.h" ]; }
is_complete() { is_supported "$(major_of "$1")" && has_server "$1" && has_headers "$1"; }

# The pg_config of each server that the distribution's packages have installed: a running one first, then the newest.
installed_servers() {
    local major program running=() others=()
    command -v dpkg-query >/dev/null || return 0
    for major in $(dpkg-query -W -f '${db:Status-Status} ${Package}\n' 'postgresql-[0-9]*' 2>/dev/null |
        sed -n 's/^installed postgresql-\([0-9]*\)$/\1/p' | sort -rn); do
        program=$(dpkg-query -L "postgresql-$major" | grep '/bin/postgres$') || continue
        if grep -qszxF "$program" /proc/[0-9]*/cmdline; then
            running+=("${program%postgres}pg_config")
        else
            others+=("${program%postgres}pg_config")
        fi
    done
    printf '%s\n' ${running[@]+"${running[@]}"} ${others[@]+"${others[@]}"}
}

# Sets PG_CONFIG unless it is given: to the PATH's or an installed server's that has everything, or else to one that lacks
# only the headers. Says what is wrong with a PostgreSQL that cannot be used. Fails where there is none.
find_postgres() {
    local config major another="name the pg_config of PostgreSQL $MIN_MAJOR to $MAX_MAJOR"
    if [ -n "${PG_CONFIG:-}" ]; then
        config=$(command -v "$PG_CONFIG") || {
            [ ! -e "$PG_CONFIG" ] || die "PG_CONFIG=$PG_CONFIG is not an executable program: $another"
            die "PG_CONFIG=$PG_CONFIG does not exist: $another"
        }
        major=$(major_of "$config") || true
        [ -n "$major" ] || die "PG_CONFIG=$PG_CONFIG does not print the version of a PostgreSQL: $another"
        is_supported "$major" || die "PG_CONFIG=$PG_CONFIG is of PostgreSQL $major: $another"
        has_server "$config" || die "PG_CONFIG=$PG_CONFIG is of a PostgreSQL without a server and psql in $("$config" --bindir): $another"
        PG_CONFIG=$config
        return
    fi
    local found
    found=$(command -v pg_config; installed_servers)
    for config in $found; do
        ! is_complete "$config" || { PG_CONFIG=$config; return; }
    done
    for config in $found; do
        ! { is_supported "$(major_of "$config")" && has_server "$config"; } || { PG_CONFIG=$config; return; }
    done
    for config in $found; do
        ! has_server "$config" || die "PostgreSQL $(major_of "$config") is installed here: install one of $MIN_MAJOR to $MAX_MAJOR beside it, or set PG_CONFIG to the pg_config of one"
    done
    return 1
}

# Selects one PostgreSQL: sets PG_CONFIG, PGRX_PG_CONFIG_PATH, and its major version in PG_MAJOR. Where it has no headers,
# the copy in the cache that setup has fetched instead is used for building, and INSTALLED_CONFIG names the installed one.
use_postgres() {
    find_postgres || die "no PostgreSQL here: run make setup, or set PG_CONFIG to the pg_config of one"
    # shellcheck disable=SC2034 # used by the scripts that source this
    INSTALLED_CONFIG=$PG_CONFIG
    PG_MAJOR=$(major_of "$PG_CONFIG")
    if ! has_headers "$PG_CONFIG"; then
        [ -f "$SERVERS/$PG_MAJOR/complete" ] || die "$PG_CONFIG is of a PostgreSQL without headers: run make setup"
        PG_CONFIG=$(cat "$SERVERS/$PG_MAJOR/complete")
    fi
    export PG_CONFIG PG_MAJOR PGRX_PG_CONFIG_PATH=$PG_CONFIG
    # shellcheck disable=SC2034 # used by the scripts that source this
    features=(--no-default-features --features "pg$PG_MAJOR${EXTRA_FEATURES:+,$EXTRA_FEATURES}")
}

# Finds where the extension is installed, or would be: sets library_directory and extension_directory. What a package of the
# distribution has put there is that package's.
find_installed() {
    local package
    library_directory=$("$1" --pkglibdir) extension_directory=$("$1" --sharedir)/extension
    package=$(dpkg-query -S "$library_directory/pg_presence.so" 2>/dev/null | cut -d : -f 1) || true
    [ -z "$package" ] || die "the pg_presence of $("$1" --version) is of the package $package: run apt-get remove $package"
}
as_owner() {
    if [ -w "$library_directory" ] && [ -w "$extension_directory" ]; then "$@"; else as_root "$@"; fi
}

# Runs a program of the server, which refuses to run as root.
as_server() {
    if [ "$(id -u)" = 0 ]; then (cd / && runuser -u postgres -- "$@"); else "$@"; fi
}
