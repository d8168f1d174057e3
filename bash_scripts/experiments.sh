# shellcheck shell=bash
# Shared by the scripts of the published experiments; sourced, not run. Every name in capitals can be set from the
# environment. run_chunks starts processes and, from then on, ends them with the script.

# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
DATA_DIR=${DATA_DIR:-$ROOT/datasets}
RESULTS_DIR=${RESULTS_DIR:-results}
LOG_DIR=${LOG_DIR:-$RESULTS_DIR/logs}
GPUS_PER_PROCESS=${GPUS_PER_PROCESS:-1}
DRY_RUN=${DRY_RUN:-0}
if [[ -z ${PYTHON:-} ]]; then
    PYTHON=python3
    [[ -x $ROOT/.venv/bin/python ]] && PYTHON=$ROOT/.venv/bin/python
fi
pids=() # leaders of the process groups that run

# What the environment may say, for the help texts.
# shellcheck disable=SC2034  # used by the scripts that source this
ENVIRONMENT_HELP="\
  MODEL_BASE_DIR    folder of the models that short names stand for
  DATA_DIR          folder of the JSONL files     [datasets/ of this repository]
  RESULTS_DIR       where results go              [results]
  LOG_DIR           where logs go                 [RESULTS_DIR/logs]
  NUM_GPUS          GPUs to use, 0 for the CPU    [all of CUDA_VISIBLE_DEVICES or nvidia-smi]
  GPUS_PER_PROCESS  for tensor parallelism        [1]
  BATCH_SIZE, NUM_SAMPLES, BAYES_SIGMA, MAX_TOKENS, SYSTEM_PROMPT_FILE, ENGINE_ARGS
                    options of the Python script  [its own defaults]
  PYTHON            interpreter                   [.venv/bin/python, else python3]"

is_flag DRY_RUN "$DRY_RUN"

# The file of a data set that is given as a path, a file stem, or a stem without "_test" or with "_" for "-".
dataset_file() {
    local name=$1 candidate
    for candidate in "$name" "$DATA_DIR/$name.jsonl" "$DATA_DIR/${name}_test.jsonl" "$DATA_DIR/${name//_/-}.jsonl"; do
        if [[ -f $candidate ]]; then
            echo "$candidate"
            return
        fi
    done
    die "no data set '$name' in $DATA_DIR; give a JSONL file or run: $PYTHON $ROOT/datasets/download_data.py"
}

# A model given as a folder under MODEL_BASE_DIR becomes its path; the Python scripts know the short names.
model_location() {
    if [[ ! -e $1 && -n ${MODEL_BASE_DIR:-} && -d $MODEL_BASE_DIR/$1 ]]; then
        echo "$MODEL_BASE_DIR/$1"
    else
        echo "$1"
    fi
}

# The name of a data set as the scripts in eval/ look for its results: the file that it was generated from, where that is
# still there.
evaluated_dataset() {
    (dataset_file "$1") 2>/dev/null || echo "$1" # in a subshell, which "die" ends
}

# One line for each process to start: the GPUs it gets, separated by commas. No line at all means the CPU.
gpu_groups() {
    local gpus=() size i
    is_number GPUS_PER_PROCESS "$GPUS_PER_PROCESS"
    size=$((10#$GPUS_PER_PROCESS)) # 08 is not an octal number
    ((size)) || die "GPUS_PER_PROCESS must not be 0"
    if [[ -n ${NUM_GPUS:-} ]]; then
        is_number NUM_GPUS "$NUM_GPUS"
        local NUM_GPUS=$((10#$NUM_GPUS))
    fi
    if [[ -n ${CUDA_VISIBLE_DEVICES+set} ]]; then
        IFS=', ' read -ra gpus <<<"$CUDA_VISIBLE_DEVICES" || true
    elif [[ -n ${NUM_GPUS:-} ]]; then
        for ((i = 0; i < NUM_GPUS; i++)); do gpus+=("$i"); done
    elif command -v nvidia-smi >/dev/null && nvidia-smi --list-gpus >/dev/null 2>&1; then
        mapfile -t gpus < <(nvidia-smi --query-gpu=index --format=csv,noheader)
    fi
    local count=${NUM_GPUS:-${#gpus[@]}} IFS=,
    ((count <= ${#gpus[@]})) || die "NUM_GPUS=$count, but CUDA_VISIBLE_DEVICES='$CUDA_VISIBLE_DEVICES'"
    ((count == 0 || count >= size)) || die "GPUS_PER_PROCESS=$size, but there are $count GPUs"
    for ((i = 0; i + size <= count; i += size)); do
        echo "${gpus[*]:i:size}"
    done
}

# Print a command so that it can be pasted into a shell.
show() {
    local words
    printf -v words ' %q' "$@"
    echo "${words:1}"
}

# Run a command in place of this script, or print it.
finish_with() {
    if [[ $DRY_RUN == 1 ]]; then
        show "$@"
    else
        exec "$@"
    fi
}

# run_chunks SCRIPT DATASET MODEL SEED [OPTION...]
# Run SCRIPT in one process per GPU (or one on the CPU), each on its share of the problems, and wait for all of them.
# Returns 1 if one failed, after saying which one and where its log is.
run_chunks() {
    local script=$1 dataset model=$3 seed=$4 total groups
    dataset=$(dataset_file "$2") || return
    is_number seed "$seed"
    total=$(grep -c '[^[:space:]]' -- "$dataset") || die "$dataset holds no problems"
    local first=${DATASET_START:-0} last=${DATASET_END:-$total}
    is_number DATASET_START "$first"
    is_number DATASET_END "$last"
    first=$((10#$first)) last=$((10#$last))
    ((first < last && last <= total)) || die "DATASET_START=$first DATASET_END=$last is not a range of $total problems"
    groups=$(gpu_groups) || return
    mapfile -t groups <<<"$groups"

    OPTIONS=(--dataset-path "$dataset" --model-path "$(model_location "$model")" --output-dir "$RESULTS_DIR"
        --seed "$seed")
    environment_options
    end_children_with_script
    local problems=$((last - first)) processes=${#groups[@]} i start end label
    ((processes <= problems)) || processes=$problems
    label=$(basename -- "$model")_$(basename -- "$dataset" .jsonl)_seed$seed
    pids=() labels=() logs=() written=()
    for ((i = 0; i < processes; i++)); do
        start=$((first + i * problems / processes))
        end=$((first + (i + 1) * problems / processes))
        launch "${groups[i]}" "$LOG_DIR/${label}_$(basename -- "$script" .py)_${start}_$end.log" "problems $start to $((end - 1))" \
            "$PYTHON" "$script" "${OPTIONS[@]}" --dataset-start "$start" --dataset-end "$end" "${@:5}"
    done
    wait_for_all
}

# launch GPUS LOG LABEL COMMAND...: start a command as a process group of its own, or print it.
launch() {
    local group=$1 log=$2 label=$3 command=("${@:4}")
    # NUM_GPUS=0 must hide the GPUs that CUDA_VISIBLE_DEVICES may name.
    if [[ -n $group || ${NUM_GPUS:-} =~ ^0+$ ]]; then
        command=(env "CUDA_VISIBLE_DEVICES=$group" "${command[@]}")
    fi
    if [[ $DRY_RUN == 1 ]]; then
        echo "$(show "${command[@]}") >> $(show "$log") 2>&1"
        return
    fi
    mkdir -p -- "$(dirname -- "$log")"
    touch -- "$log"
    written+=("$(wc -c <"$log")") # by earlier runs
    set -m # a process group per child, so that the processes it starts end with it
    "${command[@]}" >>"$log" 2>&1 </dev/null &
    set +m
    pids+=("$!") labels+=("$label") logs+=("$log")
    echo "$label: ${group:+GPU $group, }log in $log"
}

# Wait for the processes of `launch`; return 1 if one failed.
wait_for_all() {
    local i status failed=0
    for i in "${!pids[@]}"; do
        status=0
        wait "${pids[i]}" || status=$?
        if ((status)); then
            failed=1
            echo "${labels[i]}: FAILED with status $status; see the log ${logs[i]}:" >&2
            last_words "${logs[i]}" "${written[i]}" | sed 's/^/    /' >&2
        else
            echo "${labels[i]}: done"
        fi
    done
    pids=()
    return "$failed"
}

# End what `launch` started: politely, and after ten seconds for good.
stop_children() {
    local pid i
    for pid in "${pids[@]}"; do kill -TERM -- "-$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do
        for ((i = 0; i < 100; i++)); do
            kill -0 -- "-$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL -- "-$pid" 2>/dev/null || true
    done
    pids=()
}

# End the children with the script, whatever ends it.
end_children_with_script() {
    trap stop_children EXIT
    trap 'echo "interrupted; start again to continue" >&2; exit 130' INT
    trap 'exit 143' TERM
    trap 'exit 129' HUP
}
