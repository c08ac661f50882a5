# Mirrors of the array of ./quickstart: copy, one cut, resync, verify. Sourced by it.
#   mirrored   MIRROR=VOLUME..., the mirrors of this run; the copy of volume V is V2, all are in the group "all"
#   load_goes_on  the name of a function that fails when hosts no longer write to the volumes: they do so
#                 from the first step here to the last
# shellcheck shell=bash disable=SC2034,SC2154
writer_pid='' numbered=$root/tests/lib/quickstart_numbered.py
mirrored=() load_goes_on='' asked_us=0 success_us=0

# field KEY: the value of a key in the JSON on stdin, the first one.
field() { sed -n 's/^ *"'"$1"'": "\{0,1\}\([^",]*\)"\{0,1\},*$/\1/p' | head -n 1; }

# mib BYTES: in MiB, rounded up.
mib() { echo $((($1 + 1048575) >> 20)); }

# changed source|target: MiB that were written on that side of the mirrors since their cut.
changed() {
  local bytes sum=0
  for bytes in $("$duplex" --json mirror list | sed -n 's/^ *"changed_bytes_'"$1"'": \([0-9]*\),*$/\1/p'); do
    sum=$((sum + bytes))
  done
  mib $sum
}

# Sums over the mirrors, in MiB: what their last jobs have moved, what hosts have written to the
# volumes since the array's start, what is allocated for the volumes.
moved() { sum_of moved_by; }
written() { sum_of written_to; }
allocated() { sum_of allocated_for; }
moved_by() { "$duplex" --json job show "${1%=*}" | field bytes_moved; }
written_to() { counter "${1#*=}" written_bytes; }
allocated_for() { "$duplex" --json volume show "${1#*=}" | field allocated; }
sum_of() {
  local pair sum=0
  for pair in "${mirrored[@]}"; do sum=$((sum + $("$1" "$pair"))); done
  mib $sum
}

stop_writer() {
  [ -n "$writer_pid" ] || return 0
  end_process TERM 5 "$writer_pid"
  writer_pid=''
}

in_sync() {
  local pair
  for pair in "${mirrored[@]}"; do
    [ "$("$duplex" --json mirror show "${pair%=*}" | field state)" = SYNC ] || { "$duplex" mirror list; return 1; }
  done
}

mirror_volumes() {
  local pair
  for pair in "${mirrored[@]}"; do
    "$duplex" mirror create "${pair%=*}" "${pair#*=}" "${pair#*=}2" || return 1
  done
  for pair in "${mirrored[@]}"; do "$duplex" job wait "${pair%=*}" || return 1; done
  in_sync && "$duplex" group create all "${mirrored[@]%=*}" && "$load_goes_on" || return 1
  measured="SYNC; $(moved) MiB copied of $(allocated) MiB allocated, while they were written"
}

# What was acknowledged before asked_us must be in the cut, what began after success_us must not.
split_at_cut() {
  local hold
  asked_us=${EPOCHREALTIME/[.,]/}
  "$duplex" --json split all >"$dir/cut" || return 1
  success_us=${EPOCHREALTIME/[.,]/}
  cat "$dir/cut"
  [ "$(field certified <"$dir/cut")" = true ] || return 1
  [ "$(grep -c '"state": "SPLIT"' "$dir/cut")" -eq ${#mirrored[@]} ] || return 1
  hold=$(field hold_us <"$dir/cut")
  measured="cut $(field cut <"$dir/cut") of ${#mirrored[@]} mirrors; writes held up for"
  measured+=" $((hold / 1000)).$(printf %03d $((hold % 1000))) ms, answered after $(((success_us - asked_us) / 1000)) ms"
}

# What is copied is what either side has changed since the cut, not the volumes.
resync_mirrors() {
  local source target wrote copied
  source=$(changed source) target=$(changed target) wrote=$(written)
  "$duplex" mirror resync all --wait && in_sync && "$load_goes_on" || return 1
  copied=$(moved) wrote=$(($(written) - wrote))
  measured="$copied MiB copied; $source changed in production, $target in the copy"
  # Writes that arrive before the copy begins are copied as well: whole regions, so some times their bytes.
  [ "$copied" -gt 0 ] && [ "$copied" -le $((source + target + 4 * wrote + 64)) ] ||
    { echo "$measured; $wrote MiB written meanwhile"; return 1; }
}

# A difference would suspend its mirror.
verify_mirrors() {
  "$duplex" mirror verify all --wait && in_sync && "$load_goes_on" || return 1
  measured="$(moved) MiB compared while they were written, no difference"
}

remove_mirrors() {
  local pair
  "$duplex" group delete all || return 1
  for pair in "${mirrored[@]}"; do
    "$duplex" mirror delete "${pair%=*}" --yes && "$duplex" volume delete "${pair#*=}2" --yes || return 1
  done
  "$load_goes_on" || return 1
  measured="the mirrors, the group, the S-VOLs; $(pool_used) of the pool used"
}
