"""What the run scripts store of a completion of vLLM. All uncertainties are in nats; null is what is not finite."""

from collections.abc import Mapping, Sequence
from typing import Any

from .problems import answer_text, problem_text, unique_id
from .quantities import FIELDS, without_value
from .results import OF_GREEDY_RECORD
from .scores import stored_scores
from .spans import Offsets, parts_of, token_offsets


def completion_arrays(completion: Any) -> dict[str, list[float]]:
    """The eight per-token quantities of a vLLM completion as lists, in generation order.

    Values have 9 significant digits, which is all of a float32 and half of what a float64 prints.
    ValueError if the completion carries no uncertainties or not one for every token, or if no value is finite.
    """
    uncertainties = getattr(completion, "uncertainties", None)
    token_ids = completion.token_ids
    if uncertainties is None:
        raise ValueError("vLLM returned no uncertainties; is bayesian_transformer installed where vLLM runs?")
    if len(uncertainties) != len(token_ids):
        raise ValueError(f"vLLM returned {len(uncertainties)} uncertainties for {len(token_ids)} tokens")
    rows = [entry[token_id].row() for entry, token_id in zip(uncertainties, token_ids, strict=True)]
    arrays = {name: [float(f"{row[column]:.9g}") for row in rows] for column, name in enumerate(FIELDS)}
    if without_value(arrays.values()):
        raise ValueError("not one value is finite: the model overflows in its dtype; run it in another one")
    return arrays


def completion_offsets(completion: Any) -> list[Offsets] | None:
    """The characters [start, end) of each token in the text of a completion; None if its tokens do not spell it."""
    entries = zip(completion.uncertainties, completion.token_ids, strict=True)
    return token_offsets([entry[token_id].decoded_token or "" for entry, token_id in entries], completion.text)


def greedy_record(
    problem: Mapping[str, Any], prompt: str, completion: Any, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """One line of a greedy results file."""
    return {
        "unique_id": unique_id(problem),
        "problem": problem_text(problem),
        "answer": answer_text(problem),
        "formatted_prompt": prompt,
        "level": problem.get("level"),
        "text": completion.text,
        "token_ids": list(completion.token_ids),
        "token_offsets": completion_offsets(completion),
        "finish_reason": completion.finish_reason,
        **{key: settings[key] for key in OF_GREEDY_RECORD},
        **completion_arrays(completion),
    }


def response_record(completion: Any, per_token: bool = False) -> dict[str, Any]:
    """One response in the published schema, plus its length, end, further scores and, if asked, per-token arrays.

    tu, au, eu, ll are sums over the tokens, ntu, nau, neu means; nll is the mean log-probability, not negated, as in
    the published files. `scores` holds all other scores of scores.py by name, not negated, and, for older readers, four
    means under the names that they had first. Means over no token at all are null.
    """
    arrays, offsets = completion_arrays(completion), completion_offsets(completion)
    further = {
        "self_certainty": _mean(arrays["self_certainty"]),
        "confidence": _mean(arrays["confidence"]),
        "entropy": _mean(arrays["entropy"]),
        "bir": _mean(arrays["implicit_reward"]),
    }
    record = {
        "text": completion.text,
        "uncertainties": {
            "nau": _mean(arrays["aleatoric"]),
            "ntu": _mean(arrays["total"]),
            "neu": _mean(arrays["epistemic"]),
            "au": sum(arrays["aleatoric"]),
            "tu": sum(arrays["total"]),
            "eu": sum(arrays["epistemic"]),
        },
        "logprobs": {"nll": _mean(arrays["logprob"]), "ll": sum(arrays["logprob"])},
        "scores": {
            "ce": further["self_certainty"],
            "dc": further["confidence"],
            "entropy": further["entropy"],
            "bir": further["bir"],
            **stored_scores(arrays, parts_of(completion.text, offsets)),
            **{f"{name}_mean": value for name, value in further.items()},
        },
        "token_count": len(completion.token_ids),
        "finish_reason": completion.finish_reason,
    }
    if not per_token:
        return record
    return record | {"token_ids": list(completion.token_ids), "token_offsets": offsets, **arrays}


def scaling_record(
    problem: Mapping[str, Any], prompt: str, responses: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The content of a problem's scaling file: the published schema plus where it came from."""
    return {
        "prompt": prompt,
        "outputs": list(responses),
        "unique_id": unique_id(problem),
        "problem": problem_text(problem),
        "answer": answer_text(problem),
        "level": problem.get("level"),
        **settings,
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
