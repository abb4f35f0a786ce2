# `make` lists what there is to make.
export CGO_ENABLED ?= 0
SHELL := bash
VENV  := .cache/venv
GO    ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
SOURCES := $(shell find . -name '*.go' -o -name '*.s' -o -name '*.onnx' -o -name '*.html' -o -name go.mod -o -name go.sum | grep -v '^./.cache')

.PHONY: help run demo test race bench peers zoo compare microbench fuzz lint generate check-generated check image reference crosscheck clean

help: ## list the targets
	@grep -hE '^[a-z/-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 22

run: bin/secateur ## serve the built-in models on 127.0.0.1:8500
	bin/secateur serve

demo: bin/secateur ## serve, stream, prune and swap in one process; leaves overlays and a report in demo/
	bin/secateur demo --out demo

bin/secateur: $(SOURCES) ## the static binary
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./cmd/secateur

bin/secateur-ort: $(SOURCES) ## the binary that can open ONNX Runtime, for comparisons
	$(GO) build -trimpath -tags ort -ldflags '$(LDFLAGS)' -o $@ ./cmd/secateur

test: ## all tests
	$(GO) vet ./...
	$(GO) test ./...

race: ## the race detector, where things are shared
	CGO_ENABLED=1 $(GO) test -race -short ./engine/... ./server/...

bench: bin/secateur-ort ## the engine beside ONNX Runtime, whose library $$SECATEUR_ORT_LIB names
	@if [ -n "$$SECATEUR_ORT_LIB" ]; then bin/secateur-ort bench --vs ort; else \
	  echo "SECATEUR_ORT_LIB is not set (libonnxruntime.so.1, as in the npm package onnxruntime-node): timing the engine alone"; bin/secateur-ort bench; fi

peers: bin/secateur $(VENV)-bench/ok ## the engine beside ONNX Runtime, OpenVINO, PyTorch, MNN and ncnn, from their Python wheels; writes docs/PERFORMANCE.md
	$(VENV)-bench/bin/python scripts/bench_peers.py

zoo: bin/secateur-ort $(VENV)-zoo/ok ## some fifty networks of public packages, exported, run beside ONNX Runtime, and pruned; writes docs/MODELS.md
	$(VENV)-zoo/bin/python scripts/zoo.py

compare: bin/secateur $(VENV)-tp/ok ## prune the trained models here and with Torch-Pruning; MODELS and DATA are folders; hours; writes docs/measured and docs/pruning-curve.svg
	scripts/compare_torch_pruning.sh $(VENV)-tp/bin/python $(MODELS) $(DATA)

microbench: ## the benchmarks of kernels
	$(GO) test -run '^$$' -bench . -benchmem ./engine/... ./pruner/...

fuzz: ## every fuzz target for a short while
	scripts/fuzz.sh 20s

lint: ## protos and Go
	scripts/lint-proto.sh
	$(GO) tool -modfile=scripts/tools/lint/go.mod golangci-lint run ./...

generate: ## everything generated: protobuf, gRPC, assembly, tables in the documentation
	scripts/generate.sh

check-generated: generate
	git diff --exit-code
	@test -z "$$(git status --porcelain --untracked-files=normal -- api engine/onnx/internal engine/kernel docs README.md)" || { git status --porcelain; exit 1; }

reference: $(VENV)/ok ## compare with ONNX Runtime, OpenCV and Pillow, from their Python wheels
	scripts/reference.sh

$(VENV)/ok: scripts/requirements.txt
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install -q -r scripts/requirements.txt
	touch $@

$(VENV)-%/ok: scripts/requirements-%.txt
	python3 -m venv $(VENV)-$*
	$(VENV)-$*/bin/pip install -q -r $<
	touch $@

$(VENV)-tp/ok: scripts/requirements-torch-pruning.txt
	python3 -m venv $(VENV)-tp
	$(VENV)-tp/bin/pip install -q -r scripts/requirements-torch-pruning.txt
	touch $@

check: check-generated lint test race reference ## all of it, as continuous integration does

# Folders of models that people keep: $SECATEUR_ZOO, .cache/zoo.
ZOO := $(wildcard $(SECATEUR_ZOO) .cache/zoo)

comma := ,
crosscheck: bin/secateur-ort ## every network of the zoo, and models in $$SECATEUR_ZOO or .cache/zoo, through all backends
	$(GO) run ./scripts/zoo .cache/crosscheck
	@[ -n "$$SECATEUR_ORT_LIB" ] || echo "SECATEUR_ORT_LIB is not set: without ONNX Runtime"
	bin/secateur-ort diff --backends native,gorgonia$(if $(SECATEUR_ORT_LIB),$(comma)ort) --model deploy/models,.cache/crosscheck $(ZOO:%=--model %)

image: ## the container image
	docker build -t secateur:$(VERSION) .

clean: ## what was built
	rm -rf bin demo
