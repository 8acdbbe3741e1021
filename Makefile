# Veil. On a fresh Debian 12 with Python 3.11, git and make, `make run` and `make test` do all the set-up.
#
#   make run       install what is missing, build, start with the development key, print the page's address
#   make test      the same set-up plus browsers and test packages, then all tests
#   make test-long the tests that would make it longer than a quarter of an hour
#   make unit      unit, arch, sim and adversary tests only: no browser
#   make browser   tests with browsers          make interop  every client against every other, with a table
#   make e2ee-matrix  encrypted frames of every codec, from every sender to every receiver
#   make lossy     calls through a network that loses packets, five seeds
#   make lossy-audio  what is heard at 8 % loss each way, with RED and without
#   make bwe-browser  pictures over a path of 3 Mbit/s that becomes one of 400 kbit/s and recovers
#   make paths     calls where UDP is blocked, where only a TURN server is reachable, where an interface goes down (root)
#   make adversary garbage on every port while a call runs, with a table
#   make prove-blind  a relay's memory searched for what its encrypted calls hold
#   make mutants   every rule of wire formats, SRTP and the fail-closed checks taken out in turn, and found missing
#   make conformance  the oracle over a million generated packets, and over a million of every codec and structure
#   make bwe       bandwidth plans: narrow, narrowing, lossy and shared paths on virtual time, twenty seeds
#   make noninterference  ten thousand calls, each run again with its payloads' bytes replaced
#   make false-stops  a million encrypted frames, of which the relay may take none for clear
#   make fuzz      long fuzzing (FUZZ_S=600)    make bench    figures against goals
#   make bench-path  cost per forwarded packet beside the raw limit of the machine
#   make bench-serve the same through signalling and handshakes: a whole relay, Python included
#   make bench-delay delay beside a plain forwarder             make bench-memory  memory per subscription
#   make bench-opaque  instructions per packet of encrypted publications beside clear ones
#   make bench-join   two hundred come into a call at once: keyframes, first frames, what viewers notice
#   make bench-audio  a thousand listeners for a minute, every frame checked
#   make bench-alloc  CPU time of dividing paths over videos
#   make bench-repair  a million frames through a path that loses 10 % at either end
#   make debug     debug twin's unit tests      make asan     unit tests under address and undefined sanitizers
#   make lint      ruff                         make example  rewrite veil.example.toml from relay/config.py
#   make lock      choose dependency versions anew            make clean  remove everything that was built
#
# Stamps keep a second run at seconds: system packages by scripts/system-packages.sh, Python packages by their lock
# file, modules by their sources.

SHELL := /bin/bash
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
JOBS ?= 2
FUZZ_S ?= 600
# The arguments pytest gets on top, such as ARGS="-k sdp -x".
ARGS ?=

CORE := $(wildcard ext/relaycore/*.pyx ext/relaycore/*.pxd ext/relaycore/*.py relay/session/sctp/_build.py relay/session/sctp/*.h) setup.py
SYSTEM := scripts/system-packages.sh
SUFFIX = $(shell $(PY) -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')

.PHONY: run test test-long unit conformance noninterference interop resume lossy adversary prove-blind mutants browser fuzz bench bench-path bench-serve bench-delay bench-memory bench-repair bench-audio bench-join lossy-audio debug asan lint example lock clean set-up build
.PHONY: bench-alloc bwe-browser paths
.PHONY: bwe e2ee-matrix bench-opaque false-stops fuzz-short debug-build asan-build

run: set-up build
	@exec $(PY) -m relay serve --dev

test: build/stamps/test build build/clients/.fetched
	$(PY) -m pytest -m "not long and not matrix" $(ARGS)

test-long: build/stamps/test build build/clients/.fetched
	$(PY) -m pytest -m "long and not matrix" $(ARGS)

unit: build/stamps/test build
	$(PY) -m pytest tests/unit tests/arch tests/sim tests/adversary -m "not browser and not interop and not slow and not long" $(ARGS)

browser: build/stamps/test build build/clients/.fetched
	$(PY) -m pytest tests/browser $(ARGS)

interop: build/stamps/test build build/clients/.fetched
	$(PY) -m tests.interop.run $(ARGS)

e2ee-matrix: build/stamps/test build build/clients/.fetched
	$(PY) -m tests.interop.e2ee_matrix $(ARGS)

resume: build/stamps/test build build/clients/.fetched
	$(PY) -m tests.interop.resume $(ARGS)

lossy: build/stamps/test build build/clients/.fetched
	$(PY) -m tests.interop.lossy $(ARGS)

lossy-audio: build/stamps/test build build/clients/.fetched
	$(PY) -m tests.interop.lossy_audio $(ARGS)

bwe-browser: build/stamps/test build build/clients/.fetched
	$(PY) -m tests.interop.bwe_browser $(ARGS)

paths: build/stamps/test build build/clients/.fetched
	$(PY) -m tests.interop.paths $(ARGS)

adversary: build/stamps/test build
	$(PY) -m tests.adversary.run $(ARGS)

prove-blind: build/stamps/test build
	$(PY) -m tests.adversary.prove_blind $(ARGS)

mutants: build/stamps/test build
	$(PY) -m pytest tests/unit -m matrix $(ARGS)

conformance: build/stamps/test build
	$(PY) -m tests.sim.conformance $(ARGS)
	$(PY) -m tests.sim.conformance --layers $(ARGS)

bwe: build/stamps/test build
	$(PY) -m tests.sim.bwe_run $(ARGS)

noninterference: build/stamps/test build
	$(PY) -m tests.sim.noninterference $(ARGS)

false-stops: build/stamps/test build
	$(PY) -m tests.sim.false_stops $(ARGS)

fuzz: build/stamps/test debug-build
	VEIL_FUZZ_S=$(FUZZ_S) PYTHONPATH=.:build/debug $(PY) -m pytest -o pythonpath=". build/debug" tests/fuzz --timeout 0 $(ARGS)

bench: build/stamps/test build
	$(SYSTEM) bench
	$(PY) -m pytest tests/bench -o python_files="bench_*.py" -m "" --benchmark-only --timeout 0 $(ARGS)

# The programs that relays are measured beside: raw limit, plain forwarder.
build/bench/%: tests/bench/%.c
	@mkdir -p $(@D)
	gcc -O2 -Wall -Wextra -Werror -o $@ $< $(BENCH_LIBS)
build/bench/limit: BENCH_LIBS := -l:libIPSec_MB.a
build/bench/plain_forwarder: BENCH_LIBS := -lcrypto

bench-path: build/stamps/test build build/bench/limit
	$(PY) -m tests.bench.bench_path $(ARGS)

bench-serve: build/stamps/test build build/bench/limit
	$(PY) -m tests.bench.bench_serve $(ARGS)

bench-delay: build/stamps/test build build/bench/plain_forwarder
	$(PY) -m tests.bench.bench_delay $(ARGS)

bench-join: build/stamps/test build
	$(PY) -m tests.bench.bench_join $(ARGS)

bench-audio: build/stamps/test build
	$(PY) -m tests.bench.bench_audio $(ARGS)

bench-alloc: build/stamps/test build
	$(PY) -m tests.bench.bench_alloc $(ARGS)

bench-repair: build/stamps/test build
	$(PY) -m tests.bench.bench_repair $(ARGS)

bench-opaque: build/stamps/test build
	$(PY) -m tests.bench.bench_opaque $(ARGS)

bench-memory: build/stamps/test build
	$(PY) -m tests.bench.bench_memory $(ARGS)

lint: build/stamps/test
	$(VENV)/bin/ruff check relay loadtests tests setup.py

example: build/stamps/run
	$(PY) -m relay.config > veil.example.toml

# --- set-up -----------------------------------------------------------------------------------------------------

set-up: build/stamps/run

build/stamps/system-run: $(SYSTEM)
	@$(SYSTEM) run
	@mkdir -p $(@D) && touch $@

build/stamps/system-test: $(SYSTEM)
	@$(SYSTEM) run test interop
	@mkdir -p $(@D) && touch $@

# The environment finds the working tree by a .pth file: relay from the root, relaycore from ext.
$(VENV)/bin/python: | build/stamps/system-run
	@$(PYTHON) -c 'import sys; sys.exit("Veil needs Python 3.11 or newer." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/veil.stamp: Makefile | $(VENV)/bin/python
	@printf '%s\n%s\n' "$(CURDIR)" "$(CURDIR)/ext" > "$$($(PY) -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/veil.pth"
	@printf '#!/bin/sh\nexec "$(CURDIR)/$(PY)" -m relay "$$@"\n' > $(VENV)/bin/veil && chmod +x $(VENV)/bin/veil
	@touch $@

build/stamps/run: requirements.lock build/stamps/system-run $(VENV)/veil.stamp
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@mkdir -p $(@D) && touch $@

build/stamps/test: requirements-test.lock build/stamps/system-test build/stamps/run
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-test.lock
	@touch $@

build/clients/.fetched: scripts/fetch-clients.sh scripts/interop-venvs.sh build/stamps/system-test
	@scripts/fetch-clients.sh
	@scripts/interop-venvs.sh
	@touch $@

# Exact versions, so that a build can be repeated; pyproject.toml says the ranges.
lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python scripts/lock.py

# --- data plane -------------------------------------------------------------------------------------------------

build: build/stamps/built
build/stamps/built: $(CORE) build/stamps/run
	RELAY_JOBS=$(JOBS) $(PY) setup.py -q build_ext --inplace --parallel $(JOBS)
	@touch $@

# Twins lie apart from the release modules; Python code is shared.
debug-build: build/stamps/debug
build/stamps/debug: build/stamps/built
	RELAY_DEBUG=1 RELAY_JOBS=$(JOBS) $(PY) setup.py -q build_ext --build-lib build/debug --build-temp build/debug-temp \
		--parallel $(JOBS)
	@cp ext/relaycore/*.py build/debug/relaycore/ && touch $@

# Sanitizers add their own conversions, so warnings are left to the other builds.
asan-build: build/stamps/asan
build/stamps/asan: build/stamps/built
	RELAY_DEBUG=1 RELAY_SANITIZE=1 RELAY_WERROR=0 RELAY_JOBS=$(JOBS) $(PY) setup.py -q build_ext --build-lib build/asan \
		--build-temp build/asan-temp --parallel $(JOBS)
	@cp ext/relaycore/*.py build/asan/relaycore/ && touch $@

# Where the data plane is at work; what is Python alone learns nothing from another build of it.
NATIVE := tests/unit/relaycore tests/unit/plane tests/unit/session tests/unit/signaling tests/unit/observe tests/unit/loadtests tests/sim

debug: build/stamps/test debug-build
	PYTHONPATH=.:build/debug $(PY) -m pytest -o pythonpath=". build/debug" $(NATIVE) -m "not slow and not long and not matrix" $(ARGS)

# What is C of ours; the control plane's own tests have nothing for a sanitizer to find, and take it minutes.
SANITIZED := tests/unit/relaycore tests/unit/plane tests/unit/loadtests tests/sim

# CPython keeps memory until it ends, so leaks are the debug twin's business; the sanitizer's runtime must come first.
asan: build/stamps/test asan-build
	ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:detect_stack_use_after_return=1 \
	UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" PYTHONMALLOC=malloc \
	PYTHONPATH=.:build/asan $(PY) -m pytest -o pythonpath=". build/asan" $(SANITIZED) -m "not slow and not long and not matrix" \
		-p no:cacheprovider --timeout 600 $(ARGS)

fuzz-short: build/stamps/test debug-build
	VEIL_FUZZ_S=30 PYTHONPATH=.:build/debug $(PY) -m pytest -o pythonpath=". build/debug" tests/fuzz $(ARGS)

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .benchmarks
	rm -f ext/relaycore/*.so ext/relaycore/*.c ext/relaycore/*.html
	find relay tests loadtests -name __pycache__ -type d -prune -exec rm -rf {} +
