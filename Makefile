# What one does with this repository; `make` alone lists it.

PAGE := src/web/page
BINARY := target/release/nodewarden
# Tools that install.sh built come after those of the machine.
export PATH := $(PATH):$(CURDIR)/target/tools/bin
.DEFAULT_GOAL := help
.PHONY: help build run test test-cluster lint soak fuzz bench image install need page

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 21

build: page ## target/release/nodewarden, with the page in it
	cargo build --release --locked

run: need build ## build, then run the agent on this host: make run ARGS='--log.level=debug'
	@echo "It says below where it listens; the page is at the address with the token. Ctrl-C ends it." >&2
	$(BINARY) $(ARGS)

test: install page ## install what the tests need, then every test against real servers
	cargo test --workspace --locked
	cd $(PAGE) && npm test

# One node at a time; what a test has left out it says.
test-cluster: page ## the image and the chart on a real node (root): kubelet, containerd, control plane, Prometheus, Elasticsearch
	tests/servers/install.sh cluster
	cargo test --locked --test cluster -- --nocapture --test-threads=1

lint: install $(PAGE)/node_modules ## format, clippy, licences of the dependencies, types of the page
	cargo fmt --all --check
	cargo fmt --manifest-path tests/fuzz/Cargo.toml --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy --test cluster --locked -- -D warnings
	cargo deny --locked --workspace check --hide-inclusion-graph bans licenses sources
	cd $(PAGE) && npm run check
	@! command -v hadolint > /dev/null || hadolint Dockerfile

# The models with PROPTEST_CASES, then the agent for SOAK_SECONDS in each of its tests, as it is built to be used; the seed of
# a run that failed makes its choices again.
soak: export PROPTEST_CASES := $(or $(PROPTEST_CASES),1000)
soak: export SOAK_SECONDS := $(or $(SOAK_SECONDS),600)
soak: export SOAK_SEED := $(or $(SOAK_SEED),$(shell date +%s))
soak: export PROPTEST_RNG_SEED := $(SOAK_SEED)
soak: install page ## the same tests for long: random rotations and kill -9, models with thousands of cases
	@echo "make soak SOAK_SEED=$(SOAK_SEED) SOAK_SECONDS=$(SOAK_SECONDS) PROPTEST_CASES=$(PROPTEST_CASES)"
	cargo test --workspace --locked --lib
	cargo test --locked --package nodewarden-collectors --test odd_input --test damaged
	cargo test --release --locked --test e2e -- --nocapture --test-threads=1 soak:: away:: herd:: pods_many::

fuzz: install ## parsers and state files against invented input, each target for FUZZ_SECONDS (60)
	tests/fuzz/run.sh

bench: install page ## CPU of a scrape beside node_exporter's, log lines per CPU second
	cargo bench --locked --workspace --bench '*'

# The commit's time: the same commit makes the same image. Another machine's: make image ARCH=arm64
image: export SOURCE_DATE_EPOCH = $(shell git log -1 --format=%ct)
image: ARCH ?= $(shell dpkg --print-architecture)
image: VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
image: ## the container image nodewarden:VERSION, with buildah, podman or docker
	@tool=$$(command -v buildah || command -v podman || command -v docker) \
	  || { echo "buildah, podman or docker is missing: apt-get install buildah" >&2; exit 1; }; \
	set -x; $$tool build --platform=linux/$(ARCH) --tag=nodewarden:$(VERSION) --build-arg=VERSION=$(VERSION) \
	  --build-arg=REVISION=$$(git rev-parse HEAD) --build-arg=SOURCE_DATE_EPOCH=$$SOURCE_DATE_EPOCH \
	  $$(case $$tool in *docker) ;; \
	    *) echo "--timestamp=$$SOURCE_DATE_EPOCH --build-arg=BUILDPLATFORM=linux/$$(dpkg --print-architecture)" ;; esac) $(ARGS) .

install:
	@tests/servers/install.sh

need:
	@command -v cargo > /dev/null || { echo "Rust is missing, 1.95 or later: https://rustup.rs" >&2; exit 1; }
	@command -v npm > /dev/null || { echo "Node is missing, 20.19 or later, with npm: https://nodejs.org" >&2; exit 1; }

# The page is embedded by cargo. Without Node the binary gets one line in its place that says so.
ifneq ($(shell command -v npm),)
page: $(PAGE)/dist/index.html
else
page:
	@echo "Node is missing: the binary is built without its page" >&2
endif

$(PAGE)/node_modules: $(PAGE)/package-lock.json
	cd $(PAGE) && npm ci --no-audit --no-fund
	touch $@

$(PAGE)/dist/index.html: $(PAGE)/node_modules $(PAGE)/index.html $(PAGE)/vite.config.mjs $(shell find $(PAGE)/src $(PAGE)/public -type f 2>/dev/null)
	cd $(PAGE) && npm run build
