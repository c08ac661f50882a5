# The array of ./quickstart and its volumes as a host sees them. Sourced by it.
#   $dir/array  all that belongs to the array: state, device, sockets; for its owner only
# shellcheck shell=bash disable=SC2034,SC2154
duplexd=$root/build/bin/duplexd duplex=$root/build/bin/duplex
array_pid='' device=''
declare -A fuse_pid=() loop=() mounted=()

# Starts duplexd and waits for its line "ready". It gets a session of its own: an interrupt at the
# terminal ends this script, whose clean-up then stops the array in the right order.
start_array() {
  local line='' start=${EPOCHREALTIME/[.,]/} end=$((SECONDS + 30))
  [ -p "$dir/array/ready" ] || mkfifo "$dir/array/ready" || return 1
  exec 8<>"$dir/array/ready"
  setsid "$duplexd" --name demo --id 0x400104 --state "$dir/array/state" \
    --nbd "unix:$dir/array/nbd.sock" --api "unix:$dir/array/api.sock" >&8 2>>"$dir/array/log" 8>&- &
  array_pid=$!
  until [ "$line" = ready ]; do
    read -r -t 0.2 -u 8 line
    if gone $array_pid || [ $SECONDS -ge $end ]; then cat "$dir/array/log"; return 1; fi
  done
  exec 8>&-
  measured="ready after $(((${EPOCHREALTIME/[.,]/} - start) / 1000)) ms"
}

stop_array() {
  [ -n "$array_pid" ] || return 0
  end_process "$1" 20 "$array_pid"
  array_pid=''
}

add_device() {
  device=$dir/array/disk
  "$duplex" device add "$device" --size 4G || return 1
  measured="4G file, $("$duplex" --json device list | sed -n 's/.*"engine": "\(.*\)".*/\1/p')"
}

create_volumes() {
  local volume
  for volume in "$@"; do
    "$duplex" volume create "${volume%=*}" --size "${volume#*=}" || return 1
  done
  measured="thin: $(pool_used) used"
}

pool_used() { "$duplex" status | sed -n 's/^pool *\([^ ]*\) used.*/\1/p'; }

# counter VOLUME NAME: one number of what the array counts since its start.
counter() { "$duplex" --json volume show "$1" | sed -n 's/^ *"'"$2"'": \([0-9]*\),*$/\1/p'; }

# Says in $no_mounts why volumes cannot be mounted here; empty when they can. What is asked is the
# machine alone, without the array, so that a fault of the array is never taken for a missing right.
no_mounts=''
probe_mounts() {
  local probe=$dir/probe device=''
  if [ "$(id -u)" -ne 0 ]; then no_mounts='mounting needs root'; return; fi
  mkdir "$probe"
  if ! : 9<>/dev/fuse ||
    ! mount -i -t fuse -o fd=9,rootmode=40000,user_id=0,group_id=0 probe "$probe" 9<>/dev/fuse; then
    no_mounts='FUSE cannot be used here'
  else
    umount "$probe"
    truncate -s 8M "$dir/probe.img" && mkfs.ext4 -q "$dir/probe.img"
    if ! device=$(losetup --find --show "$dir/probe.img"); then
      no_mounts='loop devices cannot be used here'
    elif ! mount "$device" "$probe"; then
      no_mounts='ext4 cannot be mounted here'
    else
      umount "$probe"
    fi
    [ -n "$device" ] && losetup -d "$device"
    rm -f "$dir/probe.img"
  fi
  rmdir "$probe"
} >/dev/null 2>&1

# attach_volume NAME: the export appears as a file (nbdfuse), the file as a block device (loop).
attach_volume() {
  local file=$dir/array/$1.export
  : >"$file"
  setsid nbdfuse "$file" "nbd+unix:///$1?socket=$dir/array/nbd.sock" >"$dir/array/$1.nbdfuse.log" 2>&1 &
  fuse_pid[$1]=$!
  if ! wait_for 10 test -s "$file"; then cat "$dir/array/$1.nbdfuse.log"; return 1; fi
  loop[$1]=$(losetup --find --show --direct-io=on "$file" || losetup --find --show "$file") || return 1
}

mount_volume() {
  mkdir -p "$dir/$1" && mount "${loop[$1]}" "$dir/$1" || return 1
  mounted[$1]=1
}

# unmount_volume NAME: the way back; also when every read and write of the volume fails.
unmount_volume() {
  local name=$1
  if [ -n "${mounted[$name]-}" ]; then
    wait_for 10 umount "$dir/$name" || umount -l "$dir/$name"
    mounted[$name]=''
  fi
  if [ -n "${loop[$name]-}" ]; then losetup -d "${loop[$name]}"; loop[$name]=''; fi
  if [ -n "${fuse_pid[$name]-}" ]; then
    wait_for 5 umount "$dir/array/$name.export" || umount -l "$dir/array/$name.export"
    end_process TERM 5 "${fuse_pid[$name]}"
    fuse_pid[$name]=''
  fi
  return 0
}

format_volumes() {
  local name
  for name in "$@"; do
    attach_volume "$name" && mkfs.ext4 -q "${loop[$name]}" && mount_volume "$name" || return 1
  done
  measured="volume -> nbdfuse -> loop -> ext4, twice"
}

# After the array's death: e2fsck replays each journal, and a second full pass must find nothing.
remount_volumes() {
  local name replayed=0
  for name in "$@"; do
    attach_volume "$name" || return 1
    e2fsck -p "${loop[$name]}" >"$dir/e2fsck.log"
    [ $? -le 1 ] || { cat "$dir/e2fsck.log"; return 1; }
    grep -q 'recovering journal' "$dir/e2fsck.log" && replayed=$((replayed + 1))
    e2fsck -fn "${loop[$name]}" || return 1
    mount_volume "$name" || return 1
  done
  measured="$replayed ext4 journals replayed, e2fsck -f finds nothing"
}
