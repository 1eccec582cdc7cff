#!/usr/bin/env bash
# build.sh: lays a real Elasticsearch out of its Maven Central artifacts into BUILD (the repository's target/servers/elasticsearch).
# Does nothing when it is there and these files have not changed since. Needs mvn and a JDK of 21 or later.
# Maven Central has the server and its modules as plain jars, not the distribution: the directories that the server
# expects are made here, Serve.java starts it, and Extras.java stands in for two modules that are not published.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
build=${BUILD:-$here/../../../target/servers/elasticsearch}
recipe=$(cat "$here"/build.sh "$here"/pom.xml "$here"/*.java | sha256sum)

# A module directory: the named jars and the module's descriptor, without the Java module name.
module() { # NAME JAR-PATTERN...
  local name=$1 dir=$build/secure/modules/$1 pattern
  local descriptor=META-INF/es-plugins/$name/plugin-descriptor.properties
  mkdir -p "$dir"
  for pattern in "${@:2}"; do cp "$build"/jars/$pattern.jar "$dir/"; done
  (cd "$dir" && "$jdk/bin/jar" xf "$name"-[0-9]*.jar "$descriptor")
  grep -v '^modulename' "$dir/$descriptor" > "$dir/plugin-descriptor.properties"
  rm -r "$dir/META-INF"
}

lay_modules() {
  module transport-netty4 'netty-*' 'transport-netty4-*' 'elasticsearch-ssl-config-*'
  module x-pack-core 'x-pack-core-*' 'elasticsearch-ssl-config-*' 'http*' 'commons-*' 'icu4j-*' 'unboundid-*' \
    'slf4j-*' 'log4j-slf4j2-*' 'log4j-1.2-*'
  module x-pack-security 'x-pack-security-*' 'transport-netty4-*' 'netty-*' 'nimbus-*' 'oauth2-*' 'json-smart-*' \
    'accessors-*' 'asm-*' 'lang-tag-*' 'content-type-*' 'jcip-*' 'jsr305-*' 'metrics-*'
  rm "$build"/secure/modules/x-pack-core/httpclient-cache-*.jar
  # What no module took belongs to the server itself.
  mkdir "$build/lib"
  local jar
  for jar in "$build"/jars/*.jar; do
    compgen -G "$build/secure/modules/*/${jar##*/}" > /dev/null || mv "$jar" "$build/lib/"
  done
}

lay_extras() {
  local dir=$build/secure/modules/extras
  mkdir -p "$build/extras" "$dir"
  "$jdk/bin/javac" -cp "$build/lib/*" -d "$build/extras" "$here/Extras.java"
  "$jdk/bin/jar" cf "$dir/extras.jar" -C "$build/extras" .
  sed -e 's/^name=.*/name=extras/; s/^classname=.*/classname=Extras/; s/^description=.*/description=extras/' \
    "$build/secure/modules/transport-netty4/plugin-descriptor.properties" > "$dir/plugin-descriptor.properties"
}

# OpenSAML is not on Maven Central: empty stand-ins for its types that the security module's classes name at start.
# No SAML realm is ever configured.
lay_saml_stubs() {
  local saml=org/opensaml/saml/saml2 entry type super file
  for entry in org/opensaml/core/xml/XMLObject org/opensaml/security/x509/X509Credential \
    $saml/metadata/EntityDescriptor $saml/core/NameID $saml/core/RequestAbstractType $saml/core/StatusResponseType \
    $saml/core/AuthnRequest:RequestAbstractType $saml/core/LogoutRequest:RequestAbstractType \
    $saml/core/LogoutResponse:StatusResponseType; do
    type=${entry%:*}
    super=${entry#"$type"}
    file=$build/stubs/$type.java
    mkdir -p "${file%/*}"
    echo "package $(tr / . <<< "${type%/*}"); public interface ${type##*/} ${super:+extends ${super#:}} {}" > "$file"
  done
  find "$build/stubs" -name '*.java' -exec "$jdk/bin/javac" -d "$build/stubs" {} +
  "$jdk/bin/jar" cf "$build/secure/modules/x-pack-security/stubs.jar" -C "$build/stubs" org
}

lay() {
  jdk=$("$here/../jdk.sh")
  echo "Elasticsearch: its jars from Maven Central (90 MB) into target/servers" >&2
  rm -rf "$build"
  mkdir -p "$build/classes" "$build/plain/modules"
  mvn -B -q -Dstyle.color=never -f "$here/pom.xml" dependency:copy-dependencies -DoutputDirectory="$build/jars" >&2
  lay_modules
  "$jdk/bin/javac" -cp "$build/lib/*" -d "$build/classes" "$here/Serve.java"
  lay_extras
  lay_saml_stubs
  cp -r "$build/secure/modules/transport-netty4" "$build/secure/modules/extras" "$build/plain/modules/"
  rm -r "$build/jars"
  echo "$recipe" > "$build/recipe"
}

mkdir -p "$(dirname "$build")"
exec 9> "$build.lock"
flock 9
[ "$(cat "$build/recipe" 2>/dev/null)" = "$recipe" ] || lay
