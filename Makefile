# make demo    set up .venv, tune the embedded model in two ways and compare: a few minutes
# make test    set up .venv, run the whole test suite
# make check   ruff, mypy, generated documents
# make docs    write the generated documents
# make pin     write constraints.txt anew from a fresh environment

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
FIND_PYTHON = for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && exec echo $$p; done; \
	echo "medtune needs Python 3.11 or newer, and none was found." >&2; exit 1

.PHONY: demo test check docs pin

demo: $(READY)
	$(BIN)/medtune run recipes/starter-prompt.yaml
	$(BIN)/medtune run recipes/starter.yaml
	$(BIN)/medtune compare runs/starter-prompt runs/starter --out runs
	@echo "Chat:    $(BIN)/medtune chat runs/starter"
	@echo "Reports: runs/starter/report.html (LoRA), runs/starter-prompt/report.html (prompt tuning)"

test: $(READY)
	$(BIN)/pytest

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python tools/docs.py --check

docs: $(READY)
	$(BIN)/python tools/docs.py

# torch comes first and alone, so that pip settles on one build of it before anything else depends on it.
$(READY): constraints.txt pyproject.toml
	python=$$($(FIND_PYTHON)) && $$python -m venv $(VENV)
	$(BIN)/pip install -c constraints.txt torch==2.13.0
	$(BIN)/pip install -c constraints.txt -e '.[dev,benchmarks]'
	touch $@

# A build tag such as +cpu names one machine's wheel, so it is cut off.
pin:
	rm -rf $(VENV)-pin
	python=$$($(FIND_PYTHON)) && $$python -m venv $(VENV)-pin
	$(VENV)-pin/bin/pip install torch==2.13.0
	$(VENV)-pin/bin/pip install -e '.[dev,benchmarks]'
	$(VENV)-pin/bin/pip freeze --exclude-editable | sed 's/+[a-z0-9.]*$$//' > constraints.txt
	rm -rf $(VENV)-pin
