# shellcheck shell=bash
# Shared by the scripts of this folder; sourced, not run. It sets the two variables below and defines functions.

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${VENV:-$ROOT/.venv}

# print_help: the comment at the top of the script that runs, up to its "set -euo pipefail".
print_help() {
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
}

# die MESSAGE...: end with one line and the status FAILURE, by default 2 for what was asked wrongly.
die() {
    echo "${0##*/}: $*" >&2
    exit "${FAILURE:-2}"
}

# need_value OPTION ARGUMENTS_LEFT: fail unless the option has a value.
need_value() {
    (($2 > 1)) || die "$1 needs a value"
}

# is_number NAME VALUE: fail unless VALUE is an integer >= 0.
is_number() {
    [[ $2 =~ ^[0-9]+$ ]] || die "$1 must be an integer >= 0, got '$2'"
}

# is_flag NAME VALUE: fail unless VALUE is 0 or 1.
is_flag() {
    [[ $2 == [01] ]] || die "$1 must be 0 or 1, got '$2'"
}

# Whether the machine has an NVIDIA GPU that works.
has_gpu() {
    nvidia-smi >/dev/null 2>&1
}

# Without a GPU vLLM reserves memory for a KV cache of this many GiB, by itself half of the machine's.
default_kv_cache() {
    has_gpu || export VLLM_CPU_KVCACHE_SPACE=${VLLM_CPU_KVCACHE_SPACE:-2}
}

# add_option VARIABLE: add the option that a variable of the environment sets to the array OPTIONS.
add_option() {
    [[ -z ${!1:-} ]] || OPTIONS+=("--$(tr '[:upper:]_' '[:lower:]-' <<<"$1")" "${!1}")
}

# environment_options: the same for all variables that mean an option of the run scripts.
environment_options() {
    local name
    for name in BATCH_SIZE NUM_SAMPLES BAYES_SIGMA MAX_TOKENS SYSTEM_PROMPT_FILE ENGINE_ARGS; do add_option "$name"; done
}

# error_lines LOG BYTES: the errors that a log has behind its first BYTES, the last three different ones. vLLM's
# processes put their name and a time in front of theirs, which may also be there without.
error_lines() {
    tail -c +$(($2 + 1)) -- "$1" | sed -E 's/^\([^)]*\) ERROR [^]]*\] //' | grep -E '^[A-Za-z.]*Error: ' |
        awk '!seen[$0]++' | tail -n 3
}

# printable: standard input without what a terminal would obey: control characters of both sets but the tab and the
# line break, and those that reorder a text. A log may quote what a model or a data set says.
printable() {
    LC_ALL=C tr -d '\000-\010\013-\037\177' |
        LC_ALL=C sed -E 's/\xc2[\x80-\x9f]//g; s/\xe2\x80[\x8b\x8e\x8f\xa8-\xae]//g; s/\xe2\x81[\xa0-\xaf]//g; s/\xd8\x9c//g'
}

# last_words LOG BYTES: why a process failed that found its log BYTES long: its errors, behind which shutting down may
# have written more, or the end of what it wrote.
last_words() {
    local own
    error_lines "$1" "$2" | printable && return
    own=$(tail -c +$(($2 + 1)) -- "$1" | tail -n 3 | printable)
    echo "${own:-(it wrote nothing)}"
}
