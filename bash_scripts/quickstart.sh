#!/usr/bin/env bash
# From nothing to a detection table: does the uncertainty of an answer tell whether it is right?
#
#   bash bash_scripts/quickstart.sh                                   # a small embedded model on one-step arithmetic
#   bash bash_scripts/quickstart.sh --model PATH --dataset PATH.jsonl # your own model (converted if need be) and problems
#
# Sets up ./.venv, prepares model and problems, answers the problems in vLLM with per-token uncertainties, and evaluates.
# Environment: MODEL, DATASET, SEEDS ("96 89 64"), NUM_SAMPLES, BAYES_SIGMA, MAX_TOKENS, BATCH_SIZE, DATASET_START,
# DATASET_END, SYSTEM_PROMPT_FILE, ENGINE_ARGS (JSON for vllm.LLM), RESULTS_DIR, TOKUR_CACHE, and those of setup.sh.
# Problems that are answered already stay so; remove the results folder to answer them again. The exit status is not 0 if
# a problem could not be answered; the table is then of the others.
set -euo pipefail

usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; }

fail() {
    echo "quickstart: $*" >&2
    exit 2
}

MODEL=${MODEL:-}
DATASET=${DATASET:-}
while (($#)); do
    case $1 in
        --model | --dataset)
            (($# > 1)) || fail "$1 needs a path"
            if [[ $1 == --model ]]; then MODEL=$2; else DATASET=$2; fi
            shift 2
            ;;
        --help | -h)
            usage
            exit 0
            ;;
        *) fail "unknown option $1; see --help" ;;
    esac
done
# Paths are the caller's, and the rest runs in the repository root.
if [[ -n $MODEL ]]; then
    [[ -d $MODEL ]] || fail "--model $MODEL: no such folder"
    MODEL=$(cd "$MODEL" && pwd)
fi
[[ -z $DATASET || -f $DATASET ]] || fail "--dataset $DATASET: no such file"
[[ -z ${SYSTEM_PROMPT_FILE:-} || -f $SYSTEM_PROMPT_FILE ]] || fail "SYSTEM_PROMPT_FILE=$SYSTEM_PROMPT_FILE: no such file"
for name in DATASET SYSTEM_PROMPT_FILE RESULTS_DIR TOKUR_CACHE; do
    [[ -z ${!name:-} || ${!name} == /* ]] || export "$name=$PWD/${!name}"
done

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"
bash bash_scripts/setup.sh
# shellcheck source=/dev/null
source "${VENV:-$ROOT/.venv}/bin/activate"

SEEDS=${SEEDS:-96}
NUM_SAMPLES=${NUM_SAMPLES:-5}
BATCH_SIZE=${BATCH_SIZE:-16}
RESULTS_DIR=${RESULTS_DIR:-results}
CACHE=${TOKUR_CACHE:-$HOME/.cache/tokur}
mkdir -p "$CACHE"
if ! nvidia-smi >/dev/null 2>&1; then
    export VLLM_CPU_KVCACHE_SPACE=${VLLM_CPU_KVCACHE_SPACE:-2}
fi
if [[ -z $MODEL ]]; then
    export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1}
fi

echo "quickstart: preparing the model"
TFB_MODEL=$(python -m bayesian_transformer.embedded ${MODEL:+"$MODEL"})
if [[ -z $DATASET ]]; then
    DATASET=$CACHE/arithmetic.jsonl
    python datasets/arithmetic.py --output "$DATASET"
    # Small models ramble; a short answer is quick and can be graded.
    if [[ -z ${SYSTEM_PROMPT_FILE:-} ]]; then
        SYSTEM_PROMPT_FILE=$CACHE/arithmetic_system_prompt.txt
        echo "Answer in one short sentence." >"$SYSTEM_PROMPT_FILE"
    fi
    MAX_TOKENS=${MAX_TOKENS:-64}
fi

options=(--dataset-path "$DATASET" --model-path "$TFB_MODEL" --output-dir "$RESULTS_DIR")
options+=(--num-samples "$NUM_SAMPLES" --batch-size "$BATCH_SIZE" --max-tokens "${MAX_TOKENS:-2048}")
[[ -z ${BAYES_SIGMA:-} ]] || options+=(--bayes-sigma "$BAYES_SIGMA")
[[ -z ${DATASET_START:-} ]] || options+=(--dataset-start "$DATASET_START")
[[ -z ${DATASET_END:-} ]] || options+=(--dataset-end "$DATASET_END")
[[ -z ${SYSTEM_PROMPT_FILE:-} ]] || options+=(--system-prompt-file "$SYSTEM_PROMPT_FILE")
[[ -z ${ENGINE_ARGS:-} ]] || options+=(--engine-args "$ENGINE_ARGS")

read -ra seeds <<<"$SEEDS"
status=0
trap 'exit 130' INT # Python ends an interrupt with 1, like a problem without an answer
for seed in "${seeds[@]}"; do
    echo "quickstart: answering $(basename "$DATASET") with $(basename "$TFB_MODEL"), seed $seed"
    python run/greedy_unc_single_batch_refine.py "${options[@]}" --seed "$seed" || status=$?
    ((status <= 1)) || exit "$status"
done

echo "quickstart: evaluating"
python eval/eval_detect_multi_seed.py --dataset "$DATASET" --model "$TFB_MODEL" --seeds "${seeds[@]}" --results-dir "$RESULTS_DIR" || status=$?
echo "quickstart: answers and uncertainties are under $RESULTS_DIR; each run named its folder above"
((status == 0)) || echo "quickstart: incomplete; see the errors above" >&2
exit "$status"
