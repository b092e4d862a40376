# shellcheck shell=bash
# Python packages for scripts, pinned, in virtual environments under target/. Sourced after common.sh.

# Sets VENV to the environment NAME with what REQUIREMENTS lists, made anew when that changes: `need_venv NAME REQUIREMENTS
# WHY`. The file is under scripts/lib.
need_venv() {
  local requirements=$ROOT/scripts/lib/$2 why=$3
  VENV=$TARGET_DIR/$1-venv
  if cmp -s "$requirements" "$VENV/requirements.txt" && "$VENV/bin/python" -c '' 2>/dev/null; then
    return
  fi
  need_command python3 "$why" python3
  python3 -c 'import ensurepip, venv' 2>/dev/null || {
    is_root || fail "python3 has no venv; it is needed $why. Run: sudo apt-get install -y python3-venv"
    need_package "$why" python3-venv
  }
  step "pip install --requirement scripts/lib/$2, into $VENV"
  rm -rf "$VENV"
  python3 -m venv "$VENV"
  "$VENV/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements" ||
    fail "pip install failed; see its messages above, and run this again"
  cp "$requirements" "$VENV/requirements.txt"
}
