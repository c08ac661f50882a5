# PostgreSQL on two volumes of the array, for ./quickstart. Sourced by it.
#   $dir/pgdata, $dir/pgwal  the mounted volumes: data and write-ahead log
#   $dir/pg                  PostgreSQL's socket and messages and pgbench's log: not on the array
# A server is named by its directory: pg is production, pg2 the one on the copies of its volumes,
# pgdata2 and pgwal2 (quickstart_clone.sh).
# shellcheck shell=bash disable=SC2034,SC2154
bench_pid='' pg_bin='' bench_clients=4 acked=0
declare -A pg_pid=() pg_port=([pg]=5432 [pg2]=5433)
as_postgres=(setpriv --reuid=postgres --regid=postgres --init-groups env "HOME=$dir/pg")

# sql_session SERVER [OPTION...], sql SERVER STATEMENTS, pgbench SERVER OPTION...
sql_session() {
  "${as_postgres[@]}" "$pg_bin/psql" -XAtq -v ON_ERROR_STOP=1 -h "$dir/$1" -p "${pg_port[$1]}" -d postgres "${@:2}"
}
sql() { sql_session "$1" -c "$2"; }
pgbench() { "${as_postgres[@]}" "$pg_bin/pgbench" -h "$dir/$1" -p "${pg_port[$1]}" "${@:2}" postgres; }

make_cluster() {
  pg_bin=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
  install -d -o postgres -g postgres -m 700 "$dir/pg" "$dir/pgdata/data" "$dir/pgwal/wal" || return 1
  if ! "${as_postgres[@]}" test -x "$dir"; then
    echo "The user postgres cannot reach $dir. Set TMPDIR to a directory that all users may enter."
    return 1
  fi
  "${as_postgres[@]}" "$pg_bin/initdb" --data-checksums --auth=trust --locale=C.UTF-8 \
    -D "$dir/pgdata/data" --waldir="$dir/pgwal/wal" || return 1
  cat >>"$dir/pgdata/data/postgresql.conf" <<CONF
listen_addresses = ''
shared_buffers = 64MB
max_wal_size = 512MB    # the write-ahead log's volume has 1 GiB
CONF
  sync "$dir/pgdata/data/postgresql.conf" || return 1  # what nobody flushes may be lost with the array
  start_postgres pg || return 1
  measured="PostgreSQL $("$pg_bin/postgres" --version | sed 's/^[^0-9]*\([^ ]*\).*/\1/'): data on pgdata, WAL on pgwal, with checksums"
}

start_postgres() {
  : >"$dir/$1/messages"
  setsid "${as_postgres[@]}" "$pg_bin/postgres" -D "$dir/${1/pg/pgdata}/data" -k "$dir/$1" -p "${pg_port[$1]}" \
    >>"$dir/$1/messages" 2>&1 &
  pg_pid[$1]=$!
  if ! wait_for 60 answers_or_gone "$1" || gone "${pg_pid[$1]}"; then cat "$dir/$1/messages"; return 1; fi
}
answers_or_gone() { "$pg_bin/pg_isready" -q -h "$dir/$1" -p "${pg_port[$1]}" || gone "${pg_pid[$1]}"; }

# stop_postgres SERVER INT|QUIT: INT ends it cleanly, QUIT at once.
stop_postgres() {
  [ -n "${pg_pid[$1]-}" ] || return 0
  end_process "$2" 30 "${pg_pid[$1]}"
  pg_pid[$1]=''
}

fill_tables() {
  pgbench pg -i -s 5 -q || return 1
  measured="$(sql pg 'select count(*) from pgbench_accounts') accounts; $(pool_used) of the pool used"
}

# pgbench writes one line per transaction once PostgreSQL has acknowledged its commit.
# -n: without it pgbench empties the history table that is compared later.
bench_until_kill() {
  local log written flushes
  setsid "${as_postgres[@]}" "$pg_bin/pgbench" -h "$dir/pg" -n -c $bench_clients -T 120 \
    --log --log-prefix="$dir/pg/acknowledged" postgres >"$dir/pg/bench" 2>&1 &
  bench_pid=$!
  sleep 3
  written=$(($(counter pgdata written_bytes) + $(counter pgwal written_bytes)))
  flushes=$(($(counter pgdata flushes) + $(counter pgwal flushes)))
  if gone "$bench_pid"; then cat "$dir/pg/bench"; return 1; fi
  stop_array KILL
  measured="array killed in the middle, after $((written >> 20)) MiB and $flushes flushes"
}

stop_bench() {
  [ -n "$bench_pid" ] || return 0
  end_process TERM 5 "$bench_pid"
  bench_pid=''
}

# The host's side of the array's death: pgbench loses its connections, PostgreSQL its disks.
see_the_failure() {
  local message
  wait_for 20 gone "$bench_pid"
  stop_bench
  stop_postgres pg QUIT
  message=$(grep -oE 'PANIC: .*' "$dir/pg/messages" | head -n 1)
  unmount_volume pgwal
  unmount_volume pgdata
  acked=$(cat "$dir"/pg/acknowledged.* | awk '$3 != "failed"' | wc -l)
  [ "$acked" -gt 0 ] || { echo 'no transaction was acknowledged before the kill'; return 1; }
  measured="$acked transactions acknowledged; then ${message:-the file systems failed}"
}

recover() {
  local redo
  start_postgres pg || return 1
  redo=$(grep -oE 'redo done at [^ ]*' "$dir/pg/messages" | head -n 1)
  [ -n "$redo" ] || { echo 'PostgreSQL found nothing to recover'; cat "$dir/pg/messages"; return 1; }
  measured="its log replayed, $redo"
}

# Each client may have had one commit on its way when the array died: there or not, both are right.
check_acknowledged() {
  local rows
  rows=$(sql pg 'select count(*) from pgbench_history') || return 1
  measured="$acked acknowledged, $rows there"
  if [ "$rows" -lt "$acked" ] || [ "$rows" -gt $((acked + bench_clients)) ]; then
    echo "$measured; expected $acked to $((acked + bench_clients))"
    return 1
  fi
}

# check_invariant SERVER: every transaction of pgbench adds the same amount to four tables.
check_invariant() {
  local sums
  sums=$(sql "$1" 'select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers),
    (select sum(bbalance) from pgbench_branches), (select sum(delta) from pgbench_history)') || return 1
  [ "$(tr '|' '\n' <<<"$sums" | sort -u | wc -l)" -eq 1 ] || { echo "the sums differ: $sums"; return 1; }
  measured="accounts = tellers = branches = history = ${sums%%|*}"
}

bench_again() {
  local tps
  tps=$(pgbench pg -n -c $bench_clients -T 1 | sed -n 's/^tps = \([0-9]*\).*/\1/p') || return 1
  check_invariant pg || return 1
  measured="$tps transactions per second; the sums still agree"
}

# check_checksums SERVER: ends it cleanly; then every page of its files is read.
check_checksums() {
  stop_postgres "$1" INT
  "${as_postgres[@]}" "$pg_bin/pg_checksums" --check -D "$dir/${1/pg/pgdata}/data" >"$dir/checksums" 2>&1 ||
    { cat "$dir/checksums"; return 1; }
  measured="$(sed -n 's/^Blocks scanned: *//p' "$dir/checksums") blocks, $(sed -n 's/^Bad checksums: *//p' "$dir/checksums") bad"
}
