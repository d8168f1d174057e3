"""Names, prompts and stop tokens of the experiments.

What a prompt looks like follows from the model's own config.json, tokenizer and generation_config.json, never from the
spelling of its path.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoTokenizer, GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME

from bayesian_transformer.architectures import ARCHITECTURES, architecture_of
from bayesian_transformer.bases import ALGORITHM
from bayesian_transformer.checkpoint import read_config, weights_digest
from bayesian_transformer.encoding import TEMPLATE_ERRORS
from bayesian_transformer.noise_config import NoiseConfig
from bayesian_transformer.printable import one_line
from bayesian_transformer.results import DATASETS, MODELS, SCALING_RESPONSES, dataset_name, model_name

__all__ = [
    "DATASETS",
    "GREEDY_BATCH",
    "LLAMA_SYSTEM_PROMPT",
    "MAX_TOKENS",
    "MODELS",
    "PROMPT_FAMILIES",
    "SCALING_BATCH",
    "SCALING_RESPONSES",
    "SCALING_TEMPERATURE",
    "SEEDS",
    "TEMPLATE_DATE",
    "Model",
    "PromptFamily",
    "dataset_name",
    "load_model",
    "model_name",
    "model_path",
    "prompt_family",
    "stop_token_ids",
]

SEEDS = (96, 89, 64)  # of the published tables
MAX_TOKENS = 2048
GREEDY_BATCH = 16
SCALING_TEMPERATURE = 0.8
SCALING_BATCH = 64  # responses decoded at once; each brings num_samples - 1 particle rows

# Llama 3 templates print today's date unless one is given. A fixed one (their own fallback) keeps a run that resumes
# on another day the same run; templates without a date ignore it.
TEMPLATE_DATE = "26 Jul 2024"

LLAMA_SYSTEM_PROMPT = (
    "Solve the math problem you are given and explain your reasoning clearly and briefly. "
    "A solution that takes three or more steps is written as a numbered list, one step per item. "
    "Conclude with a line that states the final answer in \\boxed{}."
)


@dataclass(frozen=True)
class PromptFamily:
    """How one family of models is asked. `system` None leaves it to the chat template's own default."""

    system: str | None
    user: str  # with the placeholder {question}

    def messages(self, question: str, system_prompt: str | None = None) -> list[dict[str, str]]:
        """The chat; `system_prompt` replaces the family's, and an empty one sends no system message."""
        system = self.system if system_prompt is None else system_prompt
        # str.replace, because the user text holds the braces of \boxed{}
        user = {"role": "user", "content": self.user.replace("{question}", question)}
        return [{"role": "system", "content": system}, user] if system else [user]


PROMPT_FAMILIES = {
    "llama": PromptFamily(LLAMA_SYSTEM_PROMPT, "{question}"),
    "qwen2": PromptFamily(None, "{question} Let's think step by step and output the final answer within \\boxed{}."),
}


@dataclass(frozen=True)
class Model:
    """A TFB model as the run scripts need it: everything but its weights."""

    path: str
    name: str
    noise: NoiseConfig
    family: PromptFamily
    tokenizer: Any
    stop_token_ids: tuple[int, ...]
    system_prompt: str | None = None
    revision: str | None = None  # commit on the hub, if it comes from there
    engine_overrides: Mapping[str, Any] = field(default_factory=dict)  # `hf_overrides` that a plain checkpoint needs
    basis_path: Path | None = None  # where its basis vectors are, if they are not computed

    def prompt(self, question: str) -> str:
        """The formatted prompt, up to where the answer starts; ValueError if the chat template refuses it."""
        messages = self.family.messages(question, self.system_prompt)
        try:
            return self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, date_string=TEMPLATE_DATE
            )
        except TEMPLATE_ERRORS as error:
            raise ValueError(f"the model's chat template refuses the messages: {error}") from error

    def prompt_digest(self) -> str:
        """A digest of all that surrounds a question in its prompt: system prompt, user text and chat template."""
        return sha256(self.prompt("{question}").encode()).hexdigest()[:16]

    def weights_digest(self) -> str | None:
        """What tells the weights from those of another model of this name."""
        digest = weights_digest(Path(self.path)) if Path(self.path).is_dir() else self.revision
        if self.basis_path is not None and self.basis_path.is_file():  # else the engine says that it is none
            return f"{digest} bases {sha256(self.basis_path.read_bytes()).hexdigest()[:16]}"
        return f"{digest} bases {ALGORITHM}" if self.engine_overrides else digest  # they are in no file

    def token_ids(self, prompt: str) -> list[int]:
        """Token ids of a formatted prompt, which already holds its special tokens: none are added."""
        return self.tokenizer(prompt, add_special_tokens=False)["input_ids"]


def model_path(name: str) -> str:
    """A model folder or hub name; the short names become folders under $MODEL_BASE_DIR."""
    if name not in MODELS or Path(name).exists():
        return name
    base = os.environ.get("MODEL_BASE_DIR")
    if not base:
        raise ValueError(f"{name} is the folder {MODELS[name]} under MODEL_BASE_DIR, which is not set; set it")
    return str(Path(base) / MODELS[name])


# What transformers raises, values of a wrong kind in its files among the reasons.
_UNREADABLE = (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)


def load_model(
    path: str,
    overrides: Mapping[str, Any] | None = None,
    system_prompt: str | None = None,
    tokenizer_path: str | None = None,
) -> Model:
    """Read config, tokenizer and stop tokens of a TFB model, or of a plain checkpoint that runs as one.

    Args:
        path: folder, hub name or short name.
        overrides: config keys to replace, as vLLM's `hf_overrides` does.
        system_prompt: replaces the family's system prompt; empty sends none.
        tokenizer_path: where the tokenizer lies, if not with the model.

    Raises ValueError for anything but a chat model of a supported family.
    """
    path = model_path(path)
    try:
        if Path(path).is_dir():
            read_config(Path(path))  # which says more of what is wrong with it
        config = AutoConfig.from_pretrained(path)
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_path or path)
    except StrictDataclassError as error:  # no ValueError; names the key in its first line and what is wrong behind it
        raise ValueError(f"{path}: config.json is wrong ({one_line(error)}); correct it") from error
    except _UNREADABLE as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path}: cannot read its config or tokenizer ({reason}); give a TFB model folder") from error
    family = prompt_family(path, config.model_type)
    if not tokenizer.chat_template:
        raise ValueError(f"{path}: the tokenizer has no chat template; use an instruction-tuned model")
    try:
        noise = NoiseConfig.from_model_config(SimpleNamespace(**config.to_dict() | dict(overrides or {})))
    except ValueError as error:
        raise ValueError(f"{path}: {error}; correct config.json, or the option that replaces the key") from error
    stops = stop_token_ids(path, config, tokenizer)
    revision = getattr(config, "_commit_hash", None)
    plain = {"architectures": [architecture_of(config.model_type).vllm_architecture]}
    needed = plain if config.model_type in ARCHITECTURES else {}
    bases = (overrides or {}).get("basis_path") if needed else None
    basis_path = None if bases is None else Path(bases)
    return Model(path, model_name(path), noise, family, tokenizer, stops, system_prompt, revision, needed, basis_path)


def prompt_family(path: str, model_type: str) -> PromptFamily:
    """The prompts for a `model_type`, of a TFB model or of its base; ValueError, naming the model, if it is neither."""
    try:
        return PROMPT_FAMILIES[architecture_of(model_type).prompts]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def stop_token_ids(path: str, config: Any, tokenizer: Any) -> tuple[int, ...]:
    """Every end token that config.json, generation_config.json or the tokenizer names, in ascending order."""
    try:
        generation = GenerationConfig.from_pretrained(path)
    except OSError as error:
        if (Path(path) / GENERATION_CONFIG_NAME).exists():  # else it is optional
            raise ValueError(f"{path}: {GENERATION_CONFIG_NAME} cannot be read; correct it or remove it") from error
        generation = GenerationConfig.from_model_config(config)
    ids: set[int] = set()
    for value in (config.eos_token_id, generation.eos_token_id, tokenizer.eos_token_id):
        ids.update(value if isinstance(value, list | tuple) else [] if value is None else [value])
    return tuple(sorted(ids))
