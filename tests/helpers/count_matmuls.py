"""Prints, as JSON, the rows of every matmul of layer 0 and of the lm_head in a run of 3 requests x 5 tokens.

Usage: VLLM_ENABLE_V1_MULTIPROCESSING=0 python count_matmuls.py TFB_MODEL NUM_SAMPLES
"""

import json
import sys
from typing import Any

from vllm import LLM, SamplingParams


def main(path: str, num_samples: int) -> None:
    llm = LLM(
        path,
        dtype="float32",
        enforce_eager=True,
        max_model_len=256,
        max_num_seqs=4,
        kv_cache_memory_bytes=1 << 26,
        enable_prefix_caching=False,
        hf_overrides={"num_samples": num_samples},
    )
    model = llm.llm_engine.model_executor.driver_worker.worker.model_runner.get_model()
    layer = model.model.layers[0]
    calls: dict[str, list[int]] = {}
    linears = {
        "qkv_proj": layer.self_attn.qkv_proj,
        "o_proj": layer.self_attn.o_proj,
        "gate_up_proj": layer.mlp.gate_up_proj,
        "down_proj": layer.mlp.down_proj,
        "lm_head": model.lm_head,
    }
    for name, module in linears.items():
        count_rows(module, calls.setdefault(name, []))
    prompts = [{"prompt_token_ids": list(range(10 * i + 5, 10 * i + 13))} for i in range(3)]
    llm.generate(prompts, SamplingParams(temperature=0, max_tokens=5, ignore_eos=True), use_tqdm=False)
    sys.stdout.write(json.dumps(calls) + "\n")


def count_rows(module: Any, rows: list[int]) -> None:
    """Record the number of input rows at each use of a linear module's weights."""
    method = module.quant_method
    apply = method.apply

    def counted(layer: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        if layer is module:
            rows.append(x.shape[0])
        return apply(layer, x, *args, **kwargs)

    method.apply = counted


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
