# Everything runs in .venv; the marker file makes the set-up happen once per change of the lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Node.js comes as a wheel, so that Python is all it takes.
NPM := PATH="$(CURDIR)/$(BIN):$$PATH" npm --prefix clients/js --loglevel error
JS_READY := clients/js/node_modules/.ready

.PHONY: help run test lint format client conformance manifests lock bench autobahn clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: $(READY)  ## a node with an embedded Valkey on 127.0.0.1:8080; ARGS="--port 8081" for another
	@$(BIN)/pushsvc dev $(ARGS)

test: $(READY) $(JS_READY)  ## the whole test suite against real servers and a real browser
	@$(BIN)/pytest --numprocesses 3 --dist loadfile $(ARGS)

lint: $(READY) $(JS_READY)  ## formatting, lint, types, import directions; the built client is current
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(NPM) run --silent check

format: $(READY) $(JS_READY)  ## apply the formatter and the safe lint fixes
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
	@$(NPM) run --silent format

client: $(READY) $(JS_READY)  ## build the JavaScript client, also into the package that serves it
	@$(NPM) run --silent build

conformance: $(READY) $(JS_READY)  ## what every client has to do; ARGS="-- your driver" for another
	@$(BIN)/python -m conformance $(ARGS)

manifests: $(READY)  ## write k8s/ and the chart's schema and README from the chart and the settings
	@$(BIN)/python -m tests.deploy.chart

autobahn: $(READY)  ## the framing against the Autobahn test suite; needs a Python 2.7
	@$(BIN)/python -m tests.autobahn.run

bench: $(READY)  ## the measured claims: memory, handshakes, acknowledged notifications
	@$(BIN)/python -m bench

lock: $(READY)  ## pin the newest versions of Python packages, with hashes; those of the image too
	@$(BIN)/pip install --quiet uv
	@$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --extra dev \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
		--output-file requirements.txt pyproject.toml
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra otel \
		--constraint requirements.txt \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
		--output-file requirements-runtime.txt pyproject.toml

$(READY): requirements.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the pinned requirements into $(VENV) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(READY)

$(JS_READY): clients/js/package-lock.json $(READY)
	@echo "installing the pinned tools of the JavaScript client ..."
	@$(NPM) ci --ignore-scripts --no-audit --no-fund
	@touch $(JS_READY)

clean:  ## remove the environment and all caches
	rm -rf $(VENV) clients/js/node_modules clients/js/dist .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
