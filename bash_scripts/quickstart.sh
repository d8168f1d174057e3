#!/usr/bin/env bash
# From nothing to a detection table: does the uncertainty of an answer tell whether it is right?
#
#   bash bash_scripts/quickstart.sh                                   # a small embedded model on one-step arithmetic
#   bash bash_scripts/quickstart.sh --model PATH --dataset PATH.jsonl # your own model (converted if need be) and problems
#
# Sets up ./.venv, prepares model and problems, answers the problems in vLLM with per-token uncertainties, evaluates, and
# draws a token heat map of the most and the least certain answers. What vLLM and others print goes to a log file.
# Environment: MODEL, DATASET, SEEDS ("96 89 64"), NUM_SAMPLES, BAYES_SIGMA, MAX_TOKENS, BATCH_SIZE, DATASET_START,
# DATASET_END, SYSTEM_PROMPT_FILE, ENGINE_ARGS (JSON for vllm.LLM), RESULTS_DIR, LOG_DIR, TOKUR_CACHE, MOST and LEAST
# (answers in the heat map, 5 each), VERBOSE=1 (logs on the terminal, the whole table), and those of setup.sh.
# Problems that are answered already stay so; remove the results folder to answer them again. The exit status is not 0 if
# a problem could not be answered; the table is then of the others.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

MODEL=${MODEL:-}
DATASET=${DATASET:-}
VERBOSE=${VERBOSE:-0}
MOST=${MOST:-5}
LEAST=${LEAST:-5}
while (($#)); do
    case $1 in
    --model) need_value "$1" $# && MODEL=$2 && shift ;;
    --dataset) need_value "$1" $# && DATASET=$2 && shift ;;
    -h | --help) print_help && exit ;;
    *) die "unknown option '$1'; see --help" ;;
    esac
    shift
done
is_flag VERBOSE "$VERBOSE"
is_number MOST "$MOST"
is_number LEAST "$LEAST"
# Paths are the caller's, and the rest runs in the repository root.
if [[ -n $MODEL ]]; then
    [[ -d $MODEL ]] || die "--model $MODEL: no such folder"
    MODEL=$(cd "$MODEL" && pwd)
fi
[[ -z $DATASET || -f $DATASET ]] || die "--dataset $DATASET: no such file"
[[ -z ${SYSTEM_PROMPT_FILE:-} || -f $SYSTEM_PROMPT_FILE ]] || die "SYSTEM_PROMPT_FILE=$SYSTEM_PROMPT_FILE: no such file"
for name in DATASET SYSTEM_PROMPT_FILE RESULTS_DIR LOG_DIR TOKUR_CACHE; do
    [[ -z ${!name:-} || ${!name} == /* ]] || export "$name=$PWD/${!name}"
done
cd "$ROOT"

SEEDS=${SEEDS:-96}
NUM_SAMPLES=${NUM_SAMPLES:-5}
BATCH_SIZE=${BATCH_SIZE:-16}
RESULTS_DIR=${RESULTS_DIR:-results}
LOG=${LOG_DIR:-$RESULTS_DIR/logs}/quickstart.log
[[ -n ${TOKUR_CACHE:-}${HOME:-} ]] || die "HOME is not set; set TOKUR_CACHE to the folder that the model is kept in"
CACHE=${TOKUR_CACHE:-$HOME/.cache/tokur}
status=0 # of the whole: 1 if something is missing in the end

exec 3>&1 # what the user reads, also where standard output goes elsewhere
mkdir -p "$CACHE" "$(dirname "$LOG")"
log_options=() brief=()
if ((VERBOSE)); then
    exec 4>&1
else
    exec 4>>"$LOG"
    log_options=(--log-file "$LOG") brief=(--brief)
    export VLLM_LOGGING_LEVEL=${VLLM_LOGGING_LEVEL:-WARNING}
    date '+=== quickstart, %F %T ===' >&4
fi
scratch=$(mktemp -d)
ticker=
trap '[[ -z $ticker ]] || kill "$ticker" 2>/dev/null || true; rm -rf "$scratch"' EXIT
trap 'echo "interrupted; start again to continue" >&2; exit 130' INT # Python ends an interrupt with 1, like a failure

# tick TEXT BYTES: keep one line of the terminal up to date: for how long, and what the log says behind its first BYTES.
tick() {
    local began=$SECONDS line columns
    while kill -0 "$$" 2>/dev/null; do
        columns=$(stty size <&3 2>/dev/null | cut -d ' ' -f 2) || true
        line=$(tail -c +$(($2 + 1)) -- "$LOG" | tail -c 1000 | tr '\r' '\n' | tr '\t' ' ' | printable | grep . | tail -n 1) || true
        line="quickstart: $1 ($((SECONDS - began)) s)${line:+  $line}"
        printf '\r\033[K%s' "${line:0:$((${columns:-80} < 100 ? ${columns:-80} - 1 : 99))}" >&3
        sleep 1
    done
}

# stage TEXT COMMAND...: run a command, whose messages go to the log, and say what it does. Returns its status, after
# saying why it is not 0.
stage() {
    local text=$1 code=0 began=$SECONDS before=0
    shift
    ((VERBOSE)) || before=$(wc -c <"$LOG")
    if ((VERBOSE)) || [[ ! -t 3 ]]; then
        echo "quickstart: $text" >&3
    else
        tick "$text" "$before" &
        ticker=$!
    fi
    if ((VERBOSE)); then "$@" || code=$?; else "$@" 2>>"$LOG" || code=$?; fi
    if [[ -n $ticker ]]; then
        kill "$ticker" && wait "$ticker" 2>/dev/null || true
        ticker=
        printf '\r\033[Kquickstart: %s (%s s)\n' "$text" "$((SECONDS - began))" >&3
    fi
    if ((code)) && ! ((VERBOSE)); then
        echo "quickstart: $text: FAILED with status $code; see the log $LOG:" >&2
        last_words "$LOG" "$before" | cut -c -500 | sed 's/^/    /' >&2
    fi
    return "$code"
}

# answer SEED: let vLLM answer the problems, with a progress bar and errors on the terminal.
answer() {
    local code=0 before=0
    echo "quickstart: answering $(basename "$DATASET" .jsonl) with $(basename "$TFB_MODEL"), seed $1"
    ((VERBOSE)) || before=$(wc -c <"$LOG")
    python run/greedy_unc_single_batch_refine.py "${OPTIONS[@]}" --seed "$1" "${log_options[@]}" | tee "$scratch/answered" >&4 ||
        code=$?
    if ((code)) && ! ((VERBOSE)); then error_lines "$LOG" "$before" | cut -c -500 | sed 's/^/    /' >&2 || true; fi
    return "$code"
}

stage "setting up $(basename "$VENV")" bash bash_scripts/setup.sh >&4
# shellcheck source=/dev/null
. "$VENV/bin/activate"

default_kv_cache
if ! has_gpu; then
    # Compiling takes longer than these answers. What ENGINE_ARGS says counts; what is not JSON is refused later.
    ENGINE_ARGS=$(python -c '
import json, sys
try:
    print(json.dumps({"enforce_eager": True} | json.loads(sys.argv[1])))
except (ValueError, TypeError):
    print(sys.argv[1])' "${ENGINE_ARGS:-"{}"}")
fi
if [[ -z $MODEL ]]; then
    export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1}
    if ! has_gpu; then
        # The small model is answered with sooner than two more processes would have imported vLLM. In one process vLLM
        # leaves OpenMP alone, whose threads hinder each other if they are as many as the cores.
        export VLLM_ENABLE_V1_MULTIPROCESSING=${VLLM_ENABLE_V1_MULTIPROCESSING:-0}
        cores=$(nproc)
        threads=$((cores > 16 ? 8 : cores > 3 ? cores / 2 : 1))
        export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$threads}
    fi
fi

# shellcheck disable=SC2329  # it is the command of a stage
prepare() {
    python -m bayesian_transformer.embedded ${MODEL:+"$MODEL"} >"$scratch/model" || return
    [[ -n $DATASET ]] || python datasets/arithmetic.py --output "$CACHE/arithmetic.jsonl" >&4
}
stage "preparing model and problems" prepare
TFB_MODEL=$(tail -n 1 "$scratch/model")
if [[ -z $DATASET ]]; then
    DATASET=$CACHE/arithmetic.jsonl
    # Small models ramble; a short answer is quick and can be graded.
    if [[ -z ${SYSTEM_PROMPT_FILE:-} ]]; then
        SYSTEM_PROMPT_FILE=$CACHE/arithmetic_system_prompt.txt
        echo "Answer in one short sentence." >"$SYSTEM_PROMPT_FILE"
    fi
    MAX_TOKENS=${MAX_TOKENS:-64}
fi

OPTIONS=(--dataset-path "$DATASET" --model-path "$TFB_MODEL" --output-dir "$RESULTS_DIR")
environment_options
for name in DATASET_START DATASET_END; do add_option "$name"; done
read -ra seeds <<<"$SEEDS"
answers= # of the first seed that has some
for seed in "${seeds[@]}"; do
    answer "$seed" || status=$?
    ((status <= 1)) || exit "$status"
    answers=${answers:-$(sed -n 's/^[1-9][0-9]* problems have results in //p' "$scratch/answered")}
done
if [[ -z $answers ]]; then
    FAILURE=1
    ((VERBOSE)) && die "no problem has an answer; see the errors above"
    die "no problem has an answer; see the errors above, and the log $LOG"
fi

stage "grading and evaluating" python eval/eval_detect_multi_seed.py --dataset "$DATASET" --model "$TFB_MODEL" \
    --seeds "${seeds[@]}" --results-dir "$RESULTS_DIR" "${brief[@]}" >"$scratch/table" || status=$?
page=$(sed -n 's/^Report: //p' "$scratch/table")
if [[ -n $page ]]; then
    heat_map=$(dirname "$page")/heat_map.html
    stage "drawing the heat map" python -m bayesian_transformer.heat_map "$answers"/batch_results_*.jsonl \
        --tokenizer "$TFB_MODEL" --most "$MOST" --least "$LEAST" --title "$(basename "$TFB_MODEL") on $(basename "$DATASET" .jsonl)" \
        --output "$heat_map" >&4 || status=$?
fi

cat "$scratch/table"
[[ ! -f ${heat_map:-} ]] || echo "Heat map: $heat_map"
((VERBOSE)) || echo "Log: $LOG"
((status == 0)) || echo "quickstart: incomplete; see the errors above" >&2
exit "$status"
