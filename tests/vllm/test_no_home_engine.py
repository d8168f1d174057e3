"""An engine of a user without a home folder.

From https://github.com/llm-d/llm-d-benchmark/issues/1573: stock engines start there.
"""

import json
from pathlib import Path

import pytest

from tests.helpers.homeless import run_homeless

pytest.importorskip("vllm")
pytestmark = pytest.mark.engine

CODE = """
import json
from vllm import LLM, SamplingParams
llm = LLM(PATH, dtype="float32", enforce_eager=True, max_model_len=64, max_num_seqs=2, kv_cache_memory_bytes=1 << 26)
params = SamplingParams(max_tokens=2, temperature=0, ignore_eos=True)
output = llm.generate([{"prompt_token_ids": [17, 18]}], params, use_tqdm=False)[0].outputs[0]
print(json.dumps([len(output.token_ids), len(output.uncertainties)]))
llm.llm_engine.engine_core.shutdown()
"""


def test_an_engine_starts_without_a_home(tiny_llama_tfb_path: Path, tmp_path: Path) -> None:
    code = f"PATH = {str(tiny_llama_tfb_path)!r}\n{CODE}"
    done = run_homeless(code, tmp_path, VLLM_ENABLE_V1_MULTIPROCESSING="0")
    assert done.returncode == 0, done.stderr[-5000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [2, 2]
    (cache,) = tmp_path.glob("tokur-*")
    assert list(cache.glob("cpu_kernels_*.so"))
    assert f"there is no home folder, so {cache} is the cache" in done.stdout + done.stderr
