# shellcheck shell=bash
# What every script shares: where things are, and how it speaks to whoever runs it.
# Sourced after `set -euo pipefail`.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# Cargo's name for this machine; in place of the one in .cargo/config.toml, so that its flags hold on arm64 too.
# shellcheck disable=SC2034 # for those who source this
TRIPLE="$(uname -m)-unknown-linux-gnu"
export CARGO_BUILD_TARGET=$TRIPLE
# shellcheck disable=SC2034
TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}

step() {
  printf '==> %s\n' "$*" >&2
}

fail() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# The comment at the head of the script, which is its help.
usage() {
  sed -n '2,/^[^#]/ { s/^# \{0,1\}//p; }' "$0"
}

is_root() {
  [ "$(id -u)" -eq 0 ]
}

# Makes sure that a command is there: `need_command COMMAND WHY PACKAGE...`. The first of the packages that apt knows
# is installed, if we are root; otherwise the message says what to run.
need_command() {
  local command=$1 why=$2
  shift 2
  command -v "$command" >/dev/null 2>&1 && return
  is_root || fail "$command not found; it is needed $why. Run: sudo apt-get install -y $1"
  need_package "$why" "$@"
  hash -r
  command -v "$command" >/dev/null 2>&1 || fail "$command not found, also after apt-get install of $*"
}

need_package() {
  local why=$1 package
  shift
  command -v apt-get >/dev/null 2>&1 ||
    fail "$1 is needed $why, and there is no apt-get here: install it with this system's package manager and run this again"
  apt_update
  for package in "$@"; do
    case $(apt-cache policy "$package") in
      *'Candidate: '[0-9]*)
        apt_install "$package"
        return
        ;;
    esac
  done
  fail "apt-get knows none of: $*. One of them is needed $why; install it by hand and run this again"
}

apt_update() {
  if [ -z "${APT_IS_FRESH:-}" ]; then
    step "apt-get update"
    apt-get update -q >/dev/null || fail "apt-get update failed; see its messages above"
    APT_IS_FRESH=yes
  fi
}

apt_install() {
  step "apt-get install $*"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >/dev/null ||
    fail "apt-get install $* failed; see its messages above"
}
