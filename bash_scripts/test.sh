#!/usr/bin/env bash
# Sets up ./.venv, then checks style, types and shell scripts and runs all tests.
#
#   bash bash_scripts/test.sh                       # everything; the last line is pytest's summary
#   bash bash_scripts/test.sh -m "not engine" -x    # arguments go to pytest
#
#   TEST_PROCESSES         test processes at a time; default: one per core, at most 4
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
    print_help
    exit
fi
cd "$ROOT"
bash bash_scripts/setup.sh
# shellcheck source=/dev/null
source "$VENV/bin/activate"

export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
default_kv_cache

ruff check .
ruff format --check .
# Each folder by itself: the one called datasets bears the name of an installed package.
mypy bayesian_transformer/bayesian_transformer run eval benchmarks convert_to_tfb.py examples tests
mypy datasets/*.py
shellcheck bash_scripts/*.sh .ci/run
python -m bayesian_transformer.embedded >/dev/null # made once, not by several test processes at a time
# An engine takes memory, so no more than four processes. nproc would take OMP_NUM_THREADS for the number of cores.
CORES=$(env -u OMP_NUM_THREADS nproc)
PROCESSES=${TEST_PROCESSES:-$((CORES < 4 ? CORES : 4))}
python -m pytest -n "$PROCESSES" --dist loadgroup --no-loadscope-reorder "$@"
