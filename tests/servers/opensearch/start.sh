#!/usr/bin/env bash
# start.sh PORT DATADIR: becomes a real OpenSearch on 127.0.0.1:PORT; the caller waits until it answers.
#   HEAP=512m         memory of the JVM
#   SETTINGS=FILE     further lines for opensearch.yml
#   UNTIL_EOF=1       it ends when its standard input is closed, so that it never outlives the tests that started it
# DATADIR keeps config/, data/ and tmp/: start again with the same one to get the same data back.
set -euo pipefail
[ $# = 2 ] || { sed -n '2,6p' "$0" >&2; exit 2; }
[ "${SECURITY:-off}" = off ] || { echo "its security plugin is not on Maven Central: SECURITY=off only" >&2; exit 2; }

here=$(cd "$(dirname "$0")" && pwd)
export BUILD=${BUILD:-$here/../../../target/servers/opensearch}
"$here/build.sh"
jdk=$("$here/../jdk.sh")
mkdir -p "$2/config" "$2/tmp"
data=$(cd "$2" && pwd)

# The disk watermarks are off: a full test machine would block every index.
{ printf '%s\n' "cluster.name: e2e" "node.name: n1" "discovery.type: single-node" "network.host: 127.0.0.1" \
    "http.port: $1" "transport.port: 0" "path.data: $data/data" "path.logs: $data/logs" \
    "cluster.routing.allocation.disk.threshold_enabled: false"
  [ -z "${SETTINGS:-}" ] || cat "$SETTINGS"
} > "$data/config/opensearch.yml"
printf '%s\n' 'status = error' 'appender.c.type = Console' 'appender.c.name = c' 'appender.c.layout.type = PatternLayout' \
  'appender.c.layout.pattern = [%d{ISO8601}][%-5p][%c{1.}] %m%n' 'rootLogger.level = info' \
  'rootLogger.appenderRef.c.ref = c' > "$data/config/log4j2.properties"

heap=${HEAP:-512m}
exec "$jdk/bin/java" -Xms"$heap" -Xmx"$heap" --enable-native-access=ALL-UNNAMED --add-modules jdk.incubator.vector \
  -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Djava.io.tmpdir="$data/tmp" -Dlog4j2.disable.jmx=true \
  -De2e.home="$BUILD" -De2e.config="$data/config" -De2e.until-eof="${UNTIL_EOF:-0}" -cp "$BUILD/classes:$BUILD/jars/*" Serve
