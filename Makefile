# Python 3.11 to 3.13 and make are all that has to be there: `make up` and `make test` set up the rest.
# PYTHON=python3.12 chooses another Python, ONLY=answer,burst some benchmarks, ARGS="-k mail -x" what pytest is told:
# it is then run as it is. Without ARGS all tests are run, WORKERS=3 of them at once (see scripts/test.sh).

PYTHON ?= python3
BIN := .venv/bin
SET_UP := .venv/.set-up
SOURCES = $(wildcard parley connectors blocks flows deployments benchmarks tests scripts)
TYPED := parley connectors blocks

export WORKERS COVERAGE ARGS

# Before any processes are started by the dozen: what they all import is compiled once, also where the environment keeps
# Python from writing it down (PYTHONDONTWRITEBYTECODE), as it still reads what it finds.
COMPILED = $(BIN)/python -m compileall -q -j 0 $(SOURCES)

.PHONY: help up test test-scenarios test-servers test-containers faults faults-long bench plots lock clean
.PHONY: check check-format check-lint check-types check-public-types check-lock check-scan security

help:
	@echo "make up               set up and run everything on this machine; Ctrl-C ends it"
	@echo "make test             set up and test            (ARGS=... for pytest, or WORKERS=3, COVERAGE=1)"
	@echo "make test-scenarios   follow the scenarios of docs/, word for word (ARGS=... for pytest)"
	@echo "make test-servers     bring the real servers that some tests talk to (Debian, as root)"
	@echo "make test-containers  build the image and test what runs in containers (Debian, as root)"
	@echo "make faults           kill, stop, cut, fill up, set the clock: minutes; make faults-long: hours"
	@echo "make pentest          attack it: 10,000 cases a reader, all that docs/security-tests.md names"
	@echo "make bench            measure                    (ONLY=answer,burst)"
	@echo "make plots            draw docs/plots/ from what bench and faults measured"
	@echo "make check            format, lint, types, lock"
	@echo "make security         dangerous code, secrets, known holes, bill of materials"
	@echo "make lock             requirements.lock from pyproject.toml   (UPGRADE=1 takes the newest versions)"
	@echo "make clean            remove what was built; .venv and data stay"

$(SET_UP): requirements.lock pyproject.toml scripts/set-up.sh
	@PYTHON="$(PYTHON)" sh scripts/set-up.sh

up: $(SET_UP)
	@exec $(BIN)/parley up

test: $(SET_UP) test-servers
	@$(COMPILED)
	$(if $(ARGS),$(BIN)/pytest --ignore=tests/scenarios --ignore=tests/faults $(ARGS),@sh scripts/test.sh)

# What the pages of docs/ say people type and read, typed and read: whole installations, so a target of its own.
test-scenarios: $(SET_UP) test-servers
	@$(COMPILED)
	$(BIN)/pytest tests/scenarios $(ARGS)

test-servers:
	@sh tests/servers/install.sh

# An engine of its own is started where none answers, and ended again; nothing comes from an image registry. What failed
# is remembered in a place of its own, so that other tests can run at the same time.
test-containers: $(SET_UP) test-servers
	@sh tests/servers/docker.sh run $(BIN)/pytest -o cache_dir=.pytest_cache/containers tests/containers $(ARGS)

# Processes are killed and stopped, connections cut and disks filled while people write; what was measured is in
# build/faults.json.
faults: $(SET_UP) test-servers
	@$(COMPILED)
	@sh scripts/faults.sh

faults-long: $(SET_UP) test-servers
	@FAULTS_LONG=1 sh scripts/faults.sh

# Who attacks finds nothing: all that tests/attacks tries, with ten thousand cases a reader; the better part of an hour.
.PHONY: pentest
pentest: $(SET_UP) test-servers
	@$(COMPILED)
	@sh scripts/pentest.sh

bench: $(SET_UP)
	$(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY))

plots: $(SET_UP)
	$(BIN)/python -m benchmarks.plots

# Each check is a target of its own: `make -k check` runs those after a failed one too.
check: check-format check-lint check-types check-public-types check-lock check-scan

check-format: $(SET_UP)
	$(BIN)/ruff format --check .

check-lint: $(SET_UP)
	$(BIN)/ruff check .

check-types: $(SET_UP)
	$(BIN)/mypy $(SOURCES)

check-public-types: $(SET_UP)
	$(BIN)/python scripts/verify_types.py $(TYPED)

check-lock: $(SET_UP)
	@sh scripts/lock.sh --check

check-scan:
	@sh scripts/scan.sh

# Dangerous code, secrets, versions with known holes, and build/sbom.json; its tools are installed at the first time.
security: $(SET_UP)
	@sh scripts/security.sh

lock: $(SET_UP)
	sh scripts/lock.sh $(if $(UPGRADE),--upgrade)

clean:
	rm -rf build dist .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +
