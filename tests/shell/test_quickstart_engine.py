"""quickstart.sh for real, with vLLM on the CPU: the screen that a user sees, what is left behind, and failures."""

import json
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from bayesian_transformer.scores import SCORE_BY_NAME
from eval.utils.brief import ROWS
from tests.helpers.bash_scripts import SCRIPTS, Experiments, prepared_venv
from tests.helpers.heat_map_pages import Page

pytestmark = pytest.mark.engine
SCREEN = (40, 100)  # lines and columns
# How vLLM, torch and their libraries begin a line, and Python a traceback.
NOISE = re.compile(r"(?m)^(\(\w+ pid=\d+\)|INFO|WARNING|\[W\d+|Triton|Loading|Traceback|/\S+\.py:\d+)")


@pytest.fixture
def experiments(data_sets: Path, smollm2_tfb_path: Path, tmp_path: Path) -> Experiments:
    made = Experiments(data_sets, smollm2_tfb_path)
    venv = prepared_venv(tmp_path / "venv")
    made.env |= {"VENV": venv, "PATH": f"{venv}/bin:{made.env['PATH']}"}  # no GPU, for setup.sh
    return made


def on_a_terminal(experiments: Experiments) -> list[str]:
    """The lines that a terminal shows in the end; the quickstart must end with status 0."""
    ours, theirs = pty.openpty()
    command, output = ["bash", str(SCRIPTS / "quickstart.sh")], b""
    with subprocess.Popen(
        ["bash", "-c", 'stty columns 100 rows 40 <&1 && exec "$@"', "-", *command],
        env=experiments.env,
        cwd=experiments.folder,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        try:
            while part := os.read(ours, 4096):
                output += part
        except OSError:  # nobody has the other end any more
            os.close(ours)
    text = output.decode().replace(f"{experiments.folder}/", "")  # paths are as long as they are
    assert process.returncode == 0, text
    states = [[state for state in re.split(r"\r(?:\x1b\[K)?", line) if state.strip()] for line in text.split("\n")]
    assert max(len(state) for line in states for state in line) <= SCREEN[1]
    return [line[-1] if line else "" for line in states]


def path_after(lines: list[str], title: str, folder: Path) -> Path:
    (line,) = (line for line in lines if line.startswith(f"{title}: "))
    return folder / line.removeprefix(f"{title}: ")


def mean_eu(record: dict[str, list[float]]) -> float:
    return sum(record["epistemic"]) / len(record["epistemic"])


def test_one_screen_with_the_table_and_the_way_to_everything_else(experiments: Experiments) -> None:
    """Twice, with relative paths, which are those of the folder that it is started in; then once more, aloud."""
    (experiments.folder / "brief.txt").write_text("Answer with a number.")
    experiments.env |= {"MODEL": "", "DATASET_END": "8", "RESULTS_DIR": "a", "SYSTEM_PROMPT_FILE": "brief.txt"}
    experiments.env |= {"MOST": "2", "LEAST": "1", "ENGINE_ARGS": '{"max_model_len": 256}'}
    folder = experiments.folder / "a/TFB-SmolLM2-135M-Instruct_results_vllm_pg/arithmetic/seed96/greedy_unc"
    before: dict[str, bytes] = {}
    for again in (False, True):
        lines = on_a_terminal(experiments)
        text = "\n".join(lines)
        assert len(lines) <= SCREEN[0]
        assert NOISE.search(text) is None
        assert ("| 8/8 [" in text) != again  # the bar; nothing is left to answer
        assert [line for line in lines if line.split("  ")[0] in {SCORE_BY_NAME[name].label for name in ROWS}][5:]
        log = path_after(lines, "Log", experiments.folder).read_text()
        assert "Enforce eager set" in log
        assert NOISE.search(log)
        assert " INFO " not in log
        assert path_after(lines, "Report", experiments.folder).name == "report.html"
        answers = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".jsonl"}
        assert answers == before or not again
        before = answers

    records = [json.loads(line) for line in before["batch_results_0_8.jsonl"].splitlines()]
    assert all("Answer with a number." in record["formatted_prompt"] for record in records)
    certain = sorted(records, key=mean_eu)
    page = Page(path_after(lines, "Heat map", experiments.folder).read_text())
    assert [shown["ids"] for shown in page.data] == [record["token_ids"] for record in (*certain[:2], certain[-1])]

    experiments.env |= {"DATASET_END": "9"}
    table, errors = experiments.run("quickstart.sh", VERBOSE="1")
    assert " INFO " in table + errors
    assert "in strata" in table
    assert len(list(folder.glob("batch*"))) == 2


def test_what_could_be_answered_is_evaluated(experiments: Experiments, tiny_llama_tfb_path: Path) -> None:
    """A data set with a row that cannot be asked, under a name that is also a short one; every seed runs."""
    rows = [{"unique_id": str(i), "problem": f"{i} + 1?", "answer": str(i + 1)} for i in range(3)]
    rows.append({"unique_id": "bad", "problem": "What?"})
    (experiments.folder / "gsm8k.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["--model", str(tiny_llama_tfb_path), "--dataset", "gsm8k.jsonl"]
    table, errors = experiments.run("quickstart.sh", *arguments, status=1, SEEDS="96 89")
    assert errors.count("1 problems have no result: bad") == 2
    assert f"Detection: {tiny_llama_tfb_path.name} on gsm8k_test, seed 89, 96" in table
    assert "AUROC" in table
    assert NOISE.search(table + errors) is None
    assert errors.endswith("quickstart: incomplete; see the errors above\n")


def test_an_engine_that_cannot_start_is_explained(experiments: Experiments, tiny_llama_tfb_path: Path) -> None:
    """The reason is in the log of vLLM's other process."""
    arguments = ["--model", str(tiny_llama_tfb_path), "--dataset", str(experiments.folder / "data/small_test.jsonl")]
    table, errors = experiments.run("quickstart.sh", *arguments, status=1, VLLM_CPU_KVCACHE_SPACE="0")
    assert "AUROC" not in table
    assert f"Error: vLLM cannot start on {tiny_llama_tfb_path}" in errors
    assert errors.count("    ValueError: No available memory for the cache blocks") == 1
    assert NOISE.search(table) is None
    log = experiments.results / "logs/quickstart.log"
    assert errors.endswith(f"no problem has an answer; see the errors above, and the log {log}\n")
    assert len(errors.splitlines()) == 3
