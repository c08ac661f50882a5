# What ./quickstart does where file systems cannot be mounted: everything straight on the exports.
# A file system image goes in with nbdcopy, numbered writes run until the array is killed. Sourced by it.
# shellcheck shell=bash disable=SC2034,SC2154
writer_pid='' numbered=$root/tests/lib/quickstart_numbered.py

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

stop_writer() {
  [ -n "$writer_pid" ] || return 0
  end_process TERM 5 "$writer_pid"
  writer_pid=''
}

check_numbers() {
  /usr/bin/python3 "$numbered" check "$(export_uri numbers)" "$dir/acknowledged" >"$dir/checked" ||
    { cat "$dir/checked"; return 1; }
  measured=$(<"$dir/checked")
}

check_image() {
  truncate -s 0 "$dir/image.back"
  nbdcopy "$(export_uri files)" "$dir/image.back" || return 1
  cmp "$dir/image" "$dir/image.back" || return 1
  e2fsck -fn "$dir/image.back" || return 1
  measured='every byte as it was copied, e2fsck finds nothing'
}
