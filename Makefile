# Everything runs in .venv; the marker file makes the set-up happen once per change of the lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Node.js comes as a wheel, so that Python is all it takes.
NPM := PATH="$(CURDIR)/$(BIN):$$PATH" npm --loglevel error --prefix
JS_READY := clients/js/node_modules/.ready
DOCUMENTS_READY := tests/documents/node_modules/.ready
FRONTEND_READY := tests/browser/frontend/node_modules/.ready
PYTEST := $(BIN)/pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

# Debian's Python comes without the means to make an environment.
CAN_INSTALL := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
NEEDED := needs Python 3.11 or newer with its venv module (Debian: apt-get install python3-venv)

.PHONY: help run test unit test-all failed bare lint format client conformance upgrade manifests lock bench autobahn clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: $(READY)  ## a node with an embedded Valkey on 127.0.0.1:8080; ARGS="--port 8081" for another
	@$(BIN)/pushsvc dev $(ARGS)

test: $(READY) $(JS_READY)  ## what is promised, in minutes, on a bare machine; ARGS="path" for any file
	@$(BIN)/python -m tests.browser.chromium
	@$(PYTEST) --promise $(ARGS)

test-all: $(READY) $(JS_READY) $(DOCUMENTS_READY) $(FRONTEND_READY)  ## every test, with all programs they need: none may be skipped
	@$(BIN)/python -m tests.browser.chromium
	@$(PYTEST) --no-skips $(ARGS)

failed: $(READY)  ## the tests that failed last, one at a time
	@$(BIN)/pytest --no-skips --last-failed --last-failed-no-failures none --maxfail 3 $(ARGS)

bare: $(READY)  ## `make run` and `make test` in a Debian that has nothing else; needs root and debootstrap
	@$(BIN)/python -m tests.deploy.bare $(ARGS)

unit: $(READY)  ## the tests that need no server, in seconds
	@$(BIN)/pytest --numprocesses 2 --dist loadfile tests/unit $(ARGS)

lint: $(READY) $(JS_READY)  ## formatting, lint, types, import directions; the built client is current
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(NPM) clients/js run --silent check

format: $(READY) $(JS_READY)  ## apply the formatter and the safe lint fixes
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
	@$(NPM) clients/js run --silent format

client: $(READY) $(JS_READY)  ## build the JavaScript client, also into the package that serves it
	@$(NPM) clients/js run --silent build

conformance: $(READY) $(JS_READY)  ## what every client has to do; ARGS="-- your driver" for another
	@$(BIN)/python -m conformance $(ARGS)

upgrade: $(READY)  ## nodes of an earlier version beside these under load, both ways; FROM=a git ref
	@$(BIN)/python -m tests.cluster.upgrade --from $(or $(FROM),HEAD) $(ARGS)

manifests: $(READY)  ## write k8s/ and the chart's schema and README from the chart and the settings
	@$(BIN)/python -m tests.deploy.chart

autobahn: $(READY)  ## the framing against the Autobahn test suite; needs a Python 2.7
	@$(BIN)/python -m tests.autobahn.run

bench: $(READY)  ## the measured claims: memory, handshakes, acknowledged notifications; ARGS="peers" for other servers beside
	@$(BIN)/python -m bench $(ARGS)

lock: $(READY)  ## pin the newest versions of Python packages, with hashes; those of the image too
	@$(BIN)/pip install --quiet uv
	@$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --extra dev \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
		--output-file requirements.txt pyproject.toml
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra server --extra otel --extra push \
		--constraint requirements.txt \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
		--output-file requirements-runtime.txt pyproject.toml

$(READY): requirements.txt pyproject.toml
	@test -x $(BIN)/pip || $(PYTHON) -c "$(CAN_INSTALL)" 2>/dev/null || { echo >&2 "$(NEEDED)"; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "installing the pinned requirements into $(VENV) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(READY)

$(JS_READY): clients/js/package-lock.json $(READY)
	@echo "installing the pinned tools of the JavaScript client ..."
	@$(NPM) clients/js ci --ignore-scripts --no-audit --no-fund
	@touch $(JS_READY)

$(DOCUMENTS_READY): tests/documents/package-lock.json $(READY)
	@echo "installing the pinned validators and generators of the documents ..."
	@$(NPM) tests/documents ci --ignore-scripts --no-audit --no-fund
	@touch $(DOCUMENTS_READY)

$(FRONTEND_READY): tests/browser/frontend/package-lock.json $(READY)
	@echo "installing what the recipe for a front end is run with ..."
	@$(NPM) tests/browser/frontend ci --ignore-scripts --no-audit --no-fund
	@touch $(FRONTEND_READY)

clean:  ## remove the environment and all caches
	rm -rf $(VENV) clients/js/node_modules clients/js/dist tests/browser/node_modules tests/browser/frontend/node_modules tests/documents/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
