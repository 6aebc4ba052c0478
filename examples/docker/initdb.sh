#!/bin/bash
# Run by the image's entrypoint at the first start, on a temporary server: the roles, the extension, and the page's tables.
set -euo pipefail

run() { psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" "$@"; }

# Before CREATE EXTENSION, which grants to it by name.
run <<'SQL'
CREATE ROLE service_role NOLOGIN BYPASSRLS;
SQL

# Creates anon and authenticated, the extension in the schema presence, and what the page needs.
run --set=password="$PAGE_PASSWORD" --file="$DASHBOARD_SCHEMA"

run --set=password="$AUTHENTICATOR_PASSWORD" <<'SQL'
CREATE ROLE authenticator LOGIN NOINHERIT PASSWORD :'password';
GRANT anon, authenticated, service_role TO authenticator;
SQL
