#!/usr/bin/env bash
# Is the simulator good for something? Runs every canary of a build, an array with one planted bug
# (src/base/planted_bug.h), which must be found; and sees that no source of the array is missing
# from the simulator. Last line: counts PASSED FAILED 0.
#   tests/lib/canary.sh build
# Seeds begin at 100, which is one of those that are run twice (a run that cannot be repeated).
set -uo pipefail
build=$(realpath "${1:?usage: tests/lib/canary.sh BUILD}")
cd "$(dirname "$0")/../.." || exit 1

passed=0 failed=0
for canary in "$build"/bin/canary_*; do
  [ -x "$canary" ] || continue
  start=$SECONDS
  out=$(timeout 150 "$canary" --seconds 60 --processes 2 --violations 1 --first 100 2>&1)
  status=$?
  # Exit status 1 with a violation or a failed scenario named: it was found. Anything else is no
  # finding.
  finding=$(grep -m1 -E '^VIOLATION|^\[  FAILED  \]' <<<"$out")
  if [ $status -eq 1 ] && [ -n "$finding" ]; then
    passed=$((passed + 1))
    printf '%-34s found after %2d s: %s\n' "$(basename "$canary")" $((SECONDS - start)) \
      "$finding"
  else
    failed=$((failed + 1))
    printf '%-34s NOT FOUND, exit status %d\n%s\n' "$(basename "$canary")" $status "$out"
  fi
done
[ $((passed + failed)) -gt 0 ] || { echo "no canary in $build/bin"; exit 1; }
if /usr/bin/python3 tests/lib/sim_sources.py "$build"; then
  passed=$((passed + 1))
else
  failed=$((failed + 1))
fi
echo "counts $passed $failed 0"
[ $failed -eq 0 ]
