# shellcheck shell=bash
# The Docker engine and docker-compose: found, or installed and started. Needs common.sh.

# How long an engine that we start may take to answer, in seconds. It takes one or two.
ENGINE_START_S=60
ENGINE_LOG=/var/log/force12-dockerd.log

engine_answers() {
  timeout 10 docker version --format '{{.Server.Version}}' >/dev/null 2>&1
}

# Returns when an engine answers; otherwise fails and says what to run.
need_engine() {
  if command -v docker >/dev/null 2>&1; then
    if engine_answers; then
      return
    fi
    # A permission that is missing, or an engine elsewhere, is not ours to change.
    case $(timeout 10 docker version 2>&1 || true) in
      *"permission denied"*)
        fail "the Docker engine does not let $(id -un) in. Run: sudo usermod -aG docker $(id -un), log in again, and run this again"
        ;;
    esac
    if [ -n "${DOCKER_HOST:-}" ]; then
      fail "no Docker engine answers at DOCKER_HOST=$DOCKER_HOST. Start it, or unset DOCKER_HOST, and run this again"
    fi
  fi
  if ! is_root; then
    fail "no Docker engine answers, and only root may start one. Run: sudo apt-get install -y docker.io docker-compose && sudo systemctl start docker"
  fi
  need_command dockerd "to run containers" docker.io
  # Its own package since Debian 13.
  need_command docker "to speak to the engine" docker-cli docker.io
  engine_answers || start_engine
}

start_engine() {
  if [ -d /run/systemd/system ]; then
    step "starting the Docker engine: systemctl start docker"
    systemctl start docker || fail "systemctl start docker failed; see: journalctl -u docker"
  else
    forget_pid_of_dead dockerd /var/run/docker.pid
    forget_pid_of_dead containerd /var/run/docker/containerd/containerd.pid
    step "no Docker engine answers and there is no systemd: starting dockerd in the background, log in $ENGINE_LOG"
    setsid nohup dockerd >"$ENGINE_LOG" 2>&1 </dev/null &
    local pid=$!
    step "it stays up when this script ends; to stop it: kill $pid"
  fi
  local waited=0
  until engine_answers; do
    if [ "$waited" -ge "$ENGINE_START_S" ]; then
      [ -f "$ENGINE_LOG" ] && tail -n 20 "$ENGINE_LOG" >&2
      fail "the Docker engine does not answer $ENGINE_START_S s after its start"
    fi
    sleep 1
    waited=$((waited + 1))
  done
}

# Removes NAME's pid file if no such process has its number. An engine that was killed leaves its own behind, and takes
# whatever process has been given the number since for itself.
forget_pid_of_dead() {
  local name=$1 file=$2 pid
  [ -f "$file" ] || return 0
  pid=$(cat "$file")
  [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$name" ] || rm -f "$file"
}

# Sets COMPOSE to v2 (`docker compose`, or a docker-compose of that version) or v1 (1.27 or later).
need_compose() {
  if ! find_compose; then
    is_root || fail "no docker-compose found; it starts the demo's services. Run: sudo apt-get install -y docker-compose"
    # Ubuntu's docker-compose-v2 is the plugin alone; Debian's docker-compose is v1 in 12 and v2 from 13 on.
    need_package "to start the demo's services" docker-compose-v2 docker-compose
    find_compose || fail "docker-compose is installed, and neither 'docker compose version' nor 'docker-compose version' works"
  fi
  local version
  version=$("${COMPOSE[@]}" version --short)
  case ${version#v} in
    1.2[7-9].* | [2-9].* | [1-9][0-9].*) ;;
    *) fail "docker-compose $version is too old: 1.27 or later is needed" ;;
  esac
}

find_compose() {
  COMPOSE=(docker compose)
  "${COMPOSE[@]}" version >/dev/null 2>&1 && return
  COMPOSE=(docker-compose)
  "${COMPOSE[@]}" version >/dev/null 2>&1
}

# Compose on the demo's project. It reads docker/.env and docker-compose.override.yml by itself, as it does for
# whoever types docker-compose in that directory.
compose() {
  (cd "$ROOT/docker" && "${COMPOSE[@]}" "$@")
}
