# Everything runs from a clean clone: .venv is made when it is missing and brought up to date when setup.cfg changes.
.DEFAULT_GOAL := help
.PHONY: help ui demo test test-slow lint wheels benchmarks clean
PYTHON ?=
export PYTHON
RUN := .venv/bin/python
# Most tests wait for processes. Files stay whole: each starts the servers that it needs once.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | while IFS="$$(printf '\t')" read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done

demo: ## train, deploy to three devices and watch: the whole story in a minute (ARGS=--exit stops by itself)
	@scripts/make-venv sklearn
	@$(RUN) examples/demo.py $(ARGS)

test: ## run the tests (ARGS goes to pytest)
	@scripts/make-venv test,lint
	@scripts/install-system-packages
	$(RUN) -m pytest $(PARALLEL) $(ARGS)

test-slow: ## run the long tests as well
	@scripts/make-venv test,lint
	@scripts/install-system-packages
	$(RUN) -m pytest $(PARALLEL) -m "slow or not slow" $(ARGS)

lint: ## ruff, format, types and import rules
	@scripts/make-venv test,lint
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	.venv/bin/lint-imports
	$(RUN) scripts/ui_types.py --check
	$(RUN) scripts/ui_stamp.py --check

ui: ## build the tab of MLflow's UI anew from ui_extension/ (needs node; installing and testing do not)
	@scripts/make-venv test,lint
	$(RUN) scripts/ui_types.py
	cd ui_extension && npm ci --no-audit --no-fund && npm run check && npm run build
	$(RUN) scripts/ui_stamp.py

wheels: ## build both wheels into dist/
	@scripts/make-venv test,lint
	@rm -rf dist build packaging/agent/build
	$(RUN) -m build --wheel --outdir dist .
	$(RUN) -m build --wheel --outdir dist packaging/agent

benchmarks: ## run the benchmarks (ARGS names one file)
	@scripts/make-venv test,lint
	@for file in $(or $(ARGS),$(wildcard benchmarks/bench_*.py)); do echo "== $$file"; $(RUN) "$$file" || exit 1; done

clean: ## remove what was built, and .venv
	rm -rf .venv build dist packaging/agent/build *.egg-info packaging/agent/*.egg-info
