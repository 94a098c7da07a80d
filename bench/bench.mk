# Measurements of the real `lacuna serve`; each prints its figures. Included by the Makefile.
# More options: BENCH_ARGS="--spans 5000000", or the commands' own --help.
CARGO ?= cargo
BENCH_TARGET := $(or $(CARGO_TARGET_DIR),target)/release
BENCH := $(BENCH_TARGET)/lacuna-bench
BENCH_LACUNA := --lacuna $(BENCH_TARGET)/lacuna

.PHONY: bench-build bench bench-baselines bench-ingest bench-ingest-sdk bench-ingest-http \
	bench-ingest-gzip bench-steady bench-query bench-restart bench-monitor bench-instrument \
	bench-pipeline

bench-build:
	$(CARGO) build --release -p lacuna -p lacuna-bench

# What the machine does without Lacuna.
bench-baselines: bench-build ## What this machine does without Lacuna
	$(BENCH) ingest --only-baselines $(BENCH_ARGS)

# As Collectors send: 8192 spans a request over gRPC.
bench-ingest: bench-build ## Durable ingest of 10 million spans over gRPC
	$(BENCH) ingest $(BENCH_LACUNA) --spans 10000000 $(BENCH_ARGS)

# As SDKs send: 512 spans a request over many connections.
bench-ingest-sdk: bench-build ## Durable ingest, 512 spans a request, many connections
	$(BENCH) ingest $(BENCH_LACUNA) --batch 512 --connections 16 --in-flight 2 $(BENCH_ARGS)

bench-ingest-http: bench-build ## Durable ingest over HTTP
	$(BENCH) ingest $(BENCH_LACUNA) --transport http $(BENCH_ARGS)

bench-ingest-gzip: bench-build ## Durable ingest, compressed
	$(BENCH) ingest $(BENCH_LACUNA) --gzip $(BENCH_ARGS)
	$(BENCH) ingest $(BENCH_LACUNA) --gzip --transport http $(BENCH_ARGS)

# Ten million spans at 50 000 a second: memory and latency at a steady load.
bench-steady: bench-build ## 50 000 spans/s for 200 s: memory, latency
	$(BENCH) ingest $(BENCH_LACUNA) --spans 10000000 --rate 50000 --batch 2048 $(BENCH_ARGS)

bench-query: bench-build ## Queries over 10 million spans of 24 h
	$(BENCH) query $(BENCH_LACUNA) $(BENCH_ARGS)

bench-restart: bench-build ## Start after kill -9 with 1 GiB of log
	$(BENCH) restart $(BENCH_LACUNA) $(BENCH_ARGS)

bench-monitor: bench-build ## Contracts: events/s, memory, ingest with and without, deadline to notice
	$(CARGO) bench -p lacuna-contract --bench monitor
	$(BENCH) notice $(BENCH_LACUNA)
	$(BENCH) ingest $(BENCH_LACUNA) --spans 1000000 --contracts bench/contracts $(BENCH_ARGS)

# What the instrumentation costs. Both need Redis, the second PostgreSQL and Kafka too.
bench-instrument: ## A span of each part against one by hand; share of round trips to Redis, PostgreSQL, Kafka
	@$(SERVICES) up >/dev/null
	@eval "$$($(SERVICES) env)" && $(CARGO) bench -p lacuna-instrument --all-features --bench cost

bench-pipeline: ## The pipeline's throughput and CPU with all instrumentation on and off
	$(CARGO) build --release -p pipeline
	@$(SERVICES) up >/dev/null
	@eval "$$($(SERVICES) env)" && \
	    $(BENCH_TARGET)/pipeline bench --namespace bench$$(date +%s) $(BENCH_ARGS)

bench: ## All of them, one after another
bench: bench-baselines bench-ingest bench-ingest-sdk bench-ingest-http bench-ingest-gzip \
	bench-steady bench-query bench-restart
