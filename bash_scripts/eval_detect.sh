#!/usr/bin/env bash
# How well do the uncertainties tell right from wrong answers? The detection table over several seeds.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=experiments.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/experiments.sh"

usage() {
    cat <<EOF
Usage: ${0##*/} [--dry-run] DATASET MODEL [SEED...] [-- OPTIONS OF eval/eval_detect_multi_seed.py]

    ${0##*/} math500 llama1b 96 89 64

Evaluate what unc_greedy_para.sh wrote. Needs no GPU.

Environment:
  DATA_DIR     folder of the JSONL files            [datasets/ of this repository]
  SEEDS        seeds if none is given               [96 89 64]
  RESULTS_DIR  where the results are                [results]
  EVAL_DIR     where the report goes                [RESULTS_DIR/eval]
  WORKERS      processes that grade answers         [2]
  BOOTSTRAP    bootstrap draws for the intervals    [the script's default]
  DRY_RUN=1    print the command only, as --dry-run
  PYTHON       interpreter                          [.venv/bin/python, else python3]
EOF
}

words=()
while (($#)); do
    case $1 in
    --dry-run) DRY_RUN=1 ;;
    -h | --help) usage && exit ;;
    --) shift && break ;;
    -*) die "unknown option '$1'; see --help" ;;
    *) words+=("$1") ;;
    esac
    shift
done
((${#words[@]} >= 2)) || die "give a data set and a model, like: ${0##*/} math500 llama1b 96 89 64"
seeds=("${words[@]:2}")
((${#seeds[@]})) || read -ra seeds <<<"${SEEDS:-96 89 64}"
for seed in "${seeds[@]}"; do is_number seed "$seed"; done

command=("$PYTHON" "$ROOT/eval/eval_detect_multi_seed.py" --dataset "$(evaluated_dataset "${words[0]}")"
    --model "${words[1]}" --results_subdir greedy_unc --seeds "${seeds[@]}" --results-dir "$RESULTS_DIR")
[[ -z ${EVAL_DIR:-} ]] || command+=(--output-dir "$EVAL_DIR")
[[ -z ${WORKERS:-} ]] || command+=(--workers "$WORKERS")
[[ -z ${BOOTSTRAP:-} ]] || command+=(--bootstrap "$BOOTSTRAP")
finish_with "${command[@]}" "$@"
