#!/usr/bin/env bash
# Greedy answers with uncertainties for one data set and seed, one process per GPU.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=experiments.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/experiments.sh"

usage() {
    cat <<EOF
Usage: ${0##*/} [OPTIONS] [-- OPTIONS OF run/greedy_unc_single_batch_refine.py]

Split a data set into one part per GPU and answer each part in a process of its
own. A failed part does not stop the others; the exit status is then 1.
Start it again to continue, also with another number of GPUs: finished problems
are skipped.

Options (each can also be set from the environment):
  --dataset NAME    DATASET        data set or JSONL file                [math500]
  --model NAME      MODEL          TFB model: path, llama1b, qwen3b, ... [llama1b]
  --seed N          SEED           seed of the noise                     [96]
  --start N         DATASET_START  first problem                         [0]
  --end N           DATASET_END    one past the last problem             [all]
  --dry-run         DRY_RUN=1      print the commands only
  --help

Environment:
$ENVIRONMENT_HELP
EOF
}

DATASET=${DATASET:-math500}
MODEL=${MODEL:-llama1b}
SEED=${SEED:-96}
while (($#)); do
    case $1 in
    --dataset) need_value "$1" $# && DATASET=$2 && shift ;;
    --model) need_value "$1" $# && MODEL=$2 && shift ;;
    --seed) need_value "$1" $# && SEED=$2 && shift ;;
    --start) need_value "$1" $# && DATASET_START=$2 && shift ;;
    --end) need_value "$1" $# && DATASET_END=$2 && shift ;;
    --dry-run) DRY_RUN=1 ;;
    -h | --help) usage && exit ;;
    --) shift && break ;;
    *) die "unknown option '$1'; see --help" ;;
    esac
    shift
done

run_chunks "$ROOT/run/greedy_unc_single_batch_refine.py" "$DATASET" "$MODEL" "$SEED" "$@"
