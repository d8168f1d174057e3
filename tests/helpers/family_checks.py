"""What is computed with a tiny model of each family, and what must hold of it: CHECKS, which docs/limits.md lists.

Both directions of the noise run in vLLM: one on the converted checkpoint, the other on the plain one.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from bayesian_transformer import basis_cache, tfb
from bayesian_transformer.checkpoint import tensor_files
from bayesian_transformer.conversion import convert_checkpoint
from bayesian_transformer.hf.plain_checkpoints import load_plain
from bayesian_transformer.noise_config import NOISE_KINDS
from bayesian_transformer.scoring import score
from bayesian_transformer.uncertainty import FIELDS
from tests.helpers.reference import worst_error
from tests.helpers.tiny_families import FAMILIES, VOCABULARY, save_family
from tests.helpers.vllm_engines import engine, load_basis, table, token_prompts

NOISE: dict[str, Any] = {"num_samples": 4, "bayes_sigma": 0.1}
EPISTEMIC = FIELDS.index("epistemic")
TOKENS = 12
LENGTHS = (40, 1, 77)  # of the prompts; two are longer than a chunk of the prefill
CACHED = [32, 0, 64]  # of them, in whole blocks, once they have been decoded
SEEDS = (3, -(2**40) - 1, 2**63 + 5)  # one for each prompt
CROWD, CROWD_LENGTH, CROWD_TOKENS = 8, 50, 30  # requests that vLLM has not the memory for, all at once
CHUNK = 32
# Blocks of 32 tokens: those before a window go back to vLLM while a text grows.
OPTIONS: dict[str, Any] = {
    "in_process": True,
    "skip_tokenizer_init": True,
    "max_num_batched_tokens": CHUNK,
    "max_model_len": 256,
    "block_size": 32,
    "num_gpu_blocks_override": 128,  # a large cache takes a second to be filled with zeros
    "disable_log_stats": False,
}


class Response(NamedTuple):
    """New tokens and their quantities [tokens, 8]."""

    tokens: list[int]
    numbers: np.ndarray


class Answers(NamedTuple):
    """The same responses, computed in different ways."""

    vllm: list[Response]
    others: list[list[Response]]  # by transformers


class Seen(NamedTuple):
    """What was computed with the model of a family."""

    converted: Answers  # vLLM, generate of transformers, scoring
    plain: Answers  # the same with the other direction of the noise, without a conversion
    kinds: set[str]  # the directions of both
    same_weights: bool  # whether the converted checkpoints hold all weights of the base bit for bit
    same_bases: bool  # whether what vLLM computed without a conversion is bit for bit what a conversion stored
    chunk: int  # prompt tokens that vLLM took at most in a step
    again: Answers  # with the prompts in vLLM's cache
    cached: list[int]  # how many tokens of each prompt were
    crowd: Answers  # vLLM, again and scoring, more requests than there is memory for
    preemptions: int
    silent: list[Response]  # noise of size zero
    stock: list[list[int]]  # tokens of unchanged vLLM


def prompts(number: int = len(LENGTHS), lengths: Sequence[int] = LENGTHS) -> list[list[int]]:
    rng = np.random.default_rng(number)
    return [rng.integers(3, VOCABULARY, length).tolist() for length in lengths]


def crowd() -> tuple[list[list[int]], list[int]]:
    """Prompts and seeds."""
    return prompts(CROWD, [CROWD_LENGTH] * CROWD), list(range(CROWD))


def outputs(llm: Any, ids: list[list[int]], seeds: Sequence[int], tokens: int) -> list[Any]:
    """vLLM's greedy answers."""
    import vllm

    options = {"temperature": 0.0, "max_tokens": tokens, "ignore_eos": True, "detokenize": False}
    sampling = [vllm.SamplingParams(seed=seed, **options) for seed in seeds]
    answers: list[Any] = llm.generate(token_prompts(ids), sampling, use_tqdm=False)
    return answers


def responses(answers: list[Any]) -> list[Response]:
    completions = [answer.outputs[0] for answer in answers]
    return [Response(list(completion.token_ids), table(completion)) for completion in completions]


def decode(llm: Any) -> list[Response]:
    return responses(outputs(llm, prompts(), SEEDS, TOKENS))


def scheduler(llm: Any) -> Any:
    return llm.llm_engine.engine_core.engine_core.scheduler


@contextmanager
def little_memory(llm: Any, blocks: int) -> Iterator[None]:
    """Within the block vLLM has so many blocks of tokens for each of its block tables; a request of `crowd` needs 3."""
    manager = scheduler(llm).kv_cache_manager
    pool = manager.block_pool
    held = pool.get_new_blocks(pool.get_num_free_blocks() - blocks * manager.num_kv_cache_groups)
    yield
    pool.free_blocks(held)


def preemptions(llm: Any) -> int:
    return next(int(metric.value) for metric in llm.get_metrics() if metric.name == "vllm:num_preemptions")


def set_sigma(model: Any, sigma: float) -> None:
    model.particles.noise = replace(model.particles.noise, bayes_sigma=sigma)


def holds_bases(model: Any, stored: dict[str, torch.Tensor]) -> bool:
    """Whether the basis vectors of vLLM's `model` are bit for bit those that it would load."""
    parameters = [layer.self_attn.attn.qkv_noise.basis_vectors for layer in model.model.layers]
    computed = [parameter.detach().clone() for parameter in parameters]
    for parameter in parameters:
        parameter.data.zero_()
    model.load_weights(stored.items())
    return all(torch.equal(*pair) for pair in zip(computed, parameters, strict=True))


def generate(model: Any) -> list[Response]:
    """transformers, all prompts as one batch with padding on the left."""
    longest = max(LENGTHS)
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts()])
    mask = torch.tensor([[0] * (longest - length) + [1] * length for length in LENGTHS])
    options = {"max_new_tokens": TOKENS, "do_sample": False, "eos_token_id": None, "output_uncertainties": True}
    output = model.generate(ids, attention_mask=mask, noise_seed=list(SEEDS), **options)
    numbers = output.uncertainties.stack().double().numpy()
    return [Response(*pair) for pair in zip(output.sequences[:, longest:].tolist(), numbers, strict=True)]


def scores(
    model: Any, decoded: list[Response], ids: list[list[int]] | None = None, seeds: Sequence[int] = SEEDS
) -> list[Response]:
    """The tokens of `decoded`, scored."""
    scored = []
    for response, prompt, seed in zip(decoded, ids or prompts(), seeds, strict=True):
        numbers = score(model, prompt, response.tokens, seed=seed, chunk_rows=7 * NOISE["num_samples"])
        scored.append(Response(response.tokens, numbers.stack().double().numpy()))
    return scored


def weights(folder: Path) -> dict[str, torch.Tensor]:
    files = set(tensor_files(folder).values())
    return {name: tensor for file in files for name, tensor in load_file(folder / file).items()}


def has_weights_of(base: Path, converted: Path) -> bool:
    held = weights(converted)
    return all(torch.equal(tensor, held[name]) for name, tensor in weights(base).items())


@contextmanager
def bases_in(folder: Path) -> Iterator[None]:
    """Within the block, basis vectors are computed once and kept in `folder`."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(basis_cache, "cache_dir", lambda: folder)
        yield


def see(name: str, folder: Path) -> Seen:
    """Run the model FAMILIES[name] in all ways. `folder` is an empty one for its checkpoints."""
    base = save_family(name, folder / "base")
    kind = FAMILIES[name].bayes_noise
    (other_kind,) = set(NOISE_KINDS) - {kind}
    with bases_in(folder / "stored"):
        stored = {way: convert_checkpoint(base, folder / way, bayes_noise=way) for way in NOISE_KINDS}
    with engine(stored[kind], hf_overrides=NOISE, **OPTIONS) as llm:
        first, answers = decode(llm), outputs(llm, prompts(), SEEDS, TOKENS)
        chunk = scheduler(llm).max_num_scheduled_tokens
        llm.apply_model(partial(set_sigma, sigma=0.0))
        silent = decode(llm)
        llm.apply_model(partial(set_sigma, sigma=NOISE["bayes_sigma"]))
        crowded = []
        for blocks in (3, 4):  # where windows give blocks back, it is with 3 that vLLM preempts, and else with 4
            with little_memory(llm, blocks):
                crowded.append(responses(outputs(llm, *crowd(), CROWD_TOKENS)))
        preempted = preemptions(llm)
    with bases_in(folder / "computed"):
        overrides = tfb(**NOISE, bayes_noise=other_kind)
        with engine(base, hf_overrides=overrides, **OPTIONS) as llm:
            plain = decode(llm)
            (same_bases,) = llm.apply_model(partial(holds_bases, stored=load_basis(stored[other_kind])))
        plain_model: Any = load_plain(base, torch.float32, **NOISE, bayes_noise=other_kind)
    with engine(base, **OPTIONS) as llm:
        stock = [list(answer.outputs[0].token_ids) for answer in outputs(llm, prompts(), SEEDS, TOKENS)]
    model = AutoModelForCausalLM.from_pretrained(stored[kind], dtype=torch.float32, **NOISE).eval()
    return Seen(
        converted=Answers(first, [generate(model), scores(model, first)]),
        plain=Answers(plain, [generate(plain_model.eval()), scores(plain_model, plain)]),
        kinds={kind, plain_model.noise.bayes_noise},
        same_weights=all(has_weights_of(base, folder) for folder in stored.values()),
        same_bases=same_bases,
        chunk=chunk,
        again=Answers(responses(answers), [first]),
        cached=[answer.num_cached_tokens for answer in answers],
        crowd=Answers(crowded[0], [crowded[1], scores(model, crowded[0], *crowd())]),
        preemptions=preempted,
        silent=silent,
        stock=stock,
    )


def largest_difference(one: np.ndarray, other: np.ndarray) -> float:
    """In units of the tolerance: agreement means <= 1."""
    columns = (dict(zip(FIELDS, numbers.T, strict=True)) for numbers in (one, other))
    return worst_error(*columns)


def assert_agree(answers: Answers) -> None:
    """All ways have the same tokens and numbers, and the noise is felt at each token."""
    for response, *others in zip(answers.vllm, *answers.others, strict=True):
        assert response.numbers[:, EPISTEMIC].min() > 0
        for other in others:
            assert other.tokens == response.tokens
            assert largest_difference(other.numbers, response.numbers) <= 1


def engines_agree(seen: Seen) -> None:
    assert_agree(seen.converted)
    assert_agree(seen.plain)


def both_directions(seen: Seen) -> None:
    assert seen.kinds == set(NOISE_KINDS)


def no_conversion(seen: Seen) -> None:
    assert seen.same_bases
    assert seen.same_weights


def in_chunks(seen: Seen) -> None:
    assert sorted(LENGTHS)[-2] > seen.chunk


def prefix_hit(seen: Seen) -> None:
    assert seen.cached == CACHED
    assert_agree(seen.again)


def preemption(seen: Seen) -> None:
    assert seen.preemptions > 0
    assert_agree(seen.crowd)


def stock_tokens(seen: Seen) -> None:
    assert max(np.abs(response.numbers[:, EPISTEMIC]).max() for response in seen.silent) < 1e-5
    assert [response.tokens for response in seen.silent] == seen.stock


# What holds of the model of each family, as docs/limits.md says it.
CHECKS: dict[str, Callable[[Seen], None]] = {
    "vLLM, `generate` of transformers and scoring agree in tokens and in all eight quantities of each.": engines_agree,
    "They do so with right and with left noise.": both_directions,
    "vLLM without a conversion has the weights and basis vectors of the converted model, bit for bit.": no_conversion,
    "The prefill of prompts is cut into chunks.": in_chunks,
    "The numbers stay with a prompt in the prefix cache.": prefix_hit,
    "The numbers stay when vLLM preempts a request.": preemption,
    "Noise of size zero changes no token of unchanged vLLM.": stock_tokens,
}
