# Everything is installed inside this checkout; nothing needs root. `make up` and `make test` call `make install`.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# The first Python that can run the hub. PYTHON=… overrides.
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3.14 python3,$(shell \
	$(p) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $(p))))
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check --no-input
export PIP_DISABLE_PIP_VERSION_CHECK = 1

PORT ?= 8000
DATA ?= .data
MARKERS ?= not slow
# Most tests wait for processes, timers and disks: two at a time end in half the time. What measures runs alone. In their
# own order the many short ones come last, and neither of the two waits for a long one of the other.
WORKERS ?= 2

.PHONY: help install install-test up test test-hub5 test-all check format bench python clean

help:
	@echo "make up        install what is needed, start the hub on 127.0.0.1:$(PORT), print the demo users"
	@echo "               LOGIN=oidc OIDC_ISSUER=… OIDC_CLIENT_ID=…: with an identity provider instead (README)"
	@echo "make test      install what is needed, run the whole suite"
	@echo "make test-all  the same with long soaks, large benches, podman and the frameworks"
	@echo "make check     format, lint, types, import rules"
	@echo "make bench     benchmarks beside their peers, JSON on stdout, plot in docs/"

python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or later with venv found (on Debian: apt-get install python3 python3-venv); or say PYTHON=/path/to/python." >&2; exit 1; }

# Side by side: most of the time is spent waiting for downloads.
install:
	@$(MAKE) --silent --no-print-directory --jobs=3 .venv/.installed .venv-notebook/.installed build/gpu-check.pyz

# One environment for the hub, the sidecar and the checks; the notebook's own stands beside it and shares nothing.
.venv/.installed: locks/local.txt pyproject.toml | python
	@echo "Installing the hub and the sidecar into .venv …" >&2
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@.venv/bin/python $(PIP_INSTALL) --require-hashes -r locks/local.txt
	@.venv/bin/python $(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

.venv-notebook/.installed: locks/notebook.txt | python
	@echo "Installing JupyterLab into .venv-notebook …" >&2
	@test -x .venv-notebook/bin/python || $(PYTHON) -m venv .venv-notebook
	@.venv-notebook/bin/python $(PIP_INSTALL) --require-hashes -r locks/notebook.txt
	@touch $@

build/gpu-check.pyz: .venv/.installed locks/gpu-check.txt LICENSE $(wildcard gpu_checks/*.py images/*)
	@mkdir -p build
	@.venv/bin/python images/build_zipapp.py --output $@

install-test:
	@$(MAKE) --silent --no-print-directory --jobs=3 .venv-notebook/.installed build/gpu-check.pyz .venv/.installed-test .venv-hub5/.installed

.venv/.installed-test: locks/test.txt .venv/.installed
	@echo "Installing the test tools into .venv …" >&2
	@.venv/bin/python $(PIP_INSTALL) --require-hashes -r locks/test.txt
	@touch $@

# jupyterhub 5.5, which the Zero to JupyterHub chart pins: the unit tests run on it too.
.venv-hub5/.installed: locks/test-jupyterhub5.txt pyproject.toml | python
	@echo "Installing jupyterhub 5.5 into .venv-hub5 …" >&2
	@test -x .venv-hub5/bin/python || $(PYTHON) -m venv .venv-hub5
	@.venv-hub5/bin/python $(PIP_INSTALL) --require-hashes -r locks/test-jupyterhub5.txt
	@.venv-hub5/bin/python $(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

up: install
	@exec .venv/bin/jupyterhub-sidecar up --port "$(PORT)" --data "$(DATA)"

test: install-test
	@$(MAKE) --silent --no-print-directory --jobs=2 --output-sync=target check test-hub5
	@.venv/bin/python -m pytest -m "$(MARKERS)" --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder

# What imports no jupyterhub, kubespawner or oauthenticator is the same for every version of them.
PURE = claims cli groups images local_server original_deployment placement policy_file policy_schema quantity resolve text
test-hub5: .venv-hub5/.installed
	@.venv-hub5/bin/python -m pytest -q -m "not slow and not browser" tests/unit/hub $(PURE:%=--ignore=tests/unit/hub/test_%.py)

test-all: MARKERS = slow or not slow
test-all: WORKERS = 0
test-all: .venv-frameworks/.installed test

# Not locked: the CPU and the CUDA build of one version differ in their hashes, and which of them pip gets is for the
# machine's own settings to say. 2.5 GB with builds for the CPU.
.venv-frameworks/.installed: | python
	@echo "Installing PyTorch and TensorFlow into .venv-frameworks …" >&2
	@test -x .venv-frameworks/bin/python || $(PYTHON) -m venv .venv-frameworks
	@.venv-frameworks/bin/python $(PIP_INSTALL) "torch==2.13.0" "tensorflow-cpu==2.21.*"
	@touch $@

check: .venv/.installed-test
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

format: .venv/.installed-test
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

# The whole table: an hour and a half of a quiet machine. BENCH_DIR is on the disk to be measured. Single benchmarks, small sizes and
# the Markdown: .venv/bin/python -m tests.bench --help, .venv/bin/python -m tests.bench.table docs/bench.json
BENCH_DIR ?= /var/tmp

bench: .venv/.installed-test .venv-bench/.installed
	@mkdir -p build
	@set -o pipefail; .venv/bin/python -m tests.bench --scratch "$(BENCH_DIR)" | tee build/bench.json
	@cp build/bench.json docs/bench.json
	@.venv-bench/bin/python -m tests.bench.plot docs/bench.json docs/bench.svg

.venv-bench/.installed: locks/bench.txt | python
	@echo "Installing matplotlib into .venv-bench …" >&2
	@test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/python $(PIP_INSTALL) --require-hashes -r locks/bench.txt
	@touch $@

clean:
	rm -rf .venv .venv-notebook .venv-hub5 .venv-bench .venv-frameworks build
