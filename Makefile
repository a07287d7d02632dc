# Two commands a newcomer needs: `make demo` and `make test`. Each sets up its own .venv and can be run again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One thread per process: stages bring their own processes, and small matrices lose by sharing cores.
export OMP_NUM_THREADS := 1
export GOMP_SPINCOUNT := 0

# IMAGE_BUILD takes the arguments of `docker build`, IMAGE_LOAD the names of built images. docs/containers.md has examples.
IMAGES ?= trainer operator mlflow postgres
IMAGE_BUILD ?= docker build
IMAGE_LOAD ?=
REGISTRY ?= localhost
TAG ?= dev
TORCH ?= cpu
REVISION := $(shell git describe --always --dirty 2>/dev/null)
image_context = $(if $(filter postgres,$(1)),images/postgres,.)

.DEFAULT_GOAL := help
.PHONY: help demo demo-seeds ablation ui test check unit integration chart format render lock images images-load clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.runtime ## the whole method on the shapes world: a minute to install, then two and a half minutes on two cores
	$(BIN)/unified-reward run jobs/examples/shapes.yaml

demo-seeds: $(VENV)/.runtime ## the demo's policies under three seeds, with mean and spread
	$(BIN)/unified-reward run jobs/examples/shapes-seeds.yaml

ablation: $(VENV)/.runtime ## untouched / random / point only / pair only / pair + point, three seeds
	$(BIN)/unified-reward run jobs/examples/shapes-ablation.yaml

ui: $(VENV)/.runtime ## the MLflow pages of all runs on this machine
	$(BIN)/unified-reward ui

test: check unit integration ## everything that must pass

check: $(VENV)/.test ## format, lint, types, import layers, rendered files up to date
	$(BIN)/ruff format --check src operators tests benchmarks
	$(BIN)/ruff check src operators tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m unified_reward.launch.render_components --check
	$(BIN)/python -m unified_reward.launch.render_jobs --check
	$(BIN)/python -m unified_reward.launch.render_docs --check
	$(BIN)/python -m operators.alignmentrun.crd --check

unit: $(VENV)/.test ## fast tests of logic
	$(BIN)/python -m pytest tests/unit

integration: $(VENV)/.test $(VENV)/.test-serve ## tests against real processes, MLflow and MinIO, and a short end-to-end run
	$(BIN)/python -m pytest tests/integration

# NAMESPACE, and the images' variables below, say where. IMAGES= (nothing) takes images that the cluster has already.
NAMESPACE ?= unified-reward
demo-cluster: $(VENV)/.runtime $(if $(IMAGES),images images-load) ## the demo on the cluster of your kubeconfig: images, helm install, kubectl apply
	PATH=$(CURDIR)/$(BIN):$$PATH jobs/demo-cluster.sh $(NAMESPACE) $(REGISTRY) $(TAG)

test-cluster: $(VENV)/.test $(if $(IMAGES),images images-load) ## tests on the cluster of your kubeconfig, in a namespace of their own
	PATH=$(CURDIR)/$(BIN):$$PATH UR_CLUSTER_TESTS=1 UR_REGISTRY=$(REGISTRY) UR_TAG=$(TAG) $(BIN)/python -m pytest tests/e2e -p no:cacheprovider --timeout 1200

chart: ## lint the Helm chart; what it renders is under test in tests/unit/test_chart*.py
	helm lint --strict charts/unified-reward

format: $(VENV)/.test ## rewrite the code in the house style
	$(BIN)/ruff format src operators tests benchmarks
	$(BIN)/ruff check --fix src operators tests benchmarks

render: $(VENV)/.test ## write again what is rendered from the config models
	$(BIN)/python -m unified_reward.launch.render_components
	$(BIN)/python -m unified_reward.launch.render_jobs
	$(BIN)/python -m unified_reward.launch.render_docs
	$(BIN)/python -m operators.alignmentrun.crd

lock: ## choose the newest versions that pyproject.toml allows and pin them
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/pip install -q . && build/lock/bin/pip freeze | sed -e '/unified-reward/d' -e "s/+cpu//" > requirements/runtime.txt
	build/lock/bin/pip install -q '.[test]' && build/lock/bin/pip freeze | sed -e '/unified-reward/d' -e "s/+cpu//" > requirements/test.txt
	build/lock/bin/pip install -q '.[test,test-serve]' && build/lock/bin/pip freeze | sed -e '/unified-reward/d' -e "s/+cpu//" \
	  | grep -vxFf requirements/test.txt > requirements/test-serve.txt
	build/lock/bin/pip install -q uv && UV="$(CURDIR)/build/lock/bin/uv" requirements/images/lock.sh

images: ## build ur-trainer, ur-operator, ur-mlflow, ur-postgres; see docs/containers.md for IMAGE_BUILD, REGISTRY, TAG, TORCH
	@test "$(TAG)" != latest || { echo "TAG is latest: nodes would not notice a new image. Name a version: make images TAG=dev" >&2; exit 2; }
	$(foreach image,$(IMAGES),$(IMAGE_BUILD) -t $(REGISTRY)/ur-$(image):$(TAG) $(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) \
	  $(if $(filter trainer,$(image)),--build-arg TORCH=$(TORCH) $(if $(TORCH_INDEX),--build-arg PIP_EXTRA_INDEX_URL=$(TORCH_INDEX))) \
	  --label org.opencontainers.image.version=$(TAG) --label org.opencontainers.image.revision=$(REVISION) \
	  -f images/$(image)/Dockerfile $(call image_context,$(image)) &&) true

images-load: ## hand the built images to the cluster's nodes with IMAGE_LOAD, or to a registry
	@test -n "$(IMAGE_LOAD)" || { echo "IMAGE_LOAD is not set, for example: make images-load IMAGE_LOAD='kind load docker-image'" >&2; exit 2; }
	$(foreach image,$(IMAGES),$(IMAGE_LOAD) $(REGISTRY)/ur-$(image):$(TAG) &&) true

$(VENV)/.runtime: requirements/runtime.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "PYTHON is %s: Python 3.11 or newer is needed. Run make PYTHON=python3.11 ..." % sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements/runtime.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

$(VENV)/.test: requirements/test.txt $(VENV)/.runtime
	$(BIN)/pip install --quiet --requirement requirements/test.txt
	touch $@

# What `transformers serve` needs, in a folder that only this server sees: in the environment, torchvision would change how
# transformers prepares pictures, and its wheel cannot be imported beside a CPU build of torch.
$(VENV)/.test-serve: requirements/test-serve.txt $(VENV)/.test
	rm -rf $(VENV)/transformers-serve
	$(BIN)/pip install --quiet --no-deps --target $(VENV)/transformers-serve --requirement requirements/test-serve.txt
	touch $@

clean: ## remove the environment and all embedded runs
	rm -rf $(VENV) .unified-reward build
