# What each target does: make help.

GO ?= go
FUZZTIME ?= 60s
# One package at a time: a command says so when it puts right what another one's killed test left.
TESTFLAGS ?= -count=1 -timeout=40m -p=1
BIN := bin/ipc-cr
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null)
LDFLAGS := $(if $(VERSION),-ldflags '-X main.version=$(VERSION)')
TOOL := $(GO) tool -modfile=hack/tools/go.mod

.DEFAULT_GOAL := help
.PHONY: help build demo tools test e2e bench picture fuzz lint fmt generate clean

help: ## list the targets
	@sed -En 's/^([a-z0-9-]+):.*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

build: ## build bin/ipc-cr, static
	CGO_ENABLED=0 $(GO) build -trimpath $(LDFLAGS) -o $(BIN) ./cmd/ipc-cr

demo: build ## see it work on real queues, without root and without CRIU
	$(GO) run ./hack/demo $(BIN)

tools: ## install the missing programs that the tests drive (root on Debian; elsewhere it says what is missing)
	@hack/install-tools

test: tools ## all tests, e2e included; those that need what is not here are skipped unless IPC_CR_REQUIRE names it
	$(GO) test $(TESTFLAGS) ./...

e2e: tools ## only the tests with criu, runc and podman
	$(GO) test $(TESTFLAGS) ./e2e/...

bench: build tools ## measure against two C programs: CRIU's way, and the floor
	hack/bench/run

picture: build tools ## measure how long tasks stand still, and draw docs/frozen.svg (root, some minutes)
	$(GO) run ./hack/bench/frozen -bin $(BIN) -o docs/frozen.svg

fuzz: ## each fuzz target for FUZZTIME (60s)
	hack/fuzz $(FUZZTIME)

lint: ## golangci-lint, and shellcheck for the scripts
	$(TOOL) golangci-lint run ./...
	hack/lint-scripts

fmt: ## gofmt everything
	gofmt -w .

generate: ## regenerate the generated files
	$(GO) generate ./...

clean: ## remove what build made
	rm -rf bin
