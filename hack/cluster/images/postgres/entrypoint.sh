#!/bin/sh
# Makes the databases when there are none yet, then becomes the server. Understands, as the official image does:
#   POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE   the superuser's password (required)
#   POSTGRES_USER                                 the superuser's name (postgres)
#   POSTGRES_DB                                   a database to make (the superuser's name)
#   PGDATA                                        where the databases are
set -eu

case "${1:-postgres}" in
    postgres) shift "$(($# > 0))" ;;
    -*) ;; # options for the server
    *) exec "$@" ;;
esac

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    user="${POSTGRES_USER:-postgres}"
    database="${POSTGRES_DB:-$user}"
    if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then
        POSTGRES_PASSWORD="$(cat "$POSTGRES_PASSWORD_FILE")"
    fi
    if [ -z "${POSTGRES_PASSWORD:-}" ]; then
        echo "error: set POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE: there are no databases in $PGDATA yet" >&2
        exit 1
    fi
    # From standard input: never on a command line, nor in a file.
    printf '%s\n' "$POSTGRES_PASSWORD" |
        initdb --pgdata="$PGDATA" --username="$user" --pwfile=/dev/stdin --encoding=UTF8 \
            --auth-local=trust --auth-host=scram-sha-256
    echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
    if [ "$database" != postgres ]; then
        # A server for one session, without a socket: an identifier's own quotes are doubled.
        quoted="$(printf '%s' "$database" | sed 's/"/""/g')"
        printf 'CREATE DATABASE "%s";\n' "$quoted" | postgres --single -j -D "$PGDATA" postgres > /dev/null
    fi
fi
unset POSTGRES_PASSWORD
exec postgres -c listen_addresses='*' "$@"
