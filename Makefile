# What a developer runs. `make test` is what CI runs.
.PHONY: help test lint services services-down demo record-demo soak deny

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

soak: ## Hundreds of kills of the store under load; takes minutes
	cargo test --release -p lacuna-store --test crash -- --ignored --nocapture

deny: ## Licences and advisories of what is linked
	cargo deny check

include bench/bench.mk
