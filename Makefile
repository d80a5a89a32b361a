# Requires python3 (with its venv module and headers), a C++ compiler and make. Installs everything else: into .venv, the
# tools of `make lint` into .venv-lint, and nvcc, if it is missing, into .venv-cuda. docs/environment.md has the variables:
# `make test TORCH=torch==2.15.0 VENV=.venv-2.15 JOBS=8`.
TORCH ?= torch==2.13.0
PYTHON ?= python3
VENV ?= .venv
JOBS ?= $(shell nproc)

# The number of parallel jobs, here and in scripts/: of torch's builds, of CMake, and of pytest.
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
# Installs nvcc and cuobjdump from PyPI, unless the machine has both. PATH prefers those of the machine.
CUDA_TOOLS := $(if $(and $(shell command -v nvcc),$(shell command -v cuobjdump)),,$(CUDA)/.installed)
export PATH := $(PATH):$(abspath $(CUDA))/nvidia/cu13/bin
.PHONY: help bench test test-slow test-all ci dev lint types format docs cuda-compile cpp aarch64 matrix sanitize \
  sanitize-kernels fuzz coverage gpu-check requirements wheel sbom clean distclean

help:  ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 20

bench: $(BUILT)  ## compare networks and operators with PyTorch's own: a minute or two
	$(BIN)/python -m benchmarks run --quick calls operators networks networks-compiled

test: $(BUILT)  ## the tests for every change: a few minutes
	$(PYTEST) -m "not slow"

test-slow: $(BUILT) $(CUDA_TOOLS)  ## the slow tests: Inductor, export, installation, long runs
	$(PYTEST) -m slow

test-all: test test-slow  ## all tests

ci: $(BUILT) $(DOCS) $(LINT)/.installed $(CUDA_TOOLS)  ## everything that must pass before a merge
	.ci/run --at-once cpp cuda-compile sanitize-kernels docs types lint --in-turn test test-slow

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

types: $(INSTALLED)  ## mypy, with torch: without torch, every Tensor and Module would be Any
	$(BIN)/mypy

docs: $(BUILT) $(DOCS)  ## build the site, check its links, open every page in a browser: build/docs/html
	$(BIN)/python scripts/docs.py

cuda-compile: $(INSTALLED) $(CUDA_TOOLS)  ## compile every CUDA source for each architecture, warnings as errors; needs no GPU
	PYTHON=$(BIN)/python scripts/cuda_compile.sh

cpp: $(INSTALLED)  ## build, test and install the C++ library with CMake
	PATH="$(abspath $(BIN)):$$PATH" scripts/cpp.sh build/cpp

aarch64:  ## build the kernels for 64-bit ARM, and run their tests under QEMU
	cmake -S . -B build/aarch64 -DCMAKE_TOOLCHAIN_FILE=$(CURDIR)/cmake/aarch64.cmake -DLEAKY_EXT_TORCH=OFF
	cmake --build build/aarch64
	ctest --test-dir build/aarch64 --output-on-failure

matrix: $(INSTALLED)  ## build and test against each torch, and write docs/versions.md
	$(BIN)/python scripts/matrix.py

sanitize: $(BUILT)  ## the tests under ASan and UBSan, concurrent calls under TSan, kernels and fuzzed calls under valgrind
	PATH="$(abspath $(BIN)):$$PATH" scripts/sanitize.sh build/sanitize

sanitize-kernels: $(INSTALLED)  ## only the tests of the kernels without torch, under ASan, UBSan and TSan
	PATH="$(abspath $(BIN)):$$PATH" scripts/sanitize.sh build/sanitize kernels threads

fuzz: $(BUILT)  ## a million random calls of the operators, valid and invalid
	$(BIN)/python tests/fuzz_operators.py --calls 1000000

coverage: $(INSTALLED)  ## measure the lines that the tests cover, in Python and C++
	PATH="$(abspath $(BIN)):$$PATH" scripts/coverage.sh build/coverage

gpu-check:  ## everything that needs a GPU; installs nothing: PYTHON must have torch and the packages of the tests
	$(PYTHON) scripts/gpu_check.py

wheel: $(INSTALLED)  ## build one wheel for every supported torch, with CUDA kernels if FORCE_CUDA=1: build/wheel
	$(BIN)/python scripts/wheel.py

sbom: $(INSTALLED)  ## write a CycloneDX bill of the installed packages: build/sbom.json
	mkdir -p build && $(BIN)/cyclonedx-py environment $(BIN)/python -o build/sbom.json

requirements:  ## pin requirements*.txt anew, with hashes
	$(PIN) --group dev -o requirements.txt
	$(PIN) --group models --no-deps -o requirements-models.txt
	$(PIN) --group docs -c requirements.txt -o requirements-docs.txt
	$(PIN) --group lint -o requirements-lint.txt
	$(PIN) --group cuda -o requirements-cuda.txt

clean:  ## remove build outputs, but not the virtual environments
	rm -rf build dist *.egg-info .*_cache .hypothesis .coverage* htmlcov leaky_ext/*.so leaky_ext/_build.py $(BUILT)
	find . -path './.venv*' -prune -o -name __pycache__ -prune -exec rm -rf {} +

distclean: clean  ## remove the virtual environments too
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
