#!/usr/bin/env bash
# Container images without a registry, by buildah: the base images are made of Debian's packages and of this machine's Rust and Node.
#   image.sh pause FILE.tar           localhost/pause:1, which every pod needs
#   image.sh shell FILE.tar           localhost/shell:1: busybox, for pods that write
#   image.sh agent BINARY FILE.tar    localhost/nodewarden:test: the Dockerfile, with this binary in place of its build stage
#   image.sh arm64 BINARY DIR         the same for arm64, unpacked into DIR
#   image.sh whole [ARGUMENT...]      `make image` as it is, with these arguments of make
# STORE     folder of the images [target/servers/images]
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,8p' "$0" >&2; exit 2; }

repository=$(cd "$(dirname "$0")/../../.." && pwd)
store=${STORE:-$repository/target/servers/images}
mkdir -p "$store"
export BUILDAH_ISOLATION=chroot CONTAINERS_STORAGE_CONF=$store/storage.conf
printf '[storage]\ndriver = "overlay"\ngraphroot = "%s/layers"\nrunroot = "%s/run"\n' "$store" "$store" > "$store/storage.conf"
work=$(mktemp -d -p "$store")
trap 'rm -rf "$work"' EXIT
# Package clients in a build trust whom this machine trusts.
trust=(--volume /etc/ssl/certs:/etc/ssl/certs:ro)

has() { buildah inspect --type image "localhost/$1" > /dev/null 2>&1; }
build() { buildah build --quiet --pull-never "$@" > /dev/null; }
save() { # NAME FILE
  local file
  file=$(realpath -m "$2")
  rm -f "$file"
  buildah push --quiet "localhost/$1" "oci-archive:$file:localhost/$1"
}

pause() {
  cat > "$work/pause.c" <<'C'
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void quit(int s) { (void)s; _exit(0); }
static void reap(int s) { (void)s; while (waitpid(-1, 0, WNOHANG) > 0) {} }
int main(void) {
  signal(SIGINT, quit); signal(SIGTERM, quit); signal(SIGCHLD, reap);
  for (;;) pause();
}
C
  gcc -Os -static -s -o "$work/pause" "$work/pause.c"
  printf 'FROM scratch\nCOPY pause /pause\nUSER 65535:65535\nENTRYPOINT ["/pause"]\n' > "$work/Dockerfile"
  build --tag localhost/pause:1 "$work"
  save pause:1 "$1"
}

shell() {
  (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root busybox-static && dpkg-deb -x busybox-static_*.deb .)
  printf 'FROM scratch\nCOPY bin/busybox /bin/busybox\nENTRYPOINT ["/bin/busybox", "sh", "-c"]\n' > "$work/Dockerfile"
  build --tag localhost/shell:1 "$work"
  save shell:1 "$1"
}

base_debian() {
  ! has debian:bookworm-slim || return 0
  mmdebstrap --quiet --variant=minbase --include=ca-certificates --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' bookworm "$work/base.tar"
  printf 'FROM scratch\nADD base.tar /\nCMD ["bash"]\n' > "$work/Dockerfile"
  build --tag localhost/debian:bookworm-slim "$work"
  rm "$work/base.tar"
}

# As the official one: rustup with one toolchain, all in /usr/local.
base_rust() {
  ! has rust:1.95-slim-bookworm || return 0
  local toolchain name
  toolchain=$(rustc --print sysroot)
  name=${toolchain##*/}
  cat > "$work/Dockerfile" <<D
FROM debian:bookworm-slim
ENV RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY --from=cargo rustup /usr/local/cargo/bin/
COPY --from=toolchain bin /usr/local/rustup/toolchains/$name/bin
COPY --from=toolchain lib /usr/local/rustup/toolchains/$name/lib
RUN cd /usr/local/cargo/bin && ln -s rustup cargo && ln -s rustup rustc && rustup default $name
D
  build "${trust[@]}" --build-context "cargo=$(dirname "$(readlink -f "$(command -v rustup)")")" \
    --build-context "toolchain=$toolchain" --tag localhost/rust:1.95-slim-bookworm "$work"
}

base_node() {
  ! has node:22-bookworm-slim || return 0
  cat > "$work/Dockerfile" <<'D'
FROM debian:bookworm-slim
COPY --from=bin node /usr/local/bin/
COPY --from=modules . /usr/local/lib/node_modules
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm
D
  build --build-context "bin=$(dirname "$(readlink -f "$(command -v node)")")" \
    --build-context "modules=$(npm root --global)" --tag localhost/node:22-bookworm-slim "$work"
}

pack() { # BINARY STRIP ARCHITECTURE TAG
  # Layers of earlier binaries pile up.
  [ "$(du -sm "$store" | cut -f 1)" -lt 4000 ] || rm -rf "$store/layers" "$store/run"
  base_debian
  mkdir "$work/build"
  "$2" -o "$work/build/nodewarden" "$1"
  build "${trust[@]}" --layers --platform "linux/$3" --build-arg "BUILDPLATFORM=linux/$(dpkg --print-architecture)" \
    --build-context "build=$work/build" --tag "localhost/nodewarden:$4" "$repository"
}

unpack() { # TAG ARCHITECTURE DIR
  local container
  container=$(buildah from --pull-never --platform "linux/$2" "localhost/nodewarden:$1")
  rm -rf "$3"
  mkdir -p "$3"
  cp -a "$(buildah mount "$container")/." "$3"
  buildah rm "$container" > /dev/null
}

case $1 in
  pause | shell) "$1" "${2:?FILE.tar}" ;;
  agent)
    pack "${2:?BINARY}" strip "$(dpkg --print-architecture)" test
    save nodewarden:test "${3:?FILE.tar}" ;;
  arm64)
    pack "${2:?BINARY}" aarch64-linux-gnu-strip arm64 arm64
    unpack arm64 arm64 "${3:?DIR}" ;;
  whole)
    shift
    base_debian
    base_rust
    base_node
    make -C "$repository" image ARGS="--pull-never --layers ${trust[*]}" "$@" ;;
  *) sed -n '2,8p' "$0" >&2; exit 2 ;;
esac
