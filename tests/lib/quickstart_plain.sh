# What ./quickstart does where file systems cannot be mounted: everything straight on the exports.
# A file system image goes in with nbdcopy, numbered writes run until the array is killed. Then both
# volumes are mirrored and split at one cut while numbered writes go to them in turn. Sourced by it.
#   $dir/turns  a line for each number that was acknowledged: number, begun, acknowledged (microseconds)
# shellcheck shell=bash disable=SC2034,SC2154
export_uri() { echo "nbd+unix:///$1?socket=$dir/array/nbd.sock"; }

# The array's own sources and documents as an ext4 image, made without mounting it.
copy_image() {
  truncate -s 256M "$dir/image" && mkfs.ext4 -q -d "$root/src" "$dir/image" || return 1
  nbdcopy --flush "$dir/image" "$(export_uri files)" || return 1
  measured="ext4 image with $(find "$root/src" -type f | wc -l) files, copied and flushed"
}

write_until_kill() {
  /usr/bin/python3 "$numbered" write "$(export_uri numbers)" "$dir/acknowledged" >"$dir/writer.log" 2>&1 &
  writer_pid=$!
  sleep 3
  if gone "$writer_pid"; then cat "$dir/writer.log"; return 1; fi
  stop_array KILL
  wait_for 20 gone "$writer_pid"
  wait "$writer_pid" || { cat "$dir/writer.log"; return 1; }
  writer_pid=''
  measured="array killed in the middle; $(cat "$dir/writer.log")"
}

check_numbers() {
  /usr/bin/python3 "$numbered" check "$(export_uri numbers)" "$dir/acknowledged" >"$dir/checked" ||
    { cat "$dir/checked"; return 1; }
  measured=$(<"$dir/checked")
}

# check_image EXPORT: the first half of it; the other half belongs to the numbers.
check_image() {
  truncate -s 0 "$dir/image.back"
  nbdcopy "$(export_uri "$1")" "$dir/image.back" || return 1
  cmp -n "$(stat -c %s "$dir/image")" "$dir/image" "$dir/image.back" || return 1
  e2fsck -fn "$dir/image.back" || return 1
  measured='every byte as it was copied, e2fsck finds nothing'
}

load_exports() {
  /usr/bin/python3 "$numbered" pair "$(export_uri files)" "$(export_uri numbers)" "$dir/turns" >"$dir/writer.log" 2>&1 &
  writer_pid=$!
  wait_for 10 test -s "$dir/turns" || { cat "$dir/writer.log"; return 1; }
  measured='each write begins when the one before is acknowledged'
}

exports_are_loaded() {
  gone "$writer_pid" || return 0
  cat "$dir/writer.log"
  return 1
}

# compare_numbers EXPORT EXPORT ASKED SUCCESS
compare_numbers() {
  /usr/bin/python3 "$numbered" cut "$(export_uri "$1")" "$(export_uri "$2")" "$dir/turns" "$3" "$4" >"$dir/checked" 2>&1 ||
    { cat "$dir/checked"; return 1; }
  measured=$(<"$dir/checked")
}

check_copied_numbers() { compare_numbers files2 numbers2 "$asked_us" "$success_us"; }

# Over the image and the numbers of the copy.
write_copy() {
  local volume
  for volume in files2 numbers2; do
    /usr/bin/python3 "$numbered" spoil "$(export_uri $volume)" || return 1
  done
  check_image files && exports_are_loaded || return 1
  measured="$(changed target) MiB changed by it; production has its image, byte for byte"
}

# The writer ends; all it was told is there.
check_exports() {
  local now
  stop_writer
  now=${EPOCHREALTIME/[.,]/}
  compare_numbers files numbers "$now" "$now" && check_image files || return 1
  measured="$(<"$dir/checked"); the image as it was copied"
}
