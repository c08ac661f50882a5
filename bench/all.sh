#!/usr/bin/env bash
# bench/all.sh OUTDIR [DISKDIR]: every figure of docs/FIGURES.md, measured now; about 25 minutes.
# Leaves one Markdown file for each part in OUTDIR, and figures.md with all of them. The files that
# are measured lie on tmpfs and in DISKDIR (default: OUTDIR), which must be on a disk with 20 GiB free.
# Run it on a quiet machine. BUILD names another build folder than build/.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 1 ] || { sed -n '2,5s/^# //p' "$0"; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd) disk=${2:-$1}
build=(--build "${BUILD:-$here/../build}")
python=/usr/bin/python3

# part NAME TITLE COMMAND...: one part; what it prints becomes OUTDIR/NAME.md.
part() {
  local name=$1 title=$2 start=$SECONDS
  shift 2
  printf '%-12s ' "$name" >&2
  { printf '## %s\n\n' "$title" && "$python" -B "$@" "${build[@]}"; } >"$out/$name.md"
  printf '%4d s\n' $((SECONDS - start)) >&2
}

part tmpfs 'tmpfs, server and client on one CPU' "$here/nbd.py" --tmpfs
part disk 'Disk, server and client on a CPU each' "$here/nbd.py" --disk "$disk"
part free 'Disk, nobody pinned' "$here/nbd.py" --disk "$disk" --free --rounds 3 --pair \
  --no-first-writes
part busy 'Disk, busy CPUs' "$here/nbd.py" --disk "$disk" --busy --rounds 3 --only '4k random' --pair \
  --no-first-writes
part restart 'Restart and memory, 1 TiB in one piece, on a disk' "$here/restart.py" "$disk" --maps thick
part scattered 'Restart and memory, 1 TiB in 262144 pieces, on tmpfs' "$here/restart.py" /dev/shm \
  --maps scattered
part mirrors 'Mirrored writes, tmpfs, server and client on one CPU' "$here/mirrors.py" --part path --tmpfs \
  --rounds 3
part pairs 'Mirrored writes, disk, server and client on a CPU each' "$here/mirrors.py" --part path \
  --disk "$disk" --rounds 3
part first 'First touches of a mirrored volume, tmpfs' "$here/mirrors.py" --part first --tmpfs \
  --rounds 3
part firstdisk 'First touches of a mirrored volume, disk' "$here/mirrors.py" --part first \
  --disk "$disk" --rounds 3
part hold 'Splits of 64 mirrors' "$here/mirrors.py" --part hold --tmpfs
part resync 'Resync, tmpfs' "$here/mirrors.py" --part resync --tmpfs --rounds 2
part resyncdisk 'Resync, disk' "$here/mirrors.py" --part resync --disk "$disk" --rounds 2
part mirrored 'Restart and memory, mirrored' "$here/mirrors.py" --part restart --tmpfs --rounds 2
for name in tmpfs disk free busy restart scattered \
  mirrors pairs first firstdisk hold resync resyncdisk mirrored; do cat "$out/$name.md" && echo; done >"$out/figures.md"
echo "$out/figures.md"
