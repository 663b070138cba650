# make help lists the targets.
export GOFLAGS := -buildvcs=false

TOOLS      := $(CURDIR)/.tools/bin
UNIT        = $(shell go list ./... 2>/dev/null | grep -v '/test$$')
VERSION    := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
BUILDINFO  := github.com/prometheus/common/version
LDFLAGS    := -s -w -X $(BUILDINFO).Version=$(VERSION) -X $(BUILDINFO).Revision=$(shell git rev-parse --short HEAD 2>/dev/null)
FUZZTIME   ?= 20s
BENCHTIME  ?= 1s
SOAK_DURATION ?= 30m
SHARING_DURATION ?= 30m

# Pinned: a new version is a change like any other.
PROMETHEUS  := github.com/prometheus/prometheus/cmd/prometheus@v0.316.0
VERSITYGW   := github.com/versity/versitygw/cmd/versitygw@v1.8.0
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: help run build unit test e2e race lint fuzz bench bench-ingest bench-faults bench-store bench-compact bench-sidecar bench-rule bench-tenants soak soak-sharing proto tools clean

help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: ## run everything in one process, with data in ./data
	go run ./cmd/hearth

build: ## build bin/hearth
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/hearth ./cmd/hearth

unit: ## tests that need nothing but Go
	go test -timeout 10m $(UNIT)

test: tools unit e2e ## every test; installs the real servers it needs into .tools/

e2e: tools ## real processes: Hearth, Prometheus, S3
	go test -timeout 20m -count 1 -parallel 3 ./test

race: ## unit tests under the race detector
	CGO_ENABLED=1 go test -race -timeout 20m $(UNIT)

# stdmethods: chunkenc.Iterator asks for a Seek that is not io.Seeker's.
lint: $(TOOLS)/staticcheck ## gofmt, go vet, staticcheck, the rules of internal/lint
	@unformatted=$$(git ls-files '*.go' | grep -v '\.pb\.go$$' | xargs gofmt -l); test -z "$$unformatted" || { echo "not gofmt-ed: $$unformatted"; exit 1; }
	go vet -stdmethods=false ./...
	$(TOOLS)/staticcheck ./...
	go mod tidy -diff
	go test ./internal/lint

# Without -fuzzminimizetime a minute goes into making one input smaller: FuzzReadMeta then makes no execution for long,
# and 400 a second with it.
fuzz: ## each fuzz target for FUZZTIME
	@set -e; for pkg in $(UNIT); do \
	  for target in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "$$pkg $$target"; go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$pkg; \
	  done; done

bench: ## Go benchmarks of the hot paths
	go test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) ./bench ./internal/wire ./internal/series ./ring/... ./tsdb ./distributor

# Binaries of peers are not ours to install: PEERS is a folder with thanos, prometheus, victoria-metrics; any may be absent.
PEERS ?=
bench-ingest: build ## CPU, memory, latency of ingest beside the peers in PEERS=dir
	go run ./bench/ingest -peers "$(PEERS)" -out docs/benchmarks/ingest.md $(BENCHFLAGS)

bench-faults: build ## what writers notice of a member that is stopped, dark, full, damaged or killed; root for all of it
	go run ./bench/faults -out docs/benchmarks/faults.md $(BENCHFLAGS)

bench-store: build ## store gateways beside Thanos's on the same buckets; PEERS=dir has thanos and versitygw
	go run ./bench/store -peers "$(PEERS)" -out docs/benchmarks/store.md $(BENCHFLAGS)

bench-compact: build ## compactors beside Thanos's on the same buckets; PEERS=dir has thanos and versitygw
	go run ./bench/compact -peers "$(PEERS)" -out docs/benchmarks/compact.md $(BENCHFLAGS)

bench-sidecar: build ## sidecars beside Thanos's on one Prometheus; PEERS=dir has thanos
	go run ./bench/sidecar -peers "$(PEERS)" -out docs/benchmarks/sidecar.md $(BENCHFLAGS)

bench-rule: build ## rulers that share groups, beside Thanos's; PEERS=dir has thanos
	go run ./bench/rule -peers "$(PEERS)" -out docs/benchmarks/rule.md $(BENCHFLAGS)

bench-tenants: build ## what thousands of tenants cost a receiver: memory, descriptors, restarts
	go run ./bench/tenants -out docs/benchmarks/tenants.md $(BENCHFLAGS)

soak: tools ## receivers killed, cut off, drained and robbed of their disks under load for SOAK_DURATION; takes root
	SOAK_DURATION=$(SOAK_DURATION) go test -timeout 0 -count 1 -v -run 'TestSoak$$' ./test

soak-sharing: ## store gateways that share a bucket killed, stopped and joined under load for SHARING_DURATION
	SHARING_DURATION=$(SHARING_DURATION) go test -timeout 0 -count 1 -v -run 'TestSharingLong$$' ./test

proto: ## generate internal/pb again from its .proto files
	internal/pb/generate.sh

tools: $(TOOLS)/prometheus $(TOOLS)/versitygw $(TOOLS)/staticcheck ## install the programs that tests need

# Prometheus without its service discovery builds in a third of the time.
$(TOOLS)/prometheus:
	GOBIN=$(TOOLS) go install -tags remove_all_sd $(PROMETHEUS)

$(TOOLS)/versitygw:
	GOBIN=$(TOOLS) go install $(VERSITYGW)

$(TOOLS)/staticcheck:
	GOBIN=$(TOOLS) go install $(STATICCHECK)

clean: ## remove what was built and the tools
	rm -rf bin .tools
