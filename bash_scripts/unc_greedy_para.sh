#!/usr/bin/env bash
# Greedy answers with uncertainties for several data sets and seeds, one process per GPU.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=experiments.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/experiments.sh"

usage() {
    cat <<EOF
Usage: ${0##*/} [OPTIONS] [-- OPTIONS OF run/greedy_unc_single_batch_refine.py]

What unc_greedy_single_para_batch.sh does, for each data set and seed in turn.
A failed run does not stop the others; the exit status is then 1.

Options (each can also be set from the environment):
  --datasets "A B"  DATASETS   data sets or JSONL files   [math500 gsm8k_test deepscaler]
  --model NAME      MODEL      TFB model: path, llama1b, qwen3b, ...  [llama1b]
  --seeds "N M"     SEEDS      seeds of the noise         [96 89 64]
  --dry-run         DRY_RUN=1  print the commands only
  --help

Environment:
$ENVIRONMENT_HELP
EOF
}

DATASETS=${DATASETS:-math500 gsm8k_test deepscaler}
MODEL=${MODEL:-llama1b}
SEEDS=${SEEDS:-96 89 64}
while (($#)); do
    case $1 in
    --datasets) need_value "$1" $# && DATASETS=$2 && shift ;;
    --model) need_value "$1" $# && MODEL=$2 && shift ;;
    --seeds) need_value "$1" $# && SEEDS=$2 && shift ;;
    --dry-run) DRY_RUN=1 ;;
    -h | --help) usage && exit ;;
    --) shift && break ;;
    *) die "unknown option '$1'; see --help" ;;
    esac
    shift
done
read -ra datasets <<<"$DATASETS"
read -ra seeds <<<"$SEEDS"
((${#datasets[@]} && ${#seeds[@]})) || die "DATASETS and SEEDS must not be empty"
for dataset in "${datasets[@]}"; do dataset_file "$dataset" >/dev/null; done
for seed in "${seeds[@]}"; do is_number seed "$seed"; done

failed=()
for dataset in "${datasets[@]}"; do
    for seed in "${seeds[@]}"; do
        [[ $DRY_RUN == 1 ]] || echo "== $MODEL on $dataset, seed $seed"
        run_chunks "$ROOT/run/greedy_unc_single_batch_refine.py" "$dataset" "$MODEL" "$seed" "$@" ||
            failed+=("$dataset seed $seed")
    done
done
if ((${#failed[@]})); then
    printf "${0##*/}: incomplete: %s\n" "${failed[@]}" >&2
    exit 1
fi
