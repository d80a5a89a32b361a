# A fresh machine needs python3 (with its venv module and headers), a C++ compiler and make: the rest is installed into
# .venv, what `make lint` needs into .venv-lint, and nvcc, if there is none, into .venv-cuda. docs/environment.md has the
# variables: `make test TORCH=torch==2.15.0 VENV=.venv-2.15 JOBS=8`.
TORCH ?= torch==2.13.0
PYTHON ?= python3
VENV ?= .venv
JOBS ?= $(shell nproc)

# How much runs at once, here and in scripts/: torch's builds, CMake's, and pytest's processes.
export MAX_JOBS ?= $(JOBS)
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(JOBS)
export PYTEST_ARGUMENTS ?= -n $(JOBS) --dist loadfile

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed-$(shell echo '$(TORCH)' | tr -c 'A-Za-z0-9.\n' '_')
BUILT := $(VENV)/.built
CPP := $(shell find csrc tests examples -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' -o -name '*.inc' 2>/dev/null)
DOCS := $(VENV)/.docs
LINT := $(VENV)-lint
CUDA := $(VENV)-cuda
PYTEST := $(BIN)/python -m pytest $(PYTEST_ARGUMENTS)
PIN := $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --upgrade
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check
# nvcc and cuobjdump from PyPI, behind those of the machine. Nothing is installed where it has both.
CUDA_TOOLS := $(if $(and $(shell command -v nvcc),$(shell command -v cuobjdump)),,$(CUDA)/.installed)
export PATH := $(PATH):$(abspath $(CUDA))/nvidia/cu13/bin
.PHONY: help bench test test-slow test-all ci dev lint types format docs cuda-compile cpp aarch64 matrix sanitize \
  sanitize-kernels fuzz coverage gpu-check requirements wheel sbom clean distclean

help:  ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 20

bench: $(BUILT)  ## networks and operators beside PyTorch's own: a minute or two
	$(BIN)/python -m benchmarks run --quick calls operators networks networks-compiled

test: $(BUILT)  ## the tests for every change: a few minutes
	$(PYTEST) -m "not slow"

test-slow: $(BUILT) $(CUDA_TOOLS)  ## the others: what is compiled by Inductor, exported, installed, or runs long
	$(PYTEST) -m slow

test-all: test test-slow  ## all of them

ci: $(BUILT) $(DOCS) $(LINT)/.installed $(CUDA_TOOLS)  ## all that must pass before a merge
	.ci/run --at-once cuda-compile cpp docs sanitize-kernels types lint --in-turn test test-slow

dev: $(BUILT)  ## an editable build in .venv

lint: $(LINT)/.installed  ## ruff, clang-format, the schema of the workflows: without torch, in seconds
	$(LINT)/bin/ruff check .
	$(LINT)/bin/ruff format --check .
	$(LINT)/bin/clang-format --dry-run --Werror $(CPP)
	$(LINT)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

format: $(LINT)/.installed  ## let ruff and clang-format rewrite the sources
	$(LINT)/bin/ruff check --fix .
	$(LINT)/bin/ruff format .
	$(LINT)/bin/clang-format -i $(CPP)

types: $(INSTALLED)  ## mypy, with torch: without it every Tensor and Module would be Any, and nothing be found
	$(BIN)/mypy

docs: $(BUILT) $(DOCS)  ## the site, its links and every page in a browser: build/docs/html
	$(BIN)/python scripts/docs.py

cuda-compile: $(INSTALLED) $(CUDA_TOOLS)  ## every CUDA source, for each architecture, warnings as errors; needs no GPU
	PYTHON=$(BIN)/python scripts/cuda_compile.sh

cpp: $(INSTALLED)  ## CMake: the C++ library, its tests (the kernels' need no Python), the installed package
	PATH="$(abspath $(BIN)):$$PATH" scripts/cpp.sh build/cpp

aarch64:  ## the kernels for 64-bit ARM, their tests under QEMU
	cmake -S . -B build/aarch64 -DCMAKE_TOOLCHAIN_FILE=$(CURDIR)/cmake/aarch64.cmake -DLEAKY_EXT_TORCH=OFF
	cmake --build build/aarch64
	ctest --test-dir build/aarch64 --output-on-failure

matrix: $(INSTALLED)  ## builds and tests against each torch, and writes docs/versions.md
	$(BIN)/python scripts/matrix.py

sanitize: $(BUILT)  ## the tests under ASan and UBSan, concurrent calls under TSan, kernels and fuzzed calls under valgrind
	PATH="$(abspath $(BIN)):$$PATH" scripts/sanitize.sh build/sanitize

sanitize-kernels: $(INSTALLED)  ## of these, the kernels' own tests, which see no torch
	PATH="$(abspath $(BIN)):$$PATH" scripts/sanitize.sh build/sanitize kernels threads

fuzz: $(BUILT)  ## a million hostile calls of the raw operators
	$(BIN)/python tests/fuzz_operators.py --calls 1000000

coverage: $(INSTALLED)  ## lines covered, Python and C++
	PATH="$(abspath $(BIN)):$$PATH" scripts/coverage.sh build/coverage

gpu-check:  ## everything that needs a GPU; installs nothing, so PYTHON must have torch and what the tests need
	$(PYTHON) scripts/gpu_check.py

wheel: $(INSTALLED)  ## one wheel for every torch that is supported, with CUDA kernels if FORCE_CUDA=1: build/wheel
	$(BIN)/python scripts/wheel.py

sbom: $(INSTALLED)  ## a CycloneDX bill of what is installed here: build/sbom.json
	mkdir -p build && $(BIN)/cyclonedx-py environment $(BIN)/python -o build/sbom.json

requirements:  ## pin requirements*.txt anew, with hashes
	$(PIN) --group dev -o requirements.txt
	$(PIN) --group models --no-deps -o requirements-models.txt
	$(PIN) --group docs -c requirements.txt -o requirements-docs.txt
	$(PIN) --group lint -o requirements-lint.txt
	$(PIN) --group cuda -o requirements-cuda.txt

clean:  ## remove what was built; the virtual environments stay
	rm -rf build dist *.egg-info .*_cache .hypothesis .coverage* htmlcov leaky_ext/*.so leaky_ext/_build.py $(BUILT)
	find . -path './.venv*' -prune -o -name __pycache__ -prune -exec rm -rf {} +

distclean: clean  ## and the virtual environments
	rm -rf .venv* $(VENV) $(LINT) $(CUDA)

$(INSTALLED): requirements.txt requirements-models.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) '$(TORCH)'
	$(INSTALL) -q --require-hashes -r requirements.txt
	$(INSTALL) -q --require-hashes --no-deps -r requirements-models.txt
	rm -f $(VENV)/.installed-* $(BUILT) $(DOCS) && touch $@

$(DOCS): $(INSTALLED) requirements-docs.txt
	$(INSTALL) -q --require-hashes -r requirements-docs.txt
	touch $@

$(LINT)/.installed: requirements-lint.txt
	test -x $(LINT)/bin/python || $(PYTHON) -m venv $(LINT)
	$(LINT)/bin/python -m pip install --disable-pip-version-check -q --require-hashes -r requirements-lint.txt
	touch $@

$(CUDA)/.installed: $(INSTALLED) requirements-cuda.txt
	rm -rf $(CUDA)
	$(INSTALL) -q --require-hashes --target $(CUDA) -r requirements-cuda.txt
	touch $@

$(BUILT): $(INSTALLED) setup.py pyproject.toml csrc/sources.txt $(filter csrc/%,$(CPP))
	$(INSTALL) -q --no-build-isolation --no-deps -e .
	touch $@
