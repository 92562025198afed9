# make train      set up (once) and run the quickstart: LegS, LSTM and GRU on permuted digits
# make test       set up (once) and run the tests
# make test-all   the long tests too; tests of engines that are not installed (docs/guides/many-runs.md) are skipped
# make table-...  run or resume the trainings behind a table, and write it: table-hippo-1 (permuted MNIST), table-hippo-2
#                 (CharacterTrajectories), table-hippo-3 (function approximation), table-hippo-appendix (copying, adding, IMDB),
#                 table-lmu (Mackey-Glass), table-hmlstm, table-igloo (copy memory), table-igloo-mnist, table-successors
#                 (100,000 parameters each), table-memory (tests of memory, three hours of two cores), table-uea (long series,
#                 whose files must be there); hours to days. TABLE_FLAGS=scale=smoke tries it in minutes, and for table-hippo-1
#                 TABLE_FLAGS=scale=small has 128 units and 10 epochs. `python -m benchmarks.papers runs` collects the trials
# make setup      set up and stop
# make bench      speed and memory next to other implementations (minutes; needs quiet cores)
# make gpu        test, time and train on the GPU of this machine, in at most eight minutes and without a network. It uses VENV, or
#                 PYTHON where there is no VENV, as it is, and builds nothing; `make setup KEEP_TORCH=1` once adds what is missing
#                 there to an installed torch. GPU_FLAGS="--keep" writes to benchmarks/results
# make sanitize   compile csrc/ under AddressSanitizer and UndefinedBehaviorSanitizer into build/sanitize (a quarter of an hour) and
#                 run the tests of operators and kept memory on it, with the long fuzz; PYTEST_FLAGS=... selects others
# make configs    write the defaults and comments of cfg/ from the signatures that they belong to
# make docs       build the documentation into build/site; a link that leads nowhere is an error
# make lint       ruff and mypy
# make clean      remove .venv and all build outputs
#
# PYTHON=python3.12 chooses a different interpreter for .venv. VENV=PATH uses an existing environment instead of .venv.
# VERSIONS=lowest or newest installs the ends of requirements/ranges.txt instead of the tested requirements.txt.
# PIP_FLAGS="..." is passed to pip; KEEP_TORCH=1 leaves the torch and torchvision that are installed (docs/guides/install.md).

PYTHON ?= python3.11
VENV ?= .venv
PIP_FLAGS ?=
KEEP_TORCH ?=
VERSIONS ?= locked
PYTEST_FLAGS ?=
TABLE_FLAGS ?=
GPU_FLAGS ?=

python := $(VENV)/bin/python
versions := $(if $(KEEP_TORCH),kept_torch,$(VERSIONS))
installed := $(VENV)/.seqmem-requirements-$(versions)
built := $(VENV)/.seqmem-built
# The folder too: it is newer after a source is removed or renamed.
sources := pyproject.toml setup.py src/seqmem/ops/sources.py csrc $(wildcard csrc/*)

# Evaluated at use only: importing torch takes seconds.
torch_path = $(shell $(python) -c 'from torch.utils import cpp_extension as c; print(*$(1))')
sanitized := build/sanitize/_extension.so
# Tests of the optimised build's rounding.
rounding := tests/ops/test_long_runs.py $(addprefix tests/ops/test_selective_scan.py::,test_softplus_and_silu_are_precise test_float32_over_many_steps)
sanitize_flags := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g1 -O1

# Arguments of pip for each set of versions.
wanted_locked := requirements.txt
flags_locked := --require-hashes -r $(wanted_locked)
wanted_lowest := $(VENV)/lowest.txt
flags_lowest := -r $(wanted_lowest)
wanted_newest := requirements/ranges.txt
flags_newest := --upgrade -r $(wanted_newest)
wanted_kept_torch := $(VENV)/all_but_torch.txt $(VENV)/constraints.txt
flags_kept_torch := -r $(VENV)/all_but_torch.txt -c $(VENV)/constraints.txt
ifndef wanted_$(versions)
$(error VERSIONS: got '$(VERSIONS)', expected locked, lowest or newest)
endif

comma := ,
empty :=
rows = $(subst $(empty) $(empty),$(comma),$(patsubst cfg/experiment/%.yaml,%,$(sort $(wildcard cfg/experiment/$(1).yaml))))
tables := table-hippo-1 table-hippo-2 table-hippo-3 table-hippo-appendix table-lmu table-hmlstm table-igloo table-igloo-mnist
tables += table-successors table-memory table-uea

.PHONY: $(tables) train test test-all setup bench gpu sanitize configs docs lint clean

train: setup
	$(python) train.py -m experiment=quickstart

# One thread in each of as many processes as there are cores.
test: setup
	OMP_NUM_THREADS=1 $(python) -m pytest -n auto $(PYTEST_FLAGS)

test-all: setup
	@echo "for the tests of every engine: $(python) -m pip install$(foreach extra,joblib slurm ray optuna wandb, -r requirements/$(extra).txt)"
	OMP_NUM_THREADS=1 $(python) -m pytest -n auto --run-slow --run-browser --run-cluster $(PYTEST_FLAGS)

table-hippo-1: experiments = $(call rows,hippo/pmnist_*)
table-hippo-2: experiments = $(call rows,hippo/ct_*)
table-hippo-3: experiments = $(call rows,hippo/function_approximation_*)
table-hippo-appendix: experiments = $(call rows,hippo/copying_*),$(call rows,hippo/adding_*),$(call rows,hippo/imdb_*)
table-lmu: experiments = $(call rows,lmu/*)
table-hmlstm: experiments = $(call rows,hmlstm/*)
table-igloo: experiments = igloo/copy_memory_table
table-igloo: also = model=lstm,gru dataset.length=1000 train.lr=0.001
table-igloo-mnist: experiments = igloo/pmnist
table-successors: experiments = $(call rows,successors/pmnist_*),$(call rows,successors/ct_*)

table-memory: experiments = $(subst $(comma)memory/selective_copying_4096,,$(call rows,memory/*))
table-uea: experiments = $(call rows,uea/*)
table-memory table-uea: models = model=legs,lmu_plain,lstm,gru,s4d,lru,s5,mingru,mamba,slstm

$(tables): setup
	$(python) train.py -m experiment=$(experiments) $(models) $(TABLE_FLAGS)
	$(if $(also),$(python) train.py -m experiment=$(experiments) $(also) $(TABLE_FLAGS))

setup: $(built)

bench: setup
	$(python) -m benchmarks.run

gpu:
	$(or $(wildcard $(python)),$(PYTHON)) -m benchmarks.gpu $(GPU_FLAGS)

# No leak detection: Python and torch keep their allocations to the end.
sanitize: setup $(sanitized)
	OMP_NUM_THREADS=1 SEQMEM_EXTENSION=$(CURDIR)/$(sanitized) ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 \
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
	$(python) -m pytest -n 0 --run-slow $(PYTEST_FLAGS) $(or $(SANITIZE_TESTS),$(addprefix --deselect ,$(rounding)) tests/ops tests/training/test_freed_memory.py tests/cells/test_legs.py tests/cells/test_gated.py)

$(sanitized): $(patsubst csrc/%.cpp,build/sanitize/%.o,$(wildcard csrc/*.cpp)) build/sanitize/seqmem_sources.o
	$(CXX) $(sanitize_flags) -shared $^ -o $@ $(addprefix -L,$(call torch_path,c.library_paths())) -lc10 -ltorch_cpu

build/sanitize/seqmem_sources.o: $(sources) | $(installed)
	@mkdir -p $(@D)
	$(python) src/seqmem/ops/sources.py "$(sanitize_flags)" | $(CXX) -x c++ -fPIC -c - -o $@

build/sanitize/%.o: csrc/%.cpp $(wildcard csrc/*.h) | $(installed)
	@mkdir -p $(@D)
	$(CXX) $(sanitize_flags) -std=c++20 -fopenmp -fPIC -fvisibility=hidden -fno-math-errno -ffp-contract=fast \
	$(addprefix -isystem ,$(call torch_path,c.include_paths())) -c $< -o $@

configs: setup
	$(python) -m seqmem.cli.defaults

docs: setup
	NO_MKDOCS_2_WARNING=1 $(python) -m mkdocs build --strict --quiet

lint: setup
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	$(python) -m mypy

clean:
	rm -rf .venv build csrc/build csrc/*.egg-info src/*.egg-info src/seqmem/ops/*.so

$(python):
	$(PYTHON) -m venv $(if $(KEEP_TORCH),--system-site-packages) $(VENV)

$(installed): $(wanted_$(versions)) | $(python)
	$(python) -m pip install $(PIP_FLAGS) $(flags_$(versions))
	rm -f $(VENV)/.seqmem-requirements*
	touch $@

$(VENV)/lowest.txt: requirements/ranges.txt | $(python)
	sed -E 's/>=([0-9.]+).*/==\1/' $< >$@

$(VENV)/all_but_torch.txt: requirements/ranges.txt | $(python)
	grep -vE '^torch(vision)?>' $< >$@

# A kept torch may have installed CUDA libraries of its own versions.
$(VENV)/constraints.txt: requirements.txt | $(python)
	grep -oE '^[A-Za-z0-9._-]+==[^ ]+' $< | grep -vE '^(torch|torchvision|triton|cuda-.*|nvidia-.*)==' >$@

$(built): $(installed) $(sources)
	@echo "compiling csrc/, unless its sources are unchanged: one to five minutes"
	-$(python) setup.py build_ext --inplace
	$(python) -m pip install --no-build-isolation --no-deps -e .
	$(python) -m seqmem.ops
	touch $@
