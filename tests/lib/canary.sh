#!/usr/bin/env bash
# Is the simulator good for something? Runs every canary of a build, an array with one planted bug
# (src/base/planted_bug.h), which must be found; and sees that no source of the array is missing
# from the simulator. Last line: counts PASSED FAILED 0.
#   tests/lib/canary.sh build [canary_mirror_cut_not_drained ...]
# Seeds begin at 100, which is one of those that are run twice (a run that cannot be repeated).
# Canaries of mirrors play seeds with mirrors. A seed at which the sound array fails as well shows
# nothing of the canary, nor does one that comes late: the next ones, or none, have to.
set -uo pipefail
build=$(realpath "${1:?usage: tests/lib/canary.sh BUILD [CANARY...]}")
shift
cd "$(dirname "$0")/../.." || exit 1
most=60        # seconds for each
most_seeds=200  # of mirrors

# Prints what found it. Ends with the status of the last run when nothing did.
find_bug() {
  local canary=$1 mirrors=0 first=100 end=$((SECONDS + most)) out status=0 finding seed
  [[ $canary == */canary_mirror_* ]] && mirrors=100
  while [ $SECONDS -lt $end ]; do
    out=$(timeout 150 "$canary" --seconds $((end - SECONDS)) --processes 2 --violations 1 \
      --first $first --mirrors $mirrors 2>&1)
    status=$?
    # Exit status 1 with a violation or a failed scenario named: it was found. Anything else is no
    # finding.
    finding=$(grep -m1 -E '^VIOLATION|^\[  FAILED  \]' <<<"$out")
    if [ $status -ne 1 ] || [ -z "$finding" ]; then break; fi
    seed=$(sed -n 's/^VIOLATION seed \([0-9]*\):.*/\1/p' <<<"$finding")
    if [ $mirrors -eq 100 ] && [ "${seed:-0}" -ge $((100 + most_seeds)) ]; then break; fi
    if [ -z "$seed" ] ||
      timeout 150 "$build/bin/sim_run" --seed "$seed" --mirrors $mirrors >/dev/null 2>&1; then
      echo "$finding"
      return 0
    fi
    first=$((seed + 1))
  done
  printf 'exit status %d\n%s\n' $status "$out"
  return 1
}

canaries=("$build"/bin/canary_*)
[ $# -eq 0 ] || canaries=("${@/#/$build/bin/}")
passed=0 failed=0
for canary in "${canaries[@]}"; do
  if [ ! -x "$canary" ]; then
    [ $# -eq 0 ] && continue
    echo "$(basename "$canary") is not in $build/bin"
    failed=$((failed + 1))
    continue
  fi
  start=$SECONDS
  if finding=$(find_bug "$canary"); then
    passed=$((passed + 1))
    verdict=found
  else
    failed=$((failed + 1))
    verdict='NOT FOUND'
  fi
  printf '%-38s %s after %2d s: %s\n' "$(basename "$canary")" "$verdict" $((SECONDS - start)) \
    "$finding"
done
[ $((passed + failed)) -gt 0 ] || { echo "no canary in $build/bin"; exit 1; }
if /usr/bin/python3 tests/lib/sim_sources.py "$build"; then
  passed=$((passed + 1))
else
  failed=$((failed + 1))
fi
echo "counts $passed $failed 0"
[ $failed -eq 0 ]
