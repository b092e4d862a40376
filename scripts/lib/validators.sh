# shellcheck shell=bash
# The validators of those who read user data, for the tests of crates/cloud-config. Sourced after common.sh.

# Puts cloud-init and ignition-validate under target/validators/bin. Their packages are unpacked and not installed:
# installed, both would set this machine up anew at its next start.
need_validators() {
  local directory=$TARGET_DIR/validators why="to check user data" package
  need_command systemd-analyze "$why" systemd
  if [ -x "$directory/bin/cloud-init" ] && [ -x "$directory/bin/ignition-validate" ]; then
    return
  fi
  need_command dpkg-deb "$why" dpkg
  if is_root; then
    apt_update
  fi
  # What cloud-init imports.
  for package in $(apt-cache depends cloud-init | sed -n 's/^ *|\{0,1\}Depends: \(python3-.*\)$/\1/p'); do
    if ! dpkg-query --show "$package" >/dev/null 2>&1; then
      is_root || fail "$package not found; it is needed $why. Run: sudo apt-get install -y $package"
      need_package "$why" "$package"
    fi
  done
  step "cloud-init and ignition-validate, into $directory"
  rm -rf "$directory"
  mkdir -p "$directory/bin"
  for package in cloud-init ignition; do
    (cd "$directory" && apt-get download -q "$package" >/dev/null 2>&1) ||
      fail "apt-get download $package failed; it is needed $why. Run: apt-get update"
    dpkg-deb -x "$directory/$package"_*.deb "$directory/$package"
  done
  ln -s ../ignition/usr/bin/ignition-validate "$directory/bin/ignition-validate"
  cat >"$directory/bin/cloud-init" <<'SH'
#!/bin/sh
usr=$(dirname "$0")/../cloud-init/usr
PYTHONPATH=$usr/lib/python3/dist-packages exec /usr/bin/python3 "$usr/bin/cloud-init" "$@"
SH
  chmod +x "$directory/bin/cloud-init"
  rm "$directory"/*.deb
}
