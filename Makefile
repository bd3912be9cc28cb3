# The one menu of commands. `make` lists it.
SHELL := /bin/bash
target := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help setup build demo demo-s3 test lint doc bench-step chaos clean-demo

help: ## Lists the commands
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Fetches protoc and libtorch (done by the others where needed)
	@infra/setup.sh

build: setup ## Builds the command: target/debug/forebay, and forebay-torch beside it
	cargo build --workspace

demo: build ## The main job on real input: ingest, version, train with a kill, evaluate, generate (after the build: 4 min)
	infra/demo/run.sh lake/demo

demo-s3: build ## The same against a real S3 server that it starts
	infra/demo/run-s3.sh

test: setup ## All tests, the S3 ones against a real server that it starts
	infra/test.sh

lint: setup ## Format and clippy, warnings denied
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

doc: setup ## The documentation of our crates, warnings denied
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

bench-step: build ## Training step against eager PyTorch, side by side (by hand, on a quiet machine)
	infra/bench/step_time/run.sh

chaos: build ## Trains under 200 faults on any process, the coordinator included, and audits the run (by hand, 10 min)
	infra/chaos/chaos.py

clean-demo: ## Deletes what the demos wrote
	rm -rf lake/demo
