# make run and make test are all a new machine needs: Python 3.11+, make, a package index; for the tests an npm registry too.
# Each target makes the environment it uses under .venv/, once; the second call takes no time.

PYTHON ?= python3
TESTS ?= tests
WORKERS ?= 3
SCENARIO ?= steady
LOAD_OPTIONS = $(if $(SECONDS),--seconds $(SECONDS)) $(if $(STREAMS),--streams $(STREAMS)) $(if $(BUDGETS),--budgets $(BUDGETS)) \
	$(if $(HOST),--host $(HOST)) $(if $(CALL),--call '$(CALL)')

RUN := .venv/run/bin/python
DEV := .venv/dev/bin/python
LEGACY := .venv/legacy/bin/python
LOAD := .venv/load/bin/python
NODE := .venv/clients
ENVIRONMENTS := FASTGW_LOAD_PYTHON=$(CURDIR)/$(LOAD) FASTGW_LEGACY_PYTHON=$(CURDIR)/$(LEGACY) FASTGW_NODE_CLIENTS=$(CURDIR)/$(NODE) FASTGW_SERVERS=$(CURDIR)/.venv
# Tests start hundreds of interpreters: their bytecode is kept, also where the machine is told to keep none.
BYTECODE := PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX=$(CURDIR)/.venv/bytecode
PYTEST := $(ENVIRONMENTS) $(BYTECODE) $(DEV) -m pytest
WHOLE := $(DEV) -m bench edge --only fastgw --reference 'granian + ClientSession' --rounds 3 --seconds 1 --warm 0.3 --drift 3

.PHONY: help run test check format gate baseline bench bench-changes bench-edge bench-limits load load-ui conformance soak clients keycloak screenshot
.PHONY: lock clean
.PHONY: run-env dev-env legacy-env node-env servers-env load-env clients-env keycloak-env

help: ## what each target does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

run: run-env ## the gateway and some MCP servers, until Ctrl-C
	@$(RUN) -m fastgw demo

test: dev-env legacy-env node-env servers-env load-env ## every test but the minutes-long ones
	$(PYTEST) -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m 'not soak and not clients and not keycloak' $(TESTS)

check: dev-env ## format, lint, types, floors
	$(DEV) -m ruff format --check .
	$(DEV) -m ruff check .
	$(DEV) -m mypy
	$(DEV) -m pytest -q tests/test_house.py

format: dev-env ## put the format right, and what lint can mend
	$(DEV) -m ruff format .
	$(DEV) -m ruff check --fix .

bench: dev-env ## CPU per call beside a reference in the same run
	$(DEV) -m bench
	$(DEV) -m bench compile
	$(DEV) -m bench lists
	$(DEV) -m bench limits

bench-changes: dev-env ## latency of calls while a server's list changes once a second
	$(DEV) -m bench changes

bench-edge: dev-env ## what a call costs: eras, settings, a sketch, a forwarder beside nginx; latencies; a plot
	$(DEV) -m bench edge --pairs all --settings all --warm 0.3 --rate 1000 --json docs/performance.json --plot docs/performance.svg

bench-limits: dev-env ## a whole gateway: its limits' buckets in memory, in the embedded store, no limits
	$(DEV) -m bench limits --gateway

gate: dev-env ## whether a request costs more than committed: counts, then pieces and a whole gateway as ratios
	$(DEV) -m bench counts
	$(DEV) -m bench micro
	$(WHOLE) --gate bench/baseline/gateway.json

baseline: dev-env ## write down what a request costs now, in counts; all=1: the ratios, too
	$(DEV) -m bench counts --renew
	$(if $(all),$(DEV) -m bench micro --renew)
	$(if $(all),$(WHOLE) --renew bench/baseline/gateway.json)

load: load-env ## SCENARIO=steady: many agents at once, every answer checked, latencies within budgets
	@$(LOAD) -m loadtests $(SCENARIO) $(LOAD_OPTIONS)

load-ui: load-env ## the same with Locust's web page, until Ctrl-C
	@$(LOAD) -m loadtests $(SCENARIO) --ui $(LOAD_OPTIONS)

conformance: dev-env ## the protocol's conformance suite: two workers, alone and beside a decoy; across eras for the record; as a client
	$(DEV) -m tests.conformance --all
	$(DEV) -m tests.conformance.outbound

soak: dev-env legacy-env node-env ## the minutes-long tests
	$(PYTEST) -m soak $(TESTS)

screenshot: dev-env ## docs/status-page.png anew; needs Debian's chromium
	FASTGW_SCREENSHOTS=docs $(PYTEST) -q tests/admin/test_page.py -k picture

clients: dev-env node-env clients-env ## ten public clients list, call and are refused: what docs/clients.md says
	FASTGW_PUBLIC_CLIENTS=$(CURDIR)/.venv $(PYTEST) -rA -m clients tests/e2e/public_clients

keycloak: dev-env keycloak-env ## a real authorization server drives agents' tokens and servers' credentials; needs Java and Maven
	FASTGW_KEYCLOAK=$(CURDIR)/.venv/keycloak $(PYTEST) -rA -m keycloak tests/e2e/keycloak

lock: dev-env ## choose versions anew for requirements/*.txt
	$(DEV) requirements/lock.py

clean: ## everything make has made
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

run-env:
	@$(PYTHON) requirements/environment.py demo run

dev-env:
	@$(PYTHON) requirements/environment.py dev dev

legacy-env:
	@$(PYTHON) requirements/environment.py legacy-client legacy

node-env:
	@$(PYTHON) requirements/npm.py tests/e2e/clients clients

servers-env:
	@$(PYTHON) requirements/environment.py servers servers
	@$(PYTHON) requirements/environment.py servers-1 servers-1
	@$(PYTHON) requirements/npm.py tests/e2e/real_servers node-servers

load-env:
	@$(PYTHON) requirements/environment.py load load

clients-env:
	@$(PYTHON) requirements/environment.py clients-python clients-python
	@$(PYTHON) requirements/environment.py clients-adk clients-adk
	@$(PYTHON) requirements/environment.py clients-langchain clients-langchain
	@$(PYTHON) requirements/npm.py tests/e2e/public_clients clients-node

keycloak-env:
	@$(PYTHON) requirements/keycloak.py
