#!/usr/bin/env bash
# Test-time scaling: accuracy against the number of responses per problem.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=experiments.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/experiments.sh"

usage() {
    cat <<EOF
Usage: ${0##*/} [OPTIONS] [-- OPTIONS OF eval/eval_scaling_test_multi_gpu.py]

    ${0##*/} --model llama1b --dataset math500 --seed 96 --generate

With --generate, first sample the responses in one process per GPU (start it
again to continue); then evaluate them, which needs no GPU.

Options (each can also be set from the environment):
  --model NAME      MODEL        TFB model: path, llama1b, qwen3b, ...      [llama1b]
  --dataset NAME    DATASET      data set or JSONL file                     [math500]
  --seed N          SEED         seed of noise, sampling and subsets        [96]
  --p_val P         P_VAL        share of the responses that may vote       [0.1]
  --n-particles N   N_PARTICLES  responses per problem                      [512]
  --mode MODE       MODE         all, majority, weighted, best_of_n, pass   [all]
  --generate        GENERATE=1   sample the responses first
  --dry-run         DRY_RUN=1    print the commands only
  --help

Environment:
$ENVIRONMENT_HELP
  TEMPERATURE       of sampling                   [0.8]
  DATASET_START, DATASET_END
                    part to sample responses for  [all problems]
  EVAL_DIR          where the summary goes        [RESULTS_DIR/eval]
  WORKERS           processes that grade answers  [2]
EOF
}

MODEL=${MODEL:-llama1b}
DATASET=${DATASET:-math500}
SEED=${SEED:-96}
P_VAL=${P_VAL:-0.1}
N_PARTICLES=${N_PARTICLES:-512}
MODE=${MODE:-all}
GENERATE=${GENERATE:-0}
while (($#)); do
    case $1 in
    --model) need_value "$1" $# && MODEL=$2 && shift ;;
    --dataset) need_value "$1" $# && DATASET=$2 && shift ;;
    --seed) need_value "$1" $# && SEED=$2 && shift ;;
    --p_val | --p-val) need_value "$1" $# && P_VAL=$2 && shift ;;
    --n-particles) need_value "$1" $# && N_PARTICLES=$2 && shift ;;
    --mode) need_value "$1" $# && MODE=$2 && shift ;;
    --generate) GENERATE=1 ;;
    --dry-run) DRY_RUN=1 ;;
    -h | --help) usage && exit ;;
    --) shift && break ;;
    *) die "unknown option '$1'; see --help" ;;
    esac
    shift
done
is_number seed "$SEED"
is_number n-particles "$N_PARTICLES"
is_flag GENERATE "$GENERATE"

if [[ $GENERATE == 1 ]]; then
    run_chunks "$ROOT/run/greedy_responses_unc.py" "$DATASET" "$MODEL" "$SEED" --n-particles "$N_PARTICLES" \
        ${TEMPERATURE:+--temperature "$TEMPERATURE"}
fi
command=("$PYTHON" "$ROOT/eval/eval_scaling_test_multi_gpu.py" --dataset "$(evaluated_dataset "$DATASET")"
    --model "$MODEL" --seed "$SEED" --p_val "$P_VAL" --n-particles "$N_PARTICLES" --mode "$MODE"
    --results-dir "$RESULTS_DIR")
# Says which problems have no results, and the gold answers if the results lack them.
if file=$(dataset_file "$DATASET" 2>/dev/null); then command+=(--dataset-path "$file"); fi
[[ -z ${EVAL_DIR:-} ]] || command+=(--output-dir "$EVAL_DIR")
[[ -z ${WORKERS:-} ]] || command+=(--workers "$WORKERS")
finish_with "${command[@]}" "$@"
