# shellcheck shell=bash
# What scripts/demo --ecs has beside the demo on Docker: an ECS of this project's own (crates/fake-ecs), whose tasks are
# containers of this machine's engine, and on it the task definitions and services of cloud-config/ecs. Needs common.sh,
# toolchain.sh, and what scripts/demo sets: TOKEN, PAGE_PORT and SOCKET.

# Those of scripts/ecs and of crates/fake-ecs, unless they are told otherwise.
ECS_CLUSTER=force12-demo
ECS_REGION=eu-west-1
ECS_URL=http://127.0.0.1:8090
# On the host's network, beside the page's port: demand-rng's and the scheduler's (cloud-config/ecs/config).
ECS_PORTS=(8081 8082)
# The fake's name for the first instance.
# shellcheck disable=SC2034 # for scripts/demo
ECS_INSTANCE=i-00000000000000001
ECS_QUEUE=$ECS_CLUSTER-events
ECS_TOKEN_ARN=arn:aws:secretsmanager:$ECS_REGION:123456789012:secret:$ECS_CLUSTER/token
# Nobody checks them, but SDKs do nothing without.
ECS_CREDENTIALS=(AWS_ACCESS_KEY_ID=demo AWS_SECRET_ACCESS_KEY=demo)
# The label of all containers that the fake has started.
ECS_LABEL=fake-ecs.cluster=$ECS_CLUSTER

FAKE_ECS=$TARGET_DIR/$TRIPLE/release/fake-ecs
# Of the one that runs: its number, its log, what it was started with, the page's address, the files that are registered.
ECS_STATE=$TARGET_DIR/demo-ecs
# Seconds. It begins by removing what an earlier one has left, and ends with the same.
FAKE_ECS_START_S=30
FAKE_ECS_END_S=60

# Whether the demo is here as --ecs has started it, or some of it.
on_ecs() {
  fake_ecs_runs || [ -n "$(ecs_containers)" ]
}

ecs_containers() {
  docker ps --all --quiet --filter "label=$ECS_LABEL"
}

fake_ecs_runs() {
  local pid
  pid=$(cat "$ECS_STATE/pid" 2>/dev/null) && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = fake-ecs ]
}

ecs_page_url() {
  cat "$ECS_STATE/page" 2>/dev/null || true
}

ecs_up() {
  need_host_network
  need_rust
  step "fake ECS: cargo build --release"
  (cd "$ROOT" && cargo build --locked --release --package fake-ecs)
  local wanted
  wanted=$(fake_ecs_inputs)
  # What it knows, it has in memory: with another binary, images or token, all begins anew.
  if fake_ecs_runs && [ "$(cat "$ECS_STATE/stamp" 2>/dev/null)" = "$wanted" ]; then
    step "fake ECS: runs as it should"
  else
    ecs_down
    start_fake_ecs
    printf '%s\n' "$wanted" >"$ECS_STATE/stamp"
  fi
  copy_ecs_files
  step "scripts/ecs register: task definitions and services"
  ecs register --images force12 --tag latest >&2 || fail "scripts/ecs register failed; see its message above"
}

# The services find each other, and the fake, on the loopback of their host.
need_host_network() {
  case $(docker info --format '{{.OperatingSystem}} {{.SecurityOptions}}') in
    *"Docker Desktop"* | *rootless*)
      fail "this engine's host network is not this machine's, and --ecs needs it to be: an engine that is rootless, or in a virtual machine, runs scripts/demo without --ecs"
      ;;
  esac
}

fake_ecs_inputs() {
  {
    cat "$FAKE_ECS" "$TOKEN"
    docker image inspect --format '{{.Id}}' force12/{demand-rng,scheduler,status-api,workload}
    echo "$PAGE_PORT $SOCKET"
  } | sha256sum
}

start_fake_ecs() {
  local port
  for port in "$PAGE_PORT" "${ECS_PORTS[@]}"; do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      fail "port $port is taken, and the demo's services need it (the page's is another with FORCE12_PORT=9090 scripts/demo --ecs)"
    fi
  done
  mkdir -p "$ECS_STATE"
  printf 'http://127.0.0.1:%s\n' "$PAGE_PORT" >"$ECS_STATE/page"
  local log=$ECS_STATE/log variable of_scheduler=()
  # What the scheduler has instead of a role.
  for variable in "${ECS_CREDENTIALS[@]}" "AWS_ENDPOINT_URL=$ECS_URL"; do
    of_scheduler+=(--role-env "$variable")
  done
  step "starting the fake ECS with three instances, log in $log"
  : >"$log"
  NO_COLOR=1 DOCKER_HOST=unix://$SOCKET FAKE_ECS_SECRET="$ECS_TOKEN_ARN=$(cat "$TOKEN")" setsid nohup "$FAKE_ECS" --docker \
    --listen "${ECS_URL#http://}" --cluster "$ECS_CLUSTER" --region "$ECS_REGION" --instances 3 \
    --attribute force12.role=control --events-queue "$ECS_QUEUE" "${of_scheduler[@]}" \
    >>"$log" 2>&1 </dev/null &
  local pid=$! until=$((SECONDS + FAKE_ECS_START_S))
  echo "$pid" >"$ECS_STATE/pid"
  # Ours, and not another that has the port: that one would see ours end.
  until grep -q serving "$log"; do
    if ! kill -0 "$pid" 2>/dev/null || [ "$SECONDS" -ge "$until" ]; then
      tail -n 20 "$log" >&2
      fail "the fake ECS does not serve at $ECS_URL; its last lines are above"
    fi
    sleep 0.2
  done
}

# As for AWS, but that the page is for this machine only: an instance there is behind its security group.
copy_ecs_files() {
  local files=$ECS_STATE/files
  rm -rf "$files"
  cp -r "$ROOT/cloud-config/ecs" "$files"
  sed -i "s/^listen = .*/listen = \"127.0.0.1:$PAGE_PORT\"/" "$files/config/status-api.toml"
  sed -i "s/\(\"\(container\|host\)Port\": \)8080/\1$PAGE_PORT/g" "$files/task-definitions/status-api.json"
}

# scripts/ecs on the fake, with none of the credentials that somebody may have here for AWS.
ecs() {
  local verb=$1
  shift
  env --unset AWS_PROFILE --unset AWS_SESSION_TOKEN "${ECS_CREDENTIALS[@]}" "$ROOT/scripts/ecs" "$verb" \
    --cluster "$ECS_CLUSTER" --region "$ECS_REGION" --endpoint-url "$ECS_URL" --files "$ECS_STATE/files" --ecs-only \
    --events-queue-url "$ECS_URL/queue/$ECS_QUEUE" --token-secret-arn "$ECS_TOKEN_ARN" "$@"
}

ecs_diagnose() {
  echo "--- containers"
  docker ps --all --filter "label=$ECS_LABEL" || true
  echo "--- scripts/ecs status"
  ecs status || true
  echo "--- $ECS_STATE/log"
  tail -n 30 "$ECS_STATE/log" || true
  local name
  for name in demand-rng scheduler status-api; do
    echo "--- logs of $name"
    docker ps --all --quiet --filter "label=$ECS_LABEL" --filter "label=com.amazonaws.ecs.container-name=$name" |
      xargs --no-run-if-empty --max-args=1 docker logs --tail 30 || true
  done
}

# The fake first, or it would start again what is removed. It removes all containers of its own when it ends.
ecs_down() {
  local pid until containers
  if fake_ecs_runs; then
    pid=$(cat "$ECS_STATE/pid")
    step "ending the fake ECS, and with it all of its tasks"
    kill "$pid"
    until=$((SECONDS + FAKE_ECS_END_S))
    while fake_ecs_runs; do
      if [ "$SECONDS" -ge "$until" ]; then
        step "the fake ECS has not ended within $FAKE_ECS_END_S s: kill -KILL $pid"
        kill -KILL "$pid"
        break
      fi
      sleep 0.2
    done
  fi
  # Of one that was killed.
  mapfile -t containers < <(ecs_containers)
  [ "${#containers[@]}" -eq 0 ] || docker rm --force --volumes "${containers[@]}" >/dev/null
  rm -rf "$ECS_STATE"
}
