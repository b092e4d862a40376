# shellcheck shell=bash
# Rust, a linker, and Node for the page. Needs common.sh.

# What the page's tools need at least; older distributions carry less.
NODE_MINIMUM=20.19
# Taken from the npm registry where the distribution's own is too old.
NODE_VERSION=22.23.3
NPM_VERSION=10.9.9

has_rust() {
  # Where rustup puts it, also for a shell that was open before.
  if ! command -v cargo >/dev/null 2>&1 && [ -x "$HOME/.cargo/bin/cargo" ]; then
    PATH=$HOME/.cargo/bin:$PATH
  fi
  command -v cargo >/dev/null 2>&1
}

need_rust() {
  if ! has_rust; then
    fail "no Rust toolchain found. Run: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal
and run this again (or build the images in Docker, without Rust: scripts/build-images --in-docker)"
  fi
  # A linker and libc's static half; rustup brings neither.
  need_command cc "to link Rust programs" build-essential
  (cd "$ROOT" && cargo --version >/dev/null) ||
    fail "cargo does not run in $ROOT; rust-toolchain.toml there names the version that rustup should install"
}

node_suffices() {
  command -v node >/dev/null 2>&1 && command -v npm >/dev/null 2>&1 &&
    [ "$(printf '%s\n' "$NODE_MINIMUM" "$(node --version | tr -d v)" | sort -V | head -n 1)" = "$NODE_MINIMUM" ]
}

need_node() {
  if node_suffices; then
    return
  fi
  local own=$TARGET_DIR/node
  if [ ! -x "$own/bin/node" ]; then
    need_command npm "to build the page" npm
    if node_suffices; then
      return
    fi
    local machine=x64
    [ "$(uname -m)" = aarch64 ] && machine=arm64
    step "node here is older than $NODE_MINIMUM: installing node $NODE_VERSION under $own, for this build only"
    mkdir -p "$own/bin"
    npm install --silent --no-audit --no-fund --prefix "$own" \
      "node-linux-$machine@$NODE_VERSION" "npm@$NPM_VERSION" >&2 ||
      fail "node $NODE_VERSION could not be installed from the npm registry; install node $NODE_MINIMUM or later and run this again"
    ln -sf "../node_modules/npm/bin/npm-cli.js" "$own/bin/npm"
    ln -sf "../node_modules/node-linux-$machine/bin/node" "$own/bin/node"
  fi
  PATH=$own/bin:$PATH
  hash -r
  node_suffices || fail "$own/bin/node does not run; remove $own and run this again"
}
