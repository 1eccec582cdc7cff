#!/usr/bin/env bash
# start.sh PORT DATADIR: becomes a real Elasticsearch on 127.0.0.1:PORT; the caller waits until it answers.
#   HEAP=512m         memory of the JVM
#   SECURITY=off      off, basic or tls: user elastic, password ES_PASSWORD or "changeme"; certificate DATADIR/config/http.crt
#   SETTINGS=FILE     further lines for elasticsearch.yml
#   UNTIL_EOF=1       it ends when its standard input is closed, so that it never outlives the tests that started it
#   JAVA_FLAGS="..."  JVM flags in place of those for a quick start
# DATADIR keeps config/, data/ and tmp/: start again with the same one to get the same data back.
set -euo pipefail
[ $# = 2 ] || { sed -n '2,8p' "$0" >&2; exit 2; }

here=$(cd "$(dirname "$0")" && pwd)
export BUILD=${BUILD:-$here/../../../target/servers/elasticsearch}
"$here/build.sh"
jdk=$("$here/../jdk.sh")
port=$1
mkdir -p "$2/config" "$2/tmp"
data=$(cd "$2" && pwd)
security=${SECURITY:-off}
home=$BUILD/plain
password=

settings() {
  # The disk watermarks are off: a full test machine would block every index.
  printf '%s\n' "cluster.name: e2e" "node.name: n1" "discovery.type: single-node" "network.host: 127.0.0.1" \
    "http.port: $port" "transport.port: 0" "path.data: $data/data" "path.logs: $data/logs" \
    "cluster.routing.allocation.disk.threshold_enabled: false"
  if [ "$security" != off ]; then
    printf '%s\n' "xpack.security.enabled: true" "xpack.security.autoconfiguration.enabled: false" \
      "xpack.security.authc.api_key.enabled: true"
  fi
  if [ "$security" = tls ]; then
    printf '%s\n' "xpack.security.http.ssl.enabled: true" "xpack.security.http.ssl.key: http.key" \
      "xpack.security.http.ssl.certificate: http.crt"
  fi
  [ -z "${SETTINGS:-}" ] || cat "$SETTINGS"
}

certificate() {
  openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=localhost -addext 'subjectAltName=DNS:localhost,IP:127.0.0.1' \
    -keyout "$data/config/http.key" -out "$data/config/http.crt" 2>/dev/null
}

if [ "$security" != off ]; then
  home=$BUILD/secure
  password=${ES_PASSWORD:-changeme}
fi
[ "$security" != tls ] || [ -e "$data/config/http.key" ] || certificate
settings > "$data/config/elasticsearch.yml"
printf '%s\n' 'status = error' 'appender.c.type = Console' 'appender.c.name = c' 'appender.c.layout.type = PatternLayout' \
  'appender.c.layout.pattern = [%d{ISO8601}][%-5p][%c{1.}] %m%n' 'rootLogger.level = info' \
  'rootLogger.appenderRef.c.ref = c' > "$data/config/log4j2.properties"

export ES_PASSWORD=$password
heap=${HEAP:-512m}
# shellcheck disable=SC2086  # JAVA_FLAGS is a list of words.
exec "$jdk/bin/java" -Xms"$heap" -Xmx"$heap" --enable-native-access=ALL-UNNAMED --add-modules jdk.incubator.vector \
  ${JAVA_FLAGS:--XX:TieredStopAtLevel=1 -XX:+UseSerialGC} -Djava.io.tmpdir="$data/tmp" -Dlog4j2.disable.jmx=true \
  -De2e.home="$home" -De2e.config="$data/config" -De2e.until-eof="${UNTIL_EOF:-0}" -Des.path.home="$home" \
  -cp "$BUILD/classes:$BUILD/lib/*" Serve
