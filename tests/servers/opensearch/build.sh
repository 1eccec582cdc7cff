#!/usr/bin/env bash
# build.sh: lays a real OpenSearch out of its Maven Central artifacts into BUILD (the repository's target/servers/opensearch).
# Does nothing when it is there and these files have not changed since. Needs mvn and a JDK of 21 or later.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
build=${BUILD:-$here/../../../target/servers/opensearch}
recipe=$(cat "$here"/build.sh "$here"/pom.xml "$here"/Serve.java | sha256sum)

lay() {
  local jdk
  jdk=$("$here/../jdk.sh")
  echo "OpenSearch: its jars from Maven Central (62 MB) into target/servers" >&2
  rm -rf "$build"
  mkdir -p "$build/classes"
  mvn -B -q -Dstyle.color=never -f "$here/pom.xml" dependency:copy-dependencies -DoutputDirectory="$build/jars" >&2
  "$jdk/bin/javac" -cp "$build/jars/*" -d "$build/classes" "$here/Serve.java"
  echo "$recipe" > "$build/recipe"
}

mkdir -p "$(dirname "$build")"
exec 9> "$build.lock"
flock 9
[ "$(cat "$build/recipe" 2>/dev/null)" = "$recipe" ] || lay
