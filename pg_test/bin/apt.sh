# shellcheck shell=bash
# Sourced by the scripts that fetch packages for the project's cache, after env.sh: lists of packages of their own, in
# $apt_root, which the system's do not notice.

private_apt() { APT_CONFIG=${apt_root:?}/apt.conf "$@"; }

# fetch_lists deb|deb-src MAJOR: the lists of the system's sources if one has this version of PostgreSQL, else of Debian's
# newer releases.
fetch_lists() {
    local type=$1 major=$2 keyring=/usr/share/keyrings/debian-archive-keyring.gpg suite
    rm -rf "$apt_root"
    mkdir -p "$apt_root"/{lists/partial,cache/archives/partial,sources}
    # The proxies and certificates are the system's.
    cat >"$apt_root/apt.conf" <<END
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$apt_root/sources";
Dir::State::lists "$apt_root/lists";
Dir::Cache "$apt_root/cache";
Dir::State::status "/dev/null";
APT::Sandbox::User "root";
END
    if apt-cache show "postgresql-server-dev-$major" >/dev/null 2>&1; then
        cp /etc/apt/sources.list "$apt_root/sources/system.list" 2>/dev/null || true
        cp /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources "$apt_root/sources" 2>/dev/null || true
        sed -i "s/^deb /$type /; s/^Types:.*/Types: $type/" "$apt_root/sources"/*
    else
        if [ ! -f "$keyring" ]; then
            (cd "$apt_root" && apt-get -q download debian-archive-keyring && dpkg -x debian-archive-keyring_*.deb keyring) >&2
            keyring=$apt_root/keyring$keyring
        fi
        for suite in "debian trixie" "debian-security trixie-security" "debian sid"; do
            echo "$type [signed-by=$keyring] http://deb.debian.org/$suite main"
        done >"$apt_root/sources/newer.list"
    fi
    say "Fetching the package lists for PostgreSQL $major"
    private_apt apt-get -q -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false update >&2
}
