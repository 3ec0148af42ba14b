# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
#
# Every target makes what it needs first: a virtual environment in .venv with the pinned packages of
# requirements/, and the extension, built again whenever one of its sources has changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Of most packages a few modules are imported: their bytecode is made then, and kept.
PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-compile
unexport PYTHONDONTWRITEBYTECODE
# Before every step that takes long: what it is, and its time on two idle cores.
say = @echo "==> $(1)"
# torch's build looks for ninja on the path.
export PATH := $(CURDIR)/$(BIN):$(PATH)

# A run of some benchmarks does not replace the results of all.
RESULTS := $(if $(ARGS),out/bench,benchmarks/results)
SANITIZERS := address,undefined
SANITIZE_FLAGS := -O1 -g1 -fsanitize=$(SANITIZERS) -fno-sanitize-recover=all -fno-omit-frame-pointer
SANITIZED := build-sanitize/lib
CPP_FILES = $(shell find csrc tests/cpp -name '*.h' -o -name '*.cpp' -o -name '*.inl' -o -name '*.cu*')

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo paper registration test test-all cpp-test ptx-test mutants bench bench-check gpu-report registers docs wheels lint format sanitize clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "%-12s %s\n", $$1, $$2}'

demo: $(VENV)/.demo $(VENV)/.extension ## Run the demo; T1=PATH T2=PATH: on your own images, OUT=DIR: results there
	$(call say,Demo: 45 s)
	$(BIN)/python -m examples.demo $(if $(T1),--t1 "$(T1)") $(if $(T2),--t2 "$(T2)") $(if $(OUT),--out "$(OUT)")

# Without data the phantom, for which the paper's networks would be wasted.
paper: $(VENV)/.demo $(VENV)/.extension ## Train and compare the NEC paper's systems: DATA=DIR, PRESET=paper|release|cpu|cpu-brats|gpu, OUT=DIR, ARGS=...
	$(call say,Paper: a quarter of an hour on the phantom and days on BraTS)
	$(BIN)/python -m examples.brats.paper --preset $(or $(PRESET),$(if $(DATA),paper,cpu)) $(if $(OUT),--out "$(OUT)") $(if $(DATA),"data.data=$(DATA)") $(ARGS)

registration: $(VENV)/.demo $(VENV)/.extension ## Register a phantom by three losses; T1=PATH T2=PATH: your own images, OUT=DIR, ARGS=...
	$(call say,Registration: minutes)
	$(BIN)/python -m examples.registration $(if $(T1),"$(T1)" "$(T2)") $(if $(OUT),--out "$(OUT)") $(ARGS)

test: ARGS ?= -m "not slow"
test: cpp-test $(VENV)/.extension ## Run the tests, C++ and Python, without slow ones; ARGS=...: passed to pytest
	$(call say,Python tests: 2 min or what ARGS leaves of it)
	$(BIN)/python -c "import nec_ext; print(nec_ext.build_info())"
	$(BIN)/python -m pytest $(ARGS)

test-all: ## Run all tests, slow ones too
	$(MAKE) test ARGS=

mutants: $(VENV)/.test $(VENV)/.extension ## Plant mistakes in a copy and see tests of two files fail for each; ARGS=--only=TEXT: in some files
	$(call say,Mutants: half an hour)
	NEC_EXT_CXX_FLAGS=-O1 OMP_NUM_THREADS=1 $(BIN)/python tests/mutants/run.py $(or $(ARGS),--out tests/mutants/results.md)

cpp-test: $(VENV)/.test ## Run the C++ tests, which need no torch
	$(call say,C++ tests: 2 min)
	$(BIN)/cmake -S . -B build-cpp -G Ninja
	$(BIN)/cmake --build build-cpp
	$(BIN)/ctest --test-dir build-cpp --output-on-failure

ptx-test: $(VENV)/.test ## Run the C++ tests on the CUDA kernels as nvcc compiles them, without a GPU; PTX=75|80|90: for that compute capability
	$(call say,Compiled CUDA kernels: 6 min)
	$(BIN)/cmake -S . -B build-ptx -G Ninja -DNEC_SANITIZE=address -DNEC_PTX=$(or $(PTX),90)
	$(BIN)/cmake --build build-ptx --target test_ptx
	$(BIN)/ctest --test-dir build-ptx --output-on-failure --tests-regex test_ptx

bench: $(VENV)/.test $(VENV)/.extension ## Run the benchmarks, report in RESULTS=DIR; ARGS=...: passed to pytest
	$(call say,Benchmarks: half an hour or what ARGS leaves of it)
	$(BIN)/python -m pytest benchmarks --results $(RESULTS) $(ARGS)

bench-check: $(VENV)/.test ## Compare results of benchmarks: OLD=FILE NEW=FILE
	$(BIN)/python -m benchmarks.check "$(OLD)" "$(NEW)"

# Makes no environment: the GPU decides which torch is wanted, and that one is there already.
gpu-report: ## Build, test, check and measure on a GPU with the packages of PYTHON=...; OUT=DIR: results there
	$(call say,Build and tests and benchmarks on the GPU: 10 min)
	$(PYTHON) -m benchmarks.gpu_report $(or $(OUT),out/gpu)

registers: $(VENV)/.test ## Build the CUDA kernels for every architecture and write docs/registers.md; ARGS="--architectures 9.0": for one, and print
	$(call say,CUDA kernels: 8 min and for one architecture 2)
	$(BIN)/python -m benchmarks.registers $(or $(ARGS),--out docs/registers.md)

docs: $(VENV)/.docs ## Build the documentation site, out/site; a warning or a broken link is an error
	$(call say,Site: 10 s)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# Both have one name, and the index has room for one: the second, which runs beside a torch without CUDA too.
wheels: $(VENV)/.wheels ## Build and check the wheels of this Python for Linux: dist/cpu, and dist/cuda with the kernels of all GPUs
	$(call say,Wheels: 10 min)
	.ci/make-wheels
	.ci/check-wheels dist/cpu/*.whl dist/cuda/*.whl

lint: $(VENV)/.dev $(VENV)/.extension ## Check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/clang-format --dry-run --Werror $(CPP_FILES)
	$(BIN)/mypy

format: $(VENV)/.dev ## Rewrite all files in the project's style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(CPP_FILES)

# The thread sanitizer gives false alarms from torch's thread pool; the C++ tests bring their own threads.
# Python's own leaks would hide any of ours. Reports go to the standard error: pytest must not capture it.
sanitize: $(VENV)/.test $(VENV)/.extension ## Run the tests under address, undefined and thread sanitizers (gcc)
	$(call say,C++ tests with sanitizers: 10 min)
	for sanitizers in $(SANITIZERS) thread; do \
	  $(BIN)/cmake -S . -B build-sanitize/cpp-$$sanitizers -G Ninja -DNEC_SANITIZE=$$sanitizers && \
	  $(BIN)/cmake --build build-sanitize/cpp-$$sanitizers && \
	  $(BIN)/ctest --test-dir build-sanitize/cpp-$$sanitizers --output-on-failure || exit 1; \
	done
	$(call say,Extension with sanitizers: 2 min)
	NEC_EXT_CUDA=0 NEC_EXT_CXX_FLAGS="$(SANITIZE_FLAGS)" $(BIN)/python setup.py -q build --build-base build-sanitize --build-lib $(SANITIZED)
	$(call say,Python tests with sanitizers: half an hour)
	ASAN_OPTIONS=detect_leaks=0 PYTHONPATH=$(SANITIZED) \
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
	  $(BIN)/python -m pytest --capture=sys -o pythonpath="$(SANITIZED) ." -m "not slow" $(ARGS)

clean: ## Remove everything that make has made
	rm -rf $(VENV) build build-* dist *.egg-info nec_ext/*.so .*_cache .hypothesis .benchmarks

# ----------------------------------------------------------------------------------------------------
# The environment: one file per step that is done
# ----------------------------------------------------------------------------------------------------

# torch on its own and first: no other package may choose its version.
$(VENV)/.torch: requirements/torch.txt
	$(call say,torch into $(VENV): 30 s and up to 3 GB to download)
	$(PYTHON) -m venv $(VENV)
	$(PIP) -r $<
	touch $@

$(VENV)/.build: requirements/build.txt $(VENV)/.torch
$(VENV)/.demo: requirements/demo.txt $(VENV)/.build
$(VENV)/.test: requirements/test.txt $(VENV)/.demo
$(VENV)/.dev: requirements/dev.txt $(VENV)/.test
$(VENV)/.docs: requirements/docs.txt $(VENV)/.dev
$(VENV)/.wheels: requirements/wheels.txt $(VENV)/.test
$(VENV)/.build $(VENV)/.demo $(VENV)/.test $(VENV)/.dev $(VENV)/.docs $(VENV)/.wheels:
	$(call say,Packages of $<: up to 20 s and their download)
	$(PIP) -r $<
	touch $@

# Folders too: their time changes when a source is added or removed. Commits, for the version names the last one.
$(VENV)/.extension: $(VENV)/.build setup.py pyproject.toml $(shell find csrc) $(wildcard $(shell git rev-parse --git-path logs/HEAD 2>/dev/null))
	$(call say,Extension: a minute; or with CUDA kernels eight)
	$(PIP) --no-build-isolation --no-deps --editable .
	touch $@
