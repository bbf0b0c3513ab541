# The two commands a newcomer needs: `make demo` and `make test`.
VENV := .venv
PY   := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.PHONY: demo test lint types bench ci clean

$(PY):
	python3 -m venv $(VENV)

$(STAMP): pyproject.toml | $(PY)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet -e '.[test,dev]'
	touch $(STAMP)
