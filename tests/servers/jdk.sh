#!/usr/bin/env bash
# jdk.sh: prints the home of a JDK of 21 or later (what Elasticsearch needs), or exits 1 when this machine has none.
# Looked at in this order: JAVA_HOME, the java on PATH, the neighbours of that one, the JDKs of Debian's usual place.
set -euo pipefail

on_path=$(readlink -f "$(command -v java || true)" || true)
on_path=${on_path%/bin/java}
for home in "${JAVA_HOME:-}" "$on_path" "${on_path%/*}"/* /usr/lib/jvm/*; do
  [ -x "$home/bin/javac" ] || continue
  # Its file `release` has a line JAVA_VERSION="21.0.5".
  version=$(sed -n 's/^JAVA_VERSION="\([0-9]*\).*/\1/p' "$home/release" 2>/dev/null || true)
  if [ "${version:-0}" -ge 21 ]; then
    echo "$home"
    exit 0
  fi
done
echo "no JDK of 21 or later found: install one and set JAVA_HOME to it" >&2
exit 1
