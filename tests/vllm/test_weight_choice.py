"""Which weights a vLLM engine has where a folder holds several files: those of transformers."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from bayesian_transformer.scoring import score
from tests.helpers.vllm_engines import engine, table, token_prompts

vllm = pytest.importorskip("vllm")
pytestmark = pytest.mark.engine

PROMPT, SEED = [17, 250, 3000, 41], 11


@pytest.mark.parametrize("shards_stay", [True, False])
def test_a_model_saved_over_its_shards(tiny_llama_tfb_path: Path, tmp_path: Path, shards_stay: bool) -> None:
    """The index of the conversion stays when transformers saves one file; stock vLLM reads what it names, or fails.

    From https://github.com/Blaizzy/mlx-vlm/issues/1464.
    """
    path = Path(shutil.copytree(tiny_llama_tfb_path, tmp_path / "model"))
    model = AutoModelForCausalLM.from_pretrained(path)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.25)
    model.save_pretrained(path)
    assert (path / "model.safetensors").is_file()
    assert (path / "model.safetensors.index.json").is_file()
    if shards_stay:
        for shard in tiny_llama_tfb_path.glob("model-*.safetensors"):
            shutil.copyfile(shard, path / shard.name)
    parameters = vllm.SamplingParams(temperature=0, max_tokens=6, seed=SEED, ignore_eos=True)
    with engine(path, in_process=True) as llm:
        completion = llm.generate(token_prompts([PROMPT]), parameters, use_tqdm=False)[0].outputs[0]
    expected = score(model.eval(), PROMPT, list(completion.token_ids), seed=SEED)
    np.testing.assert_allclose(table(completion), expected.stack().numpy(), rtol=1e-3, atol=1e-4)
