# Every target sets itself up: a virtual environment and the packages, once.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin

.PHONY: demo test check docs notebook gallery faults fuzz benchmarks clean

demo: $(VENV)/.ready ## Make a network forget the threes, with the evidence in runs/demo
	$(RUN)/expunge demo --out runs/demo --overwrite

test: $(VENV)/.ready ## Run all tests
	$(RUN)/python -m pytest -n 2

check: $(VENV)/.ready ## Format, lint and types, without changing anything
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy

docs: $(VENV)/.ready ## Build the site into site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(RUN)/mkdocs build --strict --quiet

notebook: $(VENV)/.ready ## Run docs/notebook.ipynb again, as it stands on the site
	PYTHONWARNINGS="ignore:IProgress not found" $(RUN)/python -m nbconvert --to notebook --execute --inplace \
	  --ExecutePreprocessor.record_timing=False docs/notebook.ipynb

gallery: $(VENV)/.ready ## Take the pictures of docs/gallery.md again; needs chromium
	$(RUN)/python docs/gallery.py

faults: $(VENV)/.ready ## Kill commands at random moments and fill the disk: nothing may be lost
	PYTHONPATH=tests $(RUN)/python tests/faults.py --out benchmarks/results/faults.json

fuzz: $(VENV)/.ready ## Give thousands of damaged and hostile inputs: each must be accepted, or refused in one line
	PYTHONPATH=tests $(RUN)/python tests/fuzz.py --out benchmarks/results/fuzz.json

benchmarks: $(VENV)/.ready ## Measure again what benchmarks/results holds
	$(RUN)/python benchmarks/digits.py --out benchmarks/results/digits.json
	$(RUN)/python benchmarks/population.py --out benchmarks/results/population.json
	$(RUN)/python benchmarks/audit_validity.py --data digits --out benchmarks/results/audit_validity_digits.json --seeds 1
	$(RUN)/python benchmarks/audit_cost.py --out benchmarks/results/audit_cost.json
	$(RUN)/python benchmarks/corruptions.py --out benchmarks/results/corruptions.json
	$(RUN)/python benchmarks/population_audits.py --out benchmarks/results/population_audits.json
	$(RUN)/python benchmarks/overhead.py --out benchmarks/results/overhead.json
	PYTHONPATH=tests $(RUN)/python benchmarks/opening.py runs/demo/report.html --out benchmarks/results/opening.json
	$(RUN)/python benchmarks/scaling.py --out benchmarks/results/scaling.json
	$(RUN)/python benchmarks/sequential.py --out benchmarks/results/sequential.json
	$(RUN)/python benchmarks/speed_ideas.py --out benchmarks/results/speed_ideas.json
	$(RUN)/python benchmarks/fidelity.py --data digits --out benchmarks/results/fidelity-digits.json
	$(RUN)/python benchmarks/dry_run.py --out benchmarks/results/dry_run.json
	$(RUN)/python benchmarks/analyses.py all

clean:
	rm -rf $(VENV) runs dist build site

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'expected Python 3.11 or newer, got ' + sys.version)"
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@
