# `make demo` and `make test` need Python >= 3.10, make and a package index; everything else is set up here.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint docs examples gallery notebooks package fuzz kill train-demo train-demo-pictures bench-demo bench-speed clean

$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/python scripts/demo.py

# Two processes of one thread each: less time and less memory than one of two. PYTEST="-m 'not slow'" leaves sizes out.
test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation site, into site/: ends with an error at a link that leads nowhere. `make docs SERVE=1` shows it while it
# is written.
docs: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs $(if $(SERVE),serve,build --strict --quiet)

# What the documentation shows of the demo model, made anew: its pictures, what examples print, and the notebooks.
gallery: $(VENV)/installed
	$(BIN)/python scripts/gallery.py
	$(BIN)/python scripts/badges.py

examples: $(VENV)/installed
	$(BIN)/python scripts/page_examples.py

notebooks: $(VENV)/installed
	$(BIN)/python scripts/run_notebooks.py

# The sdist and the wheel, checked, installed and run outside of the repository; and how many public names have a type.
package: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[package]'
	$(BIN)/python scripts/check_package.py --types

# Damaged and hostile checkpoints, model directories, dataset files and archives, 3,000 of each: docs/reliability.md.
# FUZZ="models data" names some of them, FUZZ="--checkpoint a.pt" a checkpoint of yours.
fuzz: $(VENV)/installed
	$(BIN)/python scripts/fuzz.py $(FUZZ)

# Training runs and benchmarks, killed at 20 random moments each, that go on: as in docs/reliability.md.
kill: $(VENV)/installed
	$(BIN)/python scripts/kill_runs.py --kills 20

# The demo model from nothing: about three hours on two CPU cores; goes on where it stopped. Its confidence is fitted to
# pictures that no figure is measured on.
PARTS := shapes-1 shapes-2 shapes-3 shapes-4 shapes-5 shapes-6
LAST_PART := runs/$(lastword $(PARTS))/last
train-demo: $(VENV)/installed
	test -f runs/stem.safetensors || $(BIN)/python scripts/pretrain_stem.py runs/stem.safetensors
	for part in $(PARTS); do $(BIN)/ofa-core train recipes/$$part.toml || exit; done
	$(BIN)/ofa-core shapes runs/calibration --count 2000 --first 100000
	$(BIN)/ofa-core calibrate --model $(LAST_PART) --format grefcoco --data runs/calibration/grefcoco.test.jsonl \
		--images runs/calibration/images
	$(BIN)/python scripts/package_demo.py $(PARTS:%=runs/%)

# The demo model that draws, from nothing: about two and a half hours on one CPU core; goes on where it stopped.
DRAWING_PARTS := pictures-1 pictures-2 pictures-3 pictures-4
train-demo-pictures: $(VENV)/installed
	test -f runs/codes.safetensors || $(BIN)/python scripts/pretrain_pictures.py runs/codes.safetensors
	test -f runs/captions.tsv || $(BIN)/python scripts/captioned_pictures.py runs/captions.tsv
	test -f runs/captions_all.tsv || $(BIN)/python scripts/captioned_pictures.py runs/captions_all.tsv --count 64000
	for part in $(DRAWING_PARTS); do $(BIN)/ofa-core train recipes/$$part.toml || exit; done
	$(BIN)/python scripts/package_demo.py --drawing $(DRAWING_PARTS:%=runs/%)

# The demo model's scores on test pictures, as in the README.
SHAPES := demo_output/shapes
COUNT ?= 2000
bench-demo: $(VENV)/installed
	$(BIN)/ofa-core shapes $(SHAPES) --count $(COUNT)
	$(BIN)/ofa-core bench refcoco_grounding --model demo --data $(SHAPES)/names.tsv --comment names --out demo_output/results
	$(BIN)/ofa-core bench all --model demo --images $(SHAPES)/images --confidence --report --out demo_output/results \
		--data refcoco=$(SHAPES)/phrases.tsv guesswhat=$(SHAPES)/guesswhat.test.jsonl.gz invig=$(SHAPES)/invig.test.jsonl \
		grefcoco=$(SHAPES)/grefcoco.test.jsonl pretrain_detection=$(SHAPES)/detection.test.jsonl \
		vqa=$(SHAPES)/questions.test.jsonl vqa=$(SHAPES)/counting.test.jsonl

# Seconds, arithmetic and memory of every part, beside the machine's limits and the original: as in the README.
bench-speed: $(VENV)/installed
	$(BIN)/python -m benchmarks.speed --threads 2 --out demo_output/speed.json

clean:
	rm -rf $(VENV) demo_output site dist
