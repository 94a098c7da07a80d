# What a developer runs. `make test` is what CI runs.
.PHONY: help test lint services services-down demo record-demo soak fuzz deny

SERVICES := scripts/services

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

test: lint ## Formatting, lints and every test, against real Redis, PostgreSQL and Kafka
	@$(SERVICES) up >/dev/null
	@eval "$$($(SERVICES) env)" && cargo test --workspace --all-features; \
	    status=$$?; $(SERVICES) down; exit $$status

lint: ## Formatting and lints
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings

services: ## Start Redis, PostgreSQL and Kafka, print their URLs
	@$(SERVICES) up

services-down: ## Stop them
	@$(SERVICES) down

demo: ## The incident, found
	cargo run --release -- demo

record-demo: ## Record demo/incident.otlp.jsonl.zst from the real pipeline
	@$(SERVICES) up >/dev/null
	@eval "$$($(SERVICES) env)" && scripts/record-demo

SOAK_MINUTES ?= 10

soak: ## Hundreds of kills of the store, a recorded day, a whole server under load for SOAK_MINUTES
	cargo test --release -p lacuna-store --test crash -- --ignored --nocapture
	cargo test --release -p lacuna --test outside -- --ignored --nocapture the_whole_day
	cargo build --release -p lacuna -p lacuna-bench
	$(BENCH) soak $(BENCH_LACUNA) --minutes $(SOAK_MINUTES)

FUZZ_SECONDS ?= 60
FUZZ_TARGETS := $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))

fuzz: ## Every fuzz target for FUZZ_SECONDS; needs a nightly compiler and cargo-fuzz
	@cargo fuzz --version >/dev/null || { echo "cargo install cargo-fuzz" >&2; exit 2; }
	@for target in $(FUZZ_TARGETS); do \
	    cargo +nightly fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS) -max_len=65536 || exit 1; \
	done

deny: ## Licences and advisories of what is linked
	cargo deny check

include bench/bench.mk
