# A second PostgreSQL on the S-VOLs of the first one's volumes, for ./quickstart. Sourced by it.
#   pgdata -> pgdata2, pgwal -> pgwal2   the mirrors "data" and "wal"
#   $dir/pg2       socket and messages of the second PostgreSQL
#   $dir/numbers   a line for each number that was committed: number, begun, acknowledged (microseconds)
#   $dir/turns     the same for numbers in two files, one on each volume, written in turn
# Production is written to by pgbench and by both writers of numbers from the first step to the last.
# PostgreSQL alone would not notice copies of two points in time: its log may well be later than its
# data. The two files do: their numbers are neighbours, whenever both volumes are seen at once.
# shellcheck shell=bash disable=SC2034,SC2154
number_writer_pid='' rows_before=0 rows_after=0

# Each number is inserted after the commit of the one before was acknowledged.
write_numbers() {
  local number=1 begun there
  coproc sql_session pg
  while begun=${EPOCHREALTIME/[.,]/}
    echo "insert into numbered values ($number) returning n;" >&"${COPROC[1]}" &&
      read -r there <&"${COPROC[0]}" && [ "$there" = $number ]; do
    echo "$number $begun ${EPOCHREALTIME/[.,]/}"
    number=$((number + 1))
  done >"$dir/numbers"
}

stop_numbers() {
  [ -n "$number_writer_pid" ] || return 0
  end_process TERM 5 "$number_writer_pid"
  number_writer_pid=''
}

# Both go on until the clone is gone.
load_production() {
  start_postgres pg && sql pg 'create table numbered (n int primary key)' || return 1
  setsid "${as_postgres[@]}" "$pg_bin/pgbench" -h "$dir/pg" -n -c "$bench_clients" -T 3600 postgres >"$dir/pg/bench" 2>&1 &
  bench_pid=$!
  write_numbers &
  number_writer_pid=$!
  /usr/bin/python3 "$numbered" turn "$dir/pgdata" "$dir/pgwal" "$dir/turns" >"$dir/writer.log" 2>&1 &
  writer_pid=$!
  wait_for 10 test -s "$dir/numbers" && wait_for 10 test -s "$dir/turns" || { cat "$dir/pg/bench" "$dir/writer.log"; return 1; }
  measured="pgbench with $bench_clients clients; numbers, a commit each; numbers in files, on both volumes in turn"
}

database_is_loaded() {
  gone "$bench_pid" && { echo 'pgbench has ended'; cat "$dir/pg/bench"; return 1; }
  gone "$number_writer_pid" && { echo 'the writer of numbers has ended'; tail "$dir/pg/messages"; return 1; }
  gone "$writer_pid" && { cat "$dir/writer.log"; return 1; }
  return 0
}

# Rows of production before and after bound what the clone may have.
split_database() {
  rows_before=$(sql pg 'select count(*) from pgbench_history') || return 1
  split_at_cut || return 1
  rows_after=$(sql pg 'select count(*) from pgbench_history')
}

mount_clone() {
  remount_volumes pgdata2 pgwal2
}

# As of one point in time, and between the moments before and after the split.
check_turns() {
  /usr/bin/python3 "$numbered" turned "$dir/pgdata2" "$dir/pgwal2" "$dir/turns" "$asked_us" "$success_us" >"$dir/checked" ||
    { cat "$dir/checked"; return 1; }
  measured="files: $(<"$dir/checked")"
}

# The copy still says where production has its log, and that it runs.
start_clone() {
  local redo
  install -d -o postgres -g postgres -m 700 "$dir/pg2" &&
    ln -sfn "$dir/pgwal2/wal" "$dir/pgdata2/data/pg_wal" && rm "$dir/pgdata2/data/postmaster.pid" || return 1
  start_postgres pg2 || return 1
  redo=$(grep -oE 'redo done at [^ ]*' "$dir/pg2/messages" | head -n 1)
  [ -n "$redo" ] || { echo 'the clone found nothing to recover'; cat "$dir/pg2/messages"; return 1; }
  measured="port 5433, its log replayed, $redo"
}

check_cut() {
  local there last acknowledged later rows late
  there=$(sql pg2 'select count(*), coalesce(max(n), 0) from numbered') || return 1
  last=${there#*|}
  read -r acknowledged later < <(awk -v asked="$asked_us" -v success="$success_us" '
    $3 < asked { before = $1 } $2 > success && !after { after = $1 } END { print before + 0, after + 0 }' "$dir/numbers")
  rows=$(sql pg2 'select count(*) from pgbench_history') || return 1
  late=$(sql pg2 "select count(*) from pgbench_history where mtime > to_timestamp($success_us / 1e6)") || return 1
  echo "numbers: $there there; $acknowledged acknowledged before, $later the first begun after"
  echo "history: $rows there, $rows_before before, $rows_after after; $late begun after"
  [ "${there%|*}" -eq "$last" ] && [ "$acknowledged" -gt 0 ] && [ "$last" -ge "$acknowledged" ] &&
    [ "$later" -gt 0 ] && [ "$last" -lt "$later" ] || return 1
  [ "$rows" -ge "$rows_before" ] && [ "$rows" -le $((rows_after + bench_clients)) ] && [ "$late" -eq 0 ] || return 1
  measured="commits: 1 to $last there, 1 to $acknowledged acknowledged before, $later the first begun after"
}

# Production must have none of it, and its own numbers without a gap.
write_clone() {
  local mine there
  sql pg2 'create table mine as select n from numbered; delete from numbered' &&
    pgbench pg2 -n -c "$bench_clients" -T 1 && check_invariant pg2 || return 1
  mine=$(sql pg2 'select count(*) from mine') || return 1
  there=$(sql pg "select to_regclass('mine') is null, count(*) = max(n), count(*) > $mine from numbered") || return 1
  [ "$there" = 't|t|t' ] || { echo "in production: $there"; return 1; }
  database_is_loaded || return 1
  measured="$(changed target) MiB changed by it; production has no such table and all its numbers"
}

stop_clone() {
  local name
  check_checksums pg2 || return 1
  for name in pgwal2 pgdata2; do unmount_volume $name; done
}

# The load ends; the last word is production's.
check_production() {
  local there
  stop_writer
  stop_numbers
  stop_bench
  rm -f "$dir/pgdata/last-number" "$dir/pgwal/last-number"
  there=$(sql pg 'select count(*) = max(n), max(n) from numbered') || return 1
  [ "${there%|*}" = t ] && [ "${there#*|}" -ge "$(tail -n 1 "$dir/numbers" | cut -d ' ' -f 1)" ] || { echo "$there"; return 1; }
  check_invariant pg && check_checksums pg || return 1
  measured="${there#*|} numbers, the sums agree; $measured"
}
