#!/bin/sh
# Makes the database on the first start, then becomes the server. Variables are those of the official image.
#   POSTGRES_USER (postgres)  POSTGRES_DB (the user's name)  POSTGRES_PASSWORD_FILE or POSTGRES_PASSWORD  PGDATA
# A password that changes in the file is set at the next start, so a rotated Secret needs a restart and nothing else.
set -eu

die() { echo "postgres: $1" >&2; exit 2; }
[ "${1:-postgres}" = postgres ] || exec "$@"
shift || true

user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}
: "${PGDATA:=/var/lib/postgresql/data/pgdata}"
export PGDATA
if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then
  [ -r "$POSTGRES_PASSWORD_FILE" ] || die "POSTGRES_PASSWORD_FILE=$POSTGRES_PASSWORD_FILE cannot be read: mount the Secret there, readable for group $(id -g)"
  password=$(cat "$POSTGRES_PASSWORD_FILE")
else
  password=${POSTGRES_PASSWORD:-}
fi
[ -n "$password" ] || die "no password: set POSTGRES_PASSWORD_FILE to a file with the password of user $user"
unset POSTGRES_PASSWORD

umask 077
mkdir -p "$PGDATA" || die "PGDATA=$PGDATA cannot be written: mount a volume there, with fsGroup $(id -g)"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  # An interrupted initdb leaves a part; only a directory without a version is ever emptied, and it holds no database.
  find "$PGDATA" -mindepth 1 -delete
  printf '%s\n' "$password" > /tmp/password
  initdb --username="$user" --pwfile=/tmp/password --auth-host=scram-sha-256 --auth-local=trust --encoding=UTF8 --locale=C.UTF-8
  rm /tmp/password
  echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
fi
[ "$(cat "$PGDATA/PG_VERSION")" = "$(postgres -V | sed 's/[^0-9]*\([0-9]*\).*/\1/')" ] ||
  die "the volume holds a database of PostgreSQL $(cat "$PGDATA/PG_VERSION"), this is $(postgres -V): dump it there and restore it here"

# Without a network: nobody is served before user, password and database are as told.
pg_ctl --silent --wait -D "$PGDATA" -o "-c listen_addresses='' -c unix_socket_directories=/tmp" start
psql -X -q -h /tmp -U "$user" -d postgres -v ON_ERROR_STOP=1 -v name="$user" -v password="$password" -v database="$database" <<'SQL'
ALTER USER :"name" PASSWORD :'password';
SELECT format('CREATE DATABASE %I OWNER %I', :'database', :'name') WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \gexec
SQL
pg_ctl --silent --wait -D "$PGDATA" --mode=fast stop
unset password

exec postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/tmp "$@"
