# What a bare Debian 12 needs. Sourced by ./test and ./quickstart.
#   build_packages, test_packages: lists; need_packages LIST...: installs what is missing.
# shellcheck shell=bash disable=SC2034
build_packages=(clang-19 lld-19 cmake ninja-build ccache pkg-config git ca-certificates
  liburing-dev libsqlite3-dev libfmt-dev libspdlog-dev nlohmann-json3-dev libcli11-dev
  libtomlplusplus-dev libcpp-httplib-dev libisal-dev libxxhash-dev libgtest-dev)
test_packages=(llvm-19 libclang-rt-19-dev clang-tidy-19 python3 python3-libnbd libnbd-bin nbdkit qemu-utils
  qemu-system-common fio e2fsprogs xfsprogs file fuse3 curl util-linux procps)
quickstart_packages=(postgresql libnbd-bin python3-libnbd e2fsprogs fuse3 mount util-linux procps)

# Installs the packages that are missing. As a user without root: says what to run and ends.
need_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  if [ "$(id -u)" -ne 0 ]; then
    echo "These packages are missing. Run this as root, then try again:"
    echo "  apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
    exit 1
  fi
  echo "installing: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# Configures and builds one preset; quiet unless it fails.
build_preset() {
  local preset=$1 dir=$2
  shift 2
  cmake --preset "$preset" -B "$dir" >"$dir.configure.log" 2>&1 || { cat "$dir.configure.log"; return 1; }
  rm -f "$dir.configure.log"
  ninja -C "$dir" "$@" >"$dir.build.log" 2>&1 || { grep -E 'error|FAILED' "$dir.build.log" | head -40; return 1; }
  rm -f "$dir.build.log"
}
