# make demo, make test: the environment is made first, once. Python 3.11 or newer and a package index are all they need.

PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: venv demo demo-atlas test lint lint-js bench pictures

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt src/encoscope_torchvision.pth
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[all]" --group dev
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/python examples/demo.py demo

# The whole of it: 500 photos that the network was not trained on, 160 features in words, of which 64 and 20 classes have
# pictures. Most of an hour on two cores. Needs the data.
demo-atlas: $(STAMP)
	@test -n "$(ENCOSCOPE_DATA)" || { echo "set ENCOSCOPE_DATA to the folder that holds caltech101/" >&2; exit 3; }
	$(BIN)/encoscope atlas build --model zoo:resnet-caltech101 --images "caltech101:$(ENCOSCOPE_DATA)/caltech101#test" \
		--out demo/caltech101 --max-images 500 --features 160 --visualize 64 --classes 20 --steps 300 --title "A small ResNet on Caltech-101"

# One process for each core; the tests of a file share one, as they share what the file sets up.
test: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

lint: $(STAMP) lint-js
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tools/check_words.py
	$(BIN)/python tools/check_docstrings.py

# The scripts of the pages: lines, lint and form (Biome), types from JSDoc (TypeScript). The last two need node and npm.
PAGES := src/encoscope/atlas/pages src/encoscope/user_study/pages
JS := tools/js/node_modules

lint-js:
	@! grep -nE '^.{121}' $(addsuffix /*.js,$(PAGES)) || { echo "lines of more than 120 columns" >&2; exit 1; }
	@if command -v node >/dev/null && command -v npm >/dev/null; then $(MAKE) --no-print-directory lint-js-tools; \
	else echo "node or npm is missing: the JavaScript of the pages is not checked"; fi

.PHONY: lint-js-tools
lint-js-tools: $(JS)/.package-lock.json
	$(JS)/.bin/biome ci --config-path=tools/js $(PAGES)
	$(JS)/.bin/tsc --project tools/js

$(JS)/.package-lock.json: tools/js/package.json tools/js/package-lock.json
	npm --prefix tools/js ci --no-audit --no-fund
	touch $@

bench: $(STAMP)
	$(BIN)/python -m benchmarks $(ARGS)

pictures: $(STAMP)
	$(BIN)/python docs/figures.py
