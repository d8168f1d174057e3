"""Models of no supported family are refused in one line that says why and where to go on, in every way to ask."""

from pathlib import Path

import pytest
from transformers import AutoConfig

from bayesian_transformer import tfb
from bayesian_transformer.conversion import convert_checkpoint
from bayesian_transformer.hf.plain_checkpoints import load_plain

MULTIMODAL = "it is multimodal: the model of text is a part of another one"
REASONS = {
    "gemma3": MULTIMODAL,
    "mistral3": MULTIMODAL,
    "qwen2_vl": MULTIMODAL,
    "qwen2_5_vl": MULTIMODAL,
    "gpt_oss": "its attention has sinks",
    "deepseek_v3": "its attention keeps a latent vector",
    "falcon": "it has no self_attn with q_proj",
    "gpt2": "",
}


@pytest.mark.parametrize("model_type", REASONS)
def test_the_reason_and_the_page_are_named(model_type: str, tmp_path: Path) -> None:
    config = AutoConfig.for_model(model_type)
    config.save_pretrained(tmp_path / "model")
    for ask in (
        lambda: tfb()(config),
        lambda: load_plain(tmp_path / "model"),
        lambda: convert_checkpoint(tmp_path / "model", tmp_path / "tfb"),
    ):
        with pytest.raises(ValueError, match=f"model_type '{model_type}' is not supported; it must be one of") as told:
            ask()
        message = str(told.value)
        assert "\n" not in message
        assert REASONS[model_type] in message
        assert message.endswith("docs/architecture.md tells how to add a family)")
