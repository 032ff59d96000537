# `make demo` and `make test` are enough on a fresh Debian machine with Go and npm; they install what is missing.
SHELL := /bin/bash
.DELETE_ON_ERROR:
ENGINE ?= oci
ISOLATION ?= $(if $(filter docker,$(ENGINE)),runc,gvisor)
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
RUNSC_VERSION := 20260224.0
GEN := $(CURDIR)/.cache/gen
export PADDOCK_RUNSC ?= $(CURDIR)/bin/runsc
export PADDOCK_RUNC ?= $(CURDIR)/bin/runc

.PHONY: simulate all build tools setup demo run cluster image test chaos chaos-broken vm-cgroup2 trace bench generate verify licences vulncheck sbom fuzz clean help

all: build

help: ## what there is to make
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: ## install what is missing (as root), else say what to install
	@scripts/setup.sh $(if $(filter docker,$(ENGINE)),docker,build)

build: setup tools ## bin/paddock, bin/runsc, bin/runc
	go build -trimpath -ldflags "-X main.version=$(VERSION)" -o bin/paddock ./cmd/paddock

tools: bin/runsc bin/runc

bin/runsc: tools/runsc/go.mod tools/runsc/go.sum
	@echo "building runsc (gVisor), about a minute"
	cd tools/runsc && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X gvisor.dev/gvisor/runsc/version.version=$(RUNSC_VERSION)" -o ../../$@ gvisor.dev/gvisor/runsc

bin/runc: tools/runc/go.mod tools/runc/go.sum
	@echo "building runc"
	cd tools/runc && CGO_ENABLED=1 go build -trimpath -tags seccomp -ldflags "-s -w" -o ../../$@ github.com/opencontainers/runc

demo: build ## the main job, start to end; ENGINE=docker, ISOLATION=runc do the same elsewhere
	go run ./examples/demo -paddock bin/paddock -engine $(ENGINE) -isolation $(ISOLATION)

run: build ## serve until Ctrl-C
	bin/paddock up --engine $(ENGINE) --isolation $(ISOLATION)

cluster: build ## three store members, three controllers, two routers on this machine until Ctrl-C
	@ISOLATION=$(ISOLATION) PADDOCK_BIN=$(CURDIR)/bin/paddock scripts/cluster.sh

image: tools ## our container image, FROM scratch, by docker; IMAGE=paddock:latest
	@VERSION=$(VERSION) scripts/image.sh $(or $(IMAGE),paddock:latest)

test: ## everything, with the race detector, on every engine
	@scripts/test.sh

vm-cgroup2: tools ## control groups on cgroup v2 alone, in an emulated machine
	@test/vm/run.sh

trace: build ## under strace: the service touches no path that a tenant can write, on every engine
	@command -v strace >/dev/null || { echo "trace: strace is missing: apt-get install strace" >&2; exit 1; }
	PADDOCK_BIN=$(CURDIR)/bin/paddock go test -tags trace -count=1 -v -run TouchesNoTenantPath ./test/trace

hostile: HOSTILE_TAGS := -tags hostile
hostile hostile-quick: ENGINE := docker
hostile: build hostile-run ## every attack of test/hostile on every engine, with a table (a quarter of an hour)

hostile-quick: build hostile-run ## the attacks that stand for each group, as make test runs them

.PHONY: hostile hostile-quick hostile-run
hostile-run:
	@mkdir -p .cache && rm -f .cache/hostile.txt
	@PADDOCK_BIN=$(CURDIR)/bin/paddock go test $(HOSTILE_TAGS) -count=1 -timeout 60m -v ./test/hostile -hostile.table $(CURDIR)/.cache/hostile.txt; \
	  status=$$?; tail -n 1 .cache/hostile.txt; exit $$status

SEED ?= 1
chaos: KIND = $(if $(filter file,$(origin ISOLATION)),runc,$(ISOLATION))
chaos: build ## every fault on a cluster on this machine, in the order of SEED=n, with a table (a quarter of an hour; ISOLATION=gvisor)
	@mkdir -p .cache && rm -f .cache/chaos.txt
	@PADDOCK_BIN=$(CURDIR)/bin/paddock go test -count=1 -timeout 90m -v -run TestChaos ./test/chaos -chaos.long -chaos.seed $(SEED) \
	  -chaos.isolation $(KIND) -chaos.table $(CURDIR)/.cache/chaos.txt -chaos.logs $(CURDIR)/.cache/chaos $(CHAOS); \
	  status=$$?; tail -n 1 .cache/chaos.txt; exit $$status

chaos-broken: tools ## a build without latch and guards in the same cluster: the checkers must notice (a minute and a half)
	go test -count=1 -timeout 20m -v -run 'TestChaos|Checkers' ./test/chaos -chaos.broken -chaos.fault F3,F11

simulate: CONTROLLERS ?= 1000
simulate: SEED ?= 1
simulate: ## a thousand controllers and a million tenants in virtual time, against bars (SEED=n, CONTROLLERS=n); docs/scale.md
	@mkdir -p .cache && rm -f .cache/simulate.txt
	@go test -count=1 -timeout 20m ./test/simulate -run TestFleet -simulate.controllers $(CONTROLLERS) -simulate.seed $(SEED) -simulate.table $(CURDIR)/.cache/simulate.txt; \
	  status=$$?; cat .cache/simulate.txt; exit $$status

bench: build ## the figures, against a bare node server in the same run
	go run ./bench -paddock bin/paddock

generate: $(GEN)/buf ## protobuf, gRPC, gateway and OpenAPI code
	cd proto && PATH="$(GEN):$$PATH" buf lint && PATH="$(GEN):$$PATH" buf generate

$(GEN)/buf: tools/gen/go.mod
	mkdir -p $(GEN)
	cd tools/gen && GOBIN=$(GEN) go install github.com/bufbuild/buf/cmd/buf google.golang.org/protobuf/cmd/protoc-gen-go \
	  google.golang.org/grpc/cmd/protoc-gen-go-grpc github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-grpc-gateway \
	  github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-openapiv2

verify: licences ## gofmt, vet, licences, govulncheck of paddock (NOT CHECKED, said so, where its database cannot be reached)
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	go vet ./...
	@scripts/vulncheck.sh paddock

licences: ## the licences of everything that is shipped, against the list in internal/supply
	go run ./internal/supply licences

vulncheck: ## known vulnerabilities; asks databases on the network, and fails if they cannot be reached
	@scripts/vulncheck.sh

sbom: ## bin/paddock.cdx.json: what paddock, runsc, runc and the node image are made of (CycloneDX)
	@mkdir -p bin
	go run ./internal/supply sbom $(VERSION) > bin/paddock.cdx.json
	@echo bin/paddock.cdx.json

fuzz: ## every fuzz target for TIME (30s) each
	@scripts/fuzz.sh $(TIME)

clean: ## what was built; the runtime image's cache stays
	rm -rf bin .cache
