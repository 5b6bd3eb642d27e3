# A fresh machine needs python3 >= 3.11 (with pip and venv) and make; nothing else.
#   make install  the environment in .venv; ACCELERATOR=cuda13, cuda12 or tpu for one
#                 (buckets, gs:// and s3://, are among the tools of development)
#   make demo    the whole job on made-up scans: data, training, evaluation, a Table 1
#   make test    the test suite
#   make test-cluster   runs in several processes: kills, stops, other meshes; long
#   make lint    formatting, lint and types
comma := ,
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo_output
# The suite compiles more than it computes: two processes keep two cores busy.
TEST_PROCESSES ?= 2
ACCELERATOR ?= cpu
EXTRAS := $(if $(filter cpu,$(ACCELERATOR)),dev,dev$(comma)$(ACCELERATOR))
# glibc asks Linux for huge pages: a train step on a CPU is faster.
HUGE_PAGES := glibc.malloc.hugetlb=1

.PHONY: install demo test test-cluster lint format constraints clean

INSTALLED := $(VENV)/installed-$(ACCELERATOR)
install: $(INSTALLED)
	@echo "activate it with: source $(VENV)/bin/activate"

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if v >= (3, 11) else f"Python 3.11 or newer is needed; this is {v[0]}.{v[1]}: run make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

demo: $(INSTALLED)
	GLIBC_TUNABLES=$${GLIBC_TUNABLES-$(HUGE_PAGES)} \
	    $(BIN)/python -m launch.demo --output=$(DEMO)

test: $(INSTALLED)
	$(BIN)/python -m pytest -m 'not cluster' --numprocesses=$(TEST_PROCESSES) --dist=loadfile

test-cluster: $(INSTALLED)
	$(BIN)/python -m pytest -m cluster

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# How constraints.txt is made: one resolution for every Python from 3.11 on.
constraints: $(INSTALLED)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal \
	    --python-version 3.11 --custom-compile-command 'make constraints' \
	    --output-file constraints.txt

clean:
	rm -rf $(VENV) $(DEMO)
