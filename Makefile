PYTHON ?= python3
PYTEST_ARGS ?=
# `make test PYTEST_ARGS=-n0` runs the tests in a single process.
PYTEST := -m pytest -n logical --maxprocesses 4
VENV := .venv
OLDEST := .venv-oldest
INTEGRATIONS := .venv-integrations
CLEAN := .venv-wheel
PEER_ENVIRONMENTS := $(VENV) $(OLDEST)
PIP_INSTALL := -m pip install --quiet --no-input --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help venv test test-slow test-integrations test-oldest peer-test lint format demo demo-training bench wheel extras clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

venv: $(VENV)/.installed  ## create .venv with the versions of constraints.txt

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python $(PIP_INSTALL) -c constraints.txt -e ".[dev]"
	touch $@

$(OLDEST)/.installed: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python $(PIP_INSTALL) -c constraints-oldest.txt -e ".[test]"
	touch $@

test: venv  ## run the tests
	$(VENV)/bin/python $(PYTEST) $(PYTEST_ARGS)

test-slow: venv  ## run the tests that take longer
	$(VENV)/bin/python $(PYTEST) -m slow --timeout 900 $(PYTEST_ARGS)

$(INTEGRATIONS)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(INTEGRATIONS)
	$(INTEGRATIONS)/bin/python $(PIP_INSTALL) -c constraints.txt -e ".[integrations]"
	touch $@

test-integrations: $(INTEGRATIONS)/.installed  ## run the tests that need torchao, openvino or executorch
	$(INTEGRATIONS)/bin/python $(PYTEST) $(PYTEST_ARGS) tests/integrations tests/mobile tests/deployment tests/project/test_extras.py

test-oldest: $(OLDEST)/.installed  ## run the tests with the oldest supported versions, in .venv-oldest
	$(OLDEST)/bin/python $(PYTEST) $(PYTEST_ARGS)

# `make peer-test PEER_ENVIRONMENTS=.venv` runs those of the newest version alone.
peer-test: $(PEER_ENVIRONMENTS:%=%/.installed)  ## run the tests of Transformers' own models on ours, newest and oldest version
	for environment in $(PEER_ENVIRONMENTS); do \
		$$environment/bin/python tests/peer/fetch_suite.py && \
		$$environment/bin/python -m pytest -c tests/peer/pytest.ini $(PYTEST_ARGS) tests/peer || exit; \
	done

lint: venv  ## check style, format and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: venv  ## fix style and format
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

demo: venv  ## name what is in eight free recordings, with the model in checkpoints/hear-tiny
	@$(VENV)/bin/python examples/predict.py checkpoints/hear-tiny examples/sounds
	@echo
	@echo "Your recordings:  $(VENV)/bin/python examples/predict.py checkpoints/hear-tiny FILES_OR_FOLDERS"
	@echo "Your labels:      $(VENV)/bin/python examples/finetune.py --model_name_or_path checkpoints/hear-tiny --data_dir FOLDER"
	@echo "In a browser:     $(VENV)/bin/python examples/space/app.py"

demo-training: venv  ## train HEAR on spoken digits made here, then name three by voices that it never heard
	$(VENV)/bin/python examples/finetune.py --output_dir runs/demo \
		--num_train_epochs 5 --train_sampling_strategy group_by_length
	$(VENV)/bin/python examples/predict.py runs/demo

bench: venv  ## time HEAR beside the original and other models on one core, in some ten minutes
	$(VENV)/bin/python benchmarks/speed.py
	$(VENV)/bin/python benchmarks/loading.py
	$(VENV)/bin/python benchmarks/long_audio.py --minutes 1 10

IMPORT_CHECK := 'import hear_hf; from transformers import AutoConfig; AutoConfig.for_model("hear"); print(hear_hf.__file__)'
EXTRAS := data evaluation sharing train onnx openvino executorch

# -I keeps the source tree off the path: what is imported, and trains on a few tones, is the wheel.
wheel: venv  ## build dist/, import the wheel in an environment of its own, and fine-tune there as docs/finetuning.md shows
	rm -rf build dist $(CLEAN)
	$(VENV)/bin/python -m build --outdir dist
	$(PYTHON) -m venv $(CLEAN)
	$(CLEAN)/bin/python $(PIP_INSTALL) --no-compile -c constraints.txt dist/*.whl
	cd dist && ../$(CLEAN)/bin/python -I -c $(IMPORT_CHECK)
	$(CLEAN)/bin/python $(PIP_INSTALL) --no-compile -c constraints.txt "$$(ls $$PWD/dist/*.whl)[train]"
	mkdir dist/empty && cd dist/empty && sed -n '/^```python/,/^```/{/^```/!p}' ../../docs/finetuning.md > ../lines.py && \
		../../$(CLEAN)/bin/python -I ../lines.py

extras: wheel  ## import each sub-package of the wheel in a new environment with its extra alone; some minutes
	for extra in $(EXTRAS); do \
		rm -rf $(CLEAN)-extra && $(PYTHON) -m venv $(CLEAN)-extra && \
		$(CLEAN)-extra/bin/python $(PIP_INSTALL) --no-compile -c constraints.txt "$$(ls $$PWD/dist/*.whl)[$$extra]" && \
		(cd dist && ../$(CLEAN)-extra/bin/python -I ../tests/project/import_extra.py $$extra) || exit; \
	done
	rm -rf $(CLEAN)-extra

clean:  ## remove environments, builds and caches
	rm -rf $(VENV) $(OLDEST) $(CLEAN) $(CLEAN)-extra .peer build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
