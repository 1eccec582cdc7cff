#!/usr/bin/env bash
# run.sh [TARGET...]: builds the fuzz targets and runs each (all, unless named) for FUZZ_SECONDS (60), two at a time. An input
# that breaks one is left in target/fuzz/artifacts; the target given that file as its argument breaks again. FUZZ_SEED makes the
# same choices each time.
#
# Without a sanitizer: the agent has no unsafe code, so that all it would add is a nightly toolchain and a longer build.
set -euo pipefail
cd "$(dirname "$0")/../.."

export OUT=target/fuzz
export SECONDS_EACH=${FUZZ_SECONDS:-60} SEED=${FUZZ_SEED:-0}
BUILT=$OUT/$(rustc -vV | sed -n 's/^host: //p')/release
export BUILT

# The same libraries as in the agent: another version of one would be tried in vain.
check_versions() {
  versions() { awk '/^name = / { name = $3 } /^version = / { print name, $3 }' "$1" | sort; }
  local strange
  strange=$(comm -13 <(versions Cargo.lock) <(versions tests/fuzz/Cargo.lock) \
    | grep -vE '^"(arbitrary|derive_arbitrary|libfuzzer-sys|nodewarden-fuzz)"' || true)
  [ -z "$strange" ] && cargo metadata --locked --format-version 1 --manifest-path tests/fuzz/Cargo.toml > /dev/null && return
  [ -z "$strange" ] || printf 'fuzz: not a version in Cargo.lock: %s\n' "$strange" >&2
  echo "fuzz: tests/fuzz/Cargo.lock differs from Cargo.lock; cp Cargo.lock tests/fuzz/ && cargo metadata" \
    "--manifest-path tests/fuzz/Cargo.toml > /dev/null" >&2
  exit 1
}

run_one() {
  local name=$1 log=$OUT/$1.log seeds=tests/fuzz/corpus/$1
  mkdir -p "$OUT/corpus/$name" "$OUT/artifacts"
  [ -d "$seeds" ] || seeds=
  # shellcheck disable=SC2086 # a target without seeds has no argument for them
  if "$BUILT/$name" -seed="$SEED" -max_total_time="$SECONDS_EACH" -timeout=60 -rss_limit_mb=512 -len_control=0 -max_len=2048 \
    -print_final_stats=1 -artifact_prefix="$OUT/artifacts/$name-" "$OUT/corpus/$name" $seeds > "$log" 2>&1; then
    echo "fuzz: $name: $(awk '/number_of_executed_units/ { print $2 }' "$log") inputs, nothing found"
  else
    tail -n 60 "$log"
    echo "fuzz: $name: broken, all of it in $log"
    return 1
  fi
}
export -f run_one

check_versions
cargo fuzz build --fuzz-dir tests/fuzz --target-dir "$OUT" --sanitizer none
# In memory where possible: what they write is synced.
[ -w /dev/shm ] && TMPDIR=/dev/shm
TMPDIR=$(mktemp -d "${TMPDIR:-/tmp}/nodewarden-fuzz.XXXXXX")
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
{ [ $# -gt 0 ] && printf '%s\n' "$@" || cargo fuzz list --fuzz-dir tests/fuzz; } | xargs -P 2 -I{} bash -c 'run_one {}'
