"""Files that the programs write, made through their command lines, and the keys and columns in them."""

import csv
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from tests.helpers.prompt_models import LLAMA_TEMPLATE, byte_tokenizer
from tests.helpers.run_scripts import install_fake, save_model, write_sums
from tests.helpers.stored_generations import DATASET, MODEL, ROOT

# Helpers of other tests. They may move; what they do goes through the command lines.
from tests.outside.commands import invoke

DRAWS = 200  # of the bootstrap
SEEDS = (89, 96)
SHARES = (0.9, 0.1)  # of the responses that may vote: the default, and that of the published shell script
DETECTION_TABLES = ("detailed_results.csv", "summary_statistics.csv", "response_scores.csv")
_TINY = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


class Written:
    """The files below `root`, each made when it is first asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.base = cache(self._base)
        self.converted = cache(self._converted)
        self.generated = cache(self._generated)
        self.scores = cache(self._scores)
        self.detection = cache(self._detection)
        self.scaling = cache(self._scaling)

    def _base(self, family: str) -> Path:
        """A tiny random model of a family with a tokenizer of one token per byte."""
        path = self.root / family
        model = {"llama": (LlamaForCausalLM, LlamaConfig), "qwen2": (Qwen2ForCausalLM, Qwen2Config)}[family]
        model[0](model[1](**_TINY)).save_pretrained(path)
        byte_tokenizer(LLAMA_TEMPLATE).save_pretrained(path)
        return path

    def _converted(self, family: str) -> Path:
        path = self.root / f"TFB-{family}"
        invoke("convert_to_tfb.py", "--model-path", self.base(family), "--output-path", path)
        return path

    def _generated(self, kind: str) -> Path:
        """The results folder of a run script on a stand-in for the engine; `kind` is greedy, scaling or per_token."""
        folder = self.root / kind
        folder.mkdir()
        arguments = ["--model-path", save_model(folder / "TFB-tiny"), "--dataset-path", write_sums(folder)]
        arguments += ["--output-dir", folder / "results"]
        with pytest.MonkeyPatch.context() as patch:
            install_fake(patch)
            if kind == "greedy":
                invoke("run/greedy_unc_single_batch_refine.py", *arguments)
            else:
                more = ["--per-token"] if kind == "per_token" else []
                invoke("run/greedy_responses_unc.py", *arguments, "--n-particles", 4, *more)
        return folder / "results"

    def _scores(self) -> Path:
        source, output = self.root / "texts.jsonl", self.root / "scores.jsonl"
        source.write_text('{"prompt": "2 + 2 =", "response": " 4."}\n')
        paths = ["--model-path", self.converted("llama"), "--input", source, "--output", output]
        invoke("-m bayesian_transformer.score", *paths, "--num-samples", 2)
        return output

    def _detection(self) -> Path:
        """The folder of the detection report on the stored generations."""
        output = self.root / "detection"
        arguments = ["--dataset", DATASET, "--model", MODEL, "--seeds", *SEEDS, "--results-dir", ROOT]
        invoke("eval/eval_detect_multi_seed.py", *arguments, "--output-dir", output, "--bootstrap", DRAWS)
        (folder,) = output.iterdir()
        return folder

    def _scaling(self, p_val: float) -> Path:
        """The folder of the scaling evaluation of the stored generations."""
        output = self.root / f"scaling_{p_val}"
        arguments = ["--dataset", DATASET, "--model", MODEL, "--results-dir", ROOT, "--n-particles", 16]
        invoke("eval/eval_scaling_test_multi_gpu.py", *arguments, "--p_val", p_val, "--output-dir", output)
        return output


def one(folder: Path, pattern: str) -> Path:
    """The only file of a pattern, at any depth; hidden ones do not count."""
    (path,) = (path for path in folder.rglob(pattern) if not path.name.startswith("."))
    return path


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _names(folder: Path) -> list[str]:
    """Paths of the files in `folder`, but for hidden ones."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return sorted(str(path.relative_to(folder)) for path in files)


def _keys(value: Any) -> Any:
    """The keys of a JSON value, at every depth; of a list those of its first element."""
    if isinstance(value, dict):
        return {key: _keys(item) for key, item in value.items()}
    return _keys(value[0]) if isinstance(value, list) and value else {}


def _json_keys(path: Path) -> Any:
    """The keys of a JSON file, or of the first line of a JSON Lines file."""
    text = path.read_text(encoding="utf-8")
    return _keys(json.loads(text.partition("\n")[0] if path.suffix == ".jsonl" else text))


def converted(written: Written, family: str) -> dict[str, Any]:
    """What conversion adds to a model: keys of config.json with their values, tensors and files."""
    base = json.loads((written.base(family) / "config.json").read_text())
    folder = written.converted(family)
    config = json.loads((folder / "config.json").read_text())
    added = {key: value for key, value in config.items() if base.get(key) != value}
    tensors = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    return {
        "config.json": {key: {} if key == "base_lm_path" else json.dumps(value) for key, value in added.items()},
        "tensors": sorted(name for name in tensors if "basis" in name),
        "files": sorted({*_names(folder)} - {*_names(written.base(family))}),
    }


def records(written: Written, kind: str) -> dict[str, Any]:
    """Paths and keys of what a run script writes; see Written."""
    folder = written.generated(kind)
    paths = [path for path in folder.rglob("*.json*") if not path.name.startswith(".")]
    (settings,) = (path for path in paths if path.name == "settings.json")
    record = min(path for path in paths if path != settings)
    return {"files": _names(folder), "record": _json_keys(record), "settings.json": _json_keys(settings)}


def score_line(written: Written) -> dict[str, Any]:
    return {"line": _json_keys(written.scores())}


def detection(written: Written) -> dict[str, Any]:
    folder = written.detection()
    return {
        "files": _names(folder),
        "metadata.json": _json_keys(folder / "metadata.json"),
        **{name: list(rows(folder / name)[0]) for name in DETECTION_TABLES},
        "metrics": [row["metric"] for row in rows(folder / "summary_statistics.csv")],
    }


def scaling(written: Written) -> dict[str, Any]:
    folder = written.scaling(SHARES[0])
    table = rows(one(folder, "*_summary.csv"))
    return {
        "files": _names(folder),
        "metadata.json": _json_keys(one(folder, "*_metadata.json")),
        "summary.csv": list(table[0]),
        "methods by score": list(dict.fromkeys(f"{row['method']} by {row['score']}" for row in table)),
    }
