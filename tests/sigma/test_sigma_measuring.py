"""The sums of one text against plain loops over the logits of each weight sample, in float64."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from bayesian_transformer.scoring import sample_logits, score
from bayesian_transformer.sigma.measuring import measure_text, token_values
from bayesian_transformer.sigma.summary import Setting
from tests.helpers.reference import reference_logits

PROMPT, RESPONSE = [40, 50, 60, 70, 80], [90, 91, 92, 93, 94, 95, 96, 97]
SEED = 5
SIGMAS, COUNTS = (0.1, 1.5), (2, 4, 6)


def load(path: Path, **options: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, **{"dtype": torch.float32} | options)


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max())
    return shifted / shifted.sum()


def entropy(p: np.ndarray) -> float:
    return float(-(p[p > 0] * np.log(p[p > 0])).sum())


def by_hand(logits: Tensor, tokens: list[int]) -> list[float]:
    """The seven sums, from logits [S, N, V], token by token; halves by the numbers of the samples."""
    sums = [0.0] * 7
    count = len(logits)
    of_first, of_second = {2: ([], []), 4: ([], []), 6: ([0, 1, 2], [0, 3, 4])}[count]  # sample 5 of 6 is left out
    for position, token in enumerate(tokens):
        p = [softmax(logits[sample, position].double().numpy()) for sample in range(count)]
        mean = np.mean(p, axis=0)
        sums[0] -= math.log(p[0][token])
        sums[1] += int(mean.argmax()) != int(p[0].argmax())
        sums[2] -= math.log(mean[token])
        sums[3] += entropy(mean) - sum(map(entropy, p)) / count
        sums[4] += entropy(mean)
        for place, half in ((5, of_first), (6, of_second)):
            if half:
                among = [p[sample] for sample in half]
                sums[place] += entropy(np.mean(among, axis=0)) - sum(map(entropy, among)) / len(half)
    return sums


@pytest.mark.parametrize("kind", ["right", "left"])
@pytest.mark.parametrize("base", ["tiny_llama_path", "tiny_qwen2_path"])
def test_sums_agree_with_brute_force(request: pytest.FixtureRequest, make_tfb: Any, base: str, kind: str) -> None:
    model = load(make_tfb(request.getfixturevalue(base), kind))
    logits = {sigma: reference_logits(model, PROMPT, RESPONSE, SEED, sigma, max(COUNTS), kind) for sigma in SIGMAS}
    expected = {Setting(sigma, count): by_hand(logits[sigma][:count], RESPONSE) for sigma in SIGMAS for count in COUNTS}
    assert max(sums[1] for sums in expected.values()) > 0  # some token flips
    assert min(sums[1] for sums in expected.values()) < len(RESPONSE)
    for rows in (1, 18, 512):
        found = measure_text(model, PROMPT, RESPONSE, seed=SEED, sigmas=SIGMAS, sample_counts=COUNTS, chunk_rows=rows)
        assert found.tokens == len(RESPONSE)
        assert found.at.keys() == expected.keys()
        for setting, sums in found.at.items():
            values = [found.clean_nll, *vars(sums).values()]
            assert values == pytest.approx(expected[setting], rel=1e-3, abs=1e-4)
            assert sums.flips == expected[setting][1]


def test_it_is_what_scoring_gives(tiny_llama_tfb_path: Path) -> None:
    model = load(tiny_llama_tfb_path)
    found = measure_text(model, PROMPT, RESPONSE, seed=SEED, sigmas=[0.05, 0.2], sample_counts=[3, 5])
    for setting, sums in found.at.items():
        scored = score(model, PROMPT, RESPONSE, seed=SEED, sigma=setting.sigma, num_samples=setting.num_samples)
        assert sums.epistemic == pytest.approx(scored.epistemic.sum().item(), rel=1e-3)
        assert sums.total == pytest.approx(scored.total.sum().item(), rel=1e-4)
        assert found.clean_nll == pytest.approx(-scored.logprob.sum().item(), rel=1e-4)


def test_without_noise_nothing_changes(tiny_llama_tfb_path: Path) -> None:
    model = load(tiny_llama_tfb_path)
    found = measure_text(model, PROMPT, RESPONSE, seed=SEED, sigmas=[0.0], sample_counts=[5])
    (sums,) = found.at.values()
    assert sums.flips == 0
    assert sums.nll == pytest.approx(found.clean_nll, rel=1e-5)
    assert [sums.epistemic, sums.first_half, sums.second_half] == pytest.approx([0, 0, 0], abs=1e-4)


def test_a_tie_is_no_flip() -> None:
    tied, other = [2.0, 2.0, 0.0], [0.0, 1.0, 0.0]
    logits = torch.tensor([[tied, tied, tied], [tied, other, [0.0, 0.0, 9.0]]])
    assert token_values(logits, torch.tensor([0, 0, 0]))[:, 1].tolist() == [0, 0, 1]


def test_the_noise_free_pass_is_made_once(tiny_llama_tfb_path: Path) -> None:
    model = load(tiny_llama_tfb_path)
    rows: list[int] = []
    model.lm_head.register_forward_hook(lambda m, a, out: rows.append(out.shape[:-1].numel()))
    measure_text(model, PROMPT, RESPONSE, seed=0, sigmas=[0.1, 0.2, 0.3], sample_counts=[2, 4], chunk_rows=16)
    assert rows == [4, 12, 12, 12] * 2  # 4 positions at a time, once clean, and 3 noisy samples for each sigma


def test_logits_are_let_go_before_the_next(tiny_llama_tfb_path: Path) -> None:
    """Memory stays at a chunk, also where the caller still holds what it was given."""
    model = load(tiny_llama_tfb_path)
    ids = torch.tensor([[*PROMPT, *RESPONSE]])
    wanted = torch.arange(ids.shape[1])[None] >= len(PROMPT)
    held: list[list[Tensor]] = []
    with torch.no_grad():
        noises = [model.noise.replaced(num_samples=3, bayes_sigma=sigma) for sigma in (0.1, 0.2)]
        for index, columns, parts in sample_logits(model, ids, torch.ones_like(wanted), wanted, [1], noises, 6):
            assert index == len(held) % 2
            assert columns.start == len(PROMPT) + 2 * (len(held) // 2)
            assert [part.shape[0] for part in parts] == [1, 2]
            held.append(parts)
            assert [len(each) for each in held] == [0] * (len(held) - 1) + [2]
    assert len(held) == 8


def test_what_cannot_be_measured_says_why(tiny_llama_tfb_path: Path) -> None:
    model = load(tiny_llama_tfb_path)
    how: dict[str, Any] = {"seed": 0, "sigmas": [0.1], "sample_counts": [2]}
    with pytest.raises(ValueError, match="at least one token"):
        measure_text(model, PROMPT, [], **how)
    with pytest.raises(ValueError, match="2049 tokens, more than the 2048 of the model"):
        measure_text(model, [5] * 2000, [6] * 49, **how)
    model.model.norm.weight.data[0] = torch.inf
    with pytest.raises(ValueError, match="overflows in float32; try another --dtype"):
        measure_text(model, PROMPT, RESPONSE, **how)
