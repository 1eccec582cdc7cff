# The agent for amd64 and arm64: glibc, certificates, time zones and one binary; no shell. `make image` builds it. The same
# sources, base images and Debian packages with the same SOURCE_DATE_EPOCH make the same files with the same times.
ARG RUST=1.95
ARG NODE=22
# Known without it, but for older buildahs, which `make image` tells it.
ARG BUILDPLATFORM

FROM --platform=$BUILDPLATFORM node:${NODE}-bookworm-slim AS page
WORKDIR /src
COPY src/web/page/package.json src/web/page/package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY src/web/page ./
RUN npm run build

FROM --platform=$BUILDPLATFORM rust:${RUST}-slim-bookworm AS build
# What is built for; which of the two this machine is, does not matter.
ARG TARGETARCH
# hadolint ignore=DL3008
RUN set -eu; \
    case $TARGETARCH in \
      amd64) gnu=x86_64-linux-gnu gcc=gcc-x86-64-linux-gnu rust=x86_64-unknown-linux-gnu ;; \
      arm64) gnu=aarch64-linux-gnu gcc=gcc-aarch64-linux-gnu rust=aarch64-unknown-linux-gnu ;; \
      *) echo "no image for the architecture '$TARGETARCH'" >&2; exit 1 ;; \
    esac; \
    mkdir /target; echo "$gnu" > /target/gnu; echo "$rust" > /target/rust; \
    if [ "$(dpkg --print-architecture)" != "$TARGETARCH" ]; then \
      apt-get update; \
      apt-get install -y --no-install-recommends "$gcc" "libc6-dev-$TARGETARCH-cross"; \
      rustup target add "$rust"; \
    fi
WORKDIR /src
COPY . .
COPY --from=page /src/dist src/web/page/dist
ARG REVISION=""
RUN set -eu; \
    gnu=$(cat /target/gnu) rust=$(cat /target/rust); \
    export TARGET_CC="$gnu-gcc" TARGET_AR="$gnu-ar" RUSTFLAGS="-C linker=$gnu-gcc" NODEWARDEN_REVISION="$REVISION"; \
    cargo build --release --locked --bin nodewarden --target "$rust" --target-dir /built; \
    cp "/built/$rust/release/nodewarden" /; \
    rm -r /built

# Unpacked, not installed: nothing of the other architecture has to run. It is glibc because NVIDIA's library, which is
# loaded at run time, is made for it.
FROM --platform=$BUILDPLATFORM debian:bookworm-slim AS rootfs
ARG TARGETARCH
WORKDIR /packages
# hadolint ignore=DL3008
RUN set -eu; \
    dpkg --add-architecture "$TARGETARCH"; \
    apt-get update; \
    apt-get install -y --no-install-recommends ca-certificates; \
    apt-get download "libc6:$TARGETARCH" "libgcc-s1:$TARGETARCH" tzdata; \
    for package in *.deb; do dpkg-deb -x "$package" /unpacked; done; \
    rm -r /unpacked/usr/lib/*-linux-gnu /unpacked/usr/share/doc /unpacked/usr/share/lintian; \
    mkdir -p /rootfs/etc/ssl/certs /rootfs/etc/nodewarden /rootfs/usr/bin /rootfs/usr/share /rootfs/var/lib/nodewarden; \
    cp -a /unpacked/lib* /rootfs/; \
    cp -a /unpacked/usr/share/zoneinfo /rootfs/usr/share/; \
    cp /etc/ssl/certs/ca-certificates.crt /rootfs/etc/ssl/certs/; \
    echo 'hosts: files dns' > /rootfs/etc/nsswitch.conf; \
    printf '%s\n' root:x:0:0::/:/sbin/nologin nobody:x:65534:0::/:/sbin/nologin > /rootfs/etc/passwd; \
    printf '%s\n' root:x:0: adm:x:4: > /rootfs/etc/group; \
    chown 65534:0 /rootfs/var/lib/nodewarden; \
    chmod 700 /rootfs/var/lib/nodewarden
COPY --from=build /nodewarden /rootfs/usr/bin/
ARG SOURCE_DATE_EPOCH=0
RUN find /rootfs -newermt "@$SOURCE_DATE_EPOCH" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

FROM scratch
ARG VERSION=""
ARG REVISION=""
LABEL org.opencontainers.image.title="nodewarden" \
      org.opencontainers.image.description="One agent for a Kubernetes node: metrics and logs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=rootfs /rootfs /
# Its group is root's, by which the logs of containers can be read.
USER 65534:0
EXPOSE 9100
ENTRYPOINT ["/usr/bin/nodewarden"]
