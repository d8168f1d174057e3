"""Question ids, data sets, results layout and records."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayesian_transformer import Uncertainty
from bayesian_transformer.files import append_jsonl, dumps
from bayesian_transformer.problems import (
    answer_text,
    count_problems,
    load_problems,
    problem_text,
    question_id,
    unique_id,
)
from bayesian_transformer.results import greedy_dir, greedy_part, read_greedy, scaling_dir
from bayesian_transformer.scores import SCORE_BY_NAME, response_scores
from bayesian_transformer.stored_records import completion_arrays, greedy_record, response_record, scaling_record
from bayesian_transformer.uncertainty import FIELDS

SETTINGS = {"seed": 96, "num_samples": 5, "bayes_sigma": 0.1, "model": "m", "schema_version": 1, "temperature": 0.8}
PROBLEM = {"unique_id": "test/algebra/1.json", "problem": "1 + 1?", "answer": "2", "level": 3}


def completion(rows: list[list[Any]], finish_reason: str = "stop") -> Any:
    """What vLLM and the plugin return for a response whose eight quantities per token are `rows`."""
    ids = [100 + i for i in range(len(rows))]
    tokens = [{token_id: Uncertainty(*row)} for token_id, row in zip(ids, rows, strict=True)]
    return SimpleNamespace(
        text="x" * len(rows), token_ids=tuple(ids), finish_reason=finish_reason, uncertainties=tokens
    )


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        ({"unique_id": "test/algebra/1.json"}, "test_algebra_1"),
        ({"unique_id": "gsm8k/test/0"}, "gsm8k_test_0"),
        ({"unique_id": 0}, "0"),
        ({"metadata": {"source_index": 0}}, "0"),
        ({"unique_id": None, "metadata": {"source_index": 12}}, "12"),
        ({"unique_id": "", "metadata": {"source_index": 12}}, "12"),
        ({"unique_id": "a", "metadata": {"source_index": 12}}, "a"),
    ],
)
def test_question_id(problem: dict[str, Any], expected: str) -> None:
    assert question_id(problem) == expected


@pytest.mark.parametrize("problem", [{}, {"metadata": {}}, {"metadata": None}, {"unique_id": None}])
def test_question_id_missing(problem: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"neither unique_id nor metadata\.source_index"):
        question_id(problem)


@given(st.text(min_size=1))
def test_question_id_is_one_path_component_and_survives_a_record(text: str) -> None:
    name = question_id({"unique_id": text})
    assert "/" not in name
    assert question_id({"unique_id": unique_id({"unique_id": text})}) == name


def test_problem_and_answer_text() -> None:
    assert problem_text({"problem": "a"}) == "a" == problem_text({"question": "a"})
    assert answer_text({"answer": 0}) == "0"
    for bad in ({}, {"problem": " \n"}, {"problem": None}, {"problem": 3}):
        with pytest.raises(ValueError, match="neither problem nor question"):
            problem_text(bad)
    for bad in ({}, {"answer": None}, {"answer": ""}):
        with pytest.raises(ValueError, match="answer is missing"):
            answer_text(bad)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_load_problems_takes_exact_repeats_but_no_conflicts(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "d.jsonl", [PROBLEM, {"problem": "no id"}, PROBLEM])
    assert load_problems(path) == [PROBLEM, {"problem": "no id"}, PROBLEM]
    for change in ({"answer": "3"}, {"problem": "2?"}, {"unique_id": "test_algebra/1", "answer": "3"}):
        write_rows(path, [PROBLEM, {"unique_id": "other"}, PROBLEM | change])
        with pytest.raises(ValueError, match=r"d\.jsonl: problems 0 and 2 .* 'test_algebra_1'"):
            load_problems(path)


def test_load_problems_refuses_empty_and_broken_files(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text("\n")
    with pytest.raises(ValueError, match="holds no problems"):
        load_problems(path)
    path.write_text('{"problem": \n{"problem": "b"}\n')
    with pytest.raises(ValueError, match=r"d\.jsonl:1: not valid JSON"):
        load_problems(path)
    path.write_text('{"problem": "a"}\n{"problem": "b')  # cut off in a copy: no problem goes unnoticed
    with pytest.raises(ValueError, match=r"d\.jsonl:2: not valid JSON"):
        load_problems(path)
    path.write_bytes('{"problem": "a"}\n{"problem": "é"}\n'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"d\.jsonl:2: not valid UTF-8"):
        load_problems(path)


def test_layout() -> None:
    root = Path("results")
    assert greedy_part(greedy_dir(root, "M", "math500", 96), 0, 500) == Path(
        "results/M_results_vllm_pg/math500/seed96/greedy_unc/batch_results_0_500.jsonl"
    )
    assert scaling_dir(root, "M", "math500", 96, 512) == Path(
        "results/inference_scaling/M_results_vllm_pg/math500/seed96/p512/single_greedy_unc"
    )


def test_completion_arrays_pair_names_and_published_names() -> None:
    row = [0.5, 0.3, 0.2, 0.1, -1.0, 0.6, 2.0, 9.0]  # in the order of FIELDS
    arrays = completion_arrays(completion([row, [value + 1 for value in row]]))
    assert list(arrays) == list(FIELDS)
    assert arrays == {name: [value, value + 1] for name, value in zip(FIELDS, row, strict=True)}


def test_completion_arrays_refuse_missing_or_misaligned_uncertainties() -> None:
    stock = completion([[0.0] * 8])
    del stock.uncertainties
    with pytest.raises(ValueError, match="no uncertainties"):
        completion_arrays(stock)
    short = completion([[0.0] * 8] * 2)
    short.uncertainties.pop()
    with pytest.raises(ValueError, match="1 uncertainties for 2 tokens"):
        completion_arrays(short)


def test_greedy_record_has_exactly_the_documented_keys() -> None:
    record = greedy_record(PROBLEM, "<p>", completion([[0.0] * 8], "length"), SETTINGS)
    expected = (
        "unique_id problem answer formatted_prompt level text token_ids token_offsets finish_reason seed num_samples "
        "bayes_sigma model schema_version "
        "total aleatoric epistemic implicit_reward logprob entropy self_certainty confidence"
    )
    assert list(record) == expected.split()
    assert (record["unique_id"], record["level"], record["finish_reason"]) == ("test/algebra/1.json", 3, "length")
    bare = {"question": "q", "answer": 4, "metadata": {"source_index": 0}}
    record = greedy_record(bare, "<p>", completion([]), SETTINGS)
    assert (record["unique_id"], record["problem"], record["answer"], record["level"]) == ("0", "q", "4", None)


def test_values_that_are_not_finite_become_null() -> None:
    row = [math.nan, 0.0, math.inf, -math.inf, 0.0, 0.0, 0.0, 0.0]
    record = json.loads(dumps(greedy_record(PROBLEM, "<p>", completion([row]), SETTINGS)))
    assert [record[name] for name in FIELDS[:4]] == [[None], [0.0], [None], [None]]


finite = st.floats(-50, 50, width=32)


@given(st.lists(st.lists(finite, min_size=8, max_size=8), min_size=1, max_size=20))
def test_response_record_sums_and_means(rows: list[list[float]]) -> None:
    record = response_record(completion(rows))
    total = [math.fsum(row[i] for row in rows) for i in range(8)]
    mean = [value / len(rows) for value in total]
    near = lambda value: pytest.approx(value, rel=1e-8, abs=1e-6)  # noqa: E731
    assert record["uncertainties"] == {
        "nau": near(mean[1]),
        "ntu": near(mean[0]),
        "neu": near(mean[2]),
        "au": near(total[1]),
        "tu": near(total[0]),
        "eu": near(total[2]),
    }
    assert record["logprobs"] == {"nll": near(mean[4]), "ll": near(total[4])}  # nll: mean log-probability, not negated
    scores = {"self_certainty": mean[6], "confidence": mean[7], "entropy": mean[5], "bir": mean[3]}
    older_names = {"ce": near(mean[6]), "dc": near(mean[7]), "entropy": near(mean[5]), "bir": near(mean[3])}
    expected = older_names | {f"{name}_mean": near(value) for name, value in scores.items()}
    assert record["scores"].items() >= expected.items()
    arrays = {name: np.array(values) for name, values in completion_arrays(completion(rows)).items()}
    for name, value in response_scores(arrays, len(rows)).items():
        place = SCORE_BY_NAME[name].aliases.record or ("scores", name)
        stored = record[place[0]] if len(place) == 1 else record[place[0]][place[1]]
        sign = SCORE_BY_NAME[name].sign
        assert (stored is None and math.isnan(value)) or stored == pytest.approx(sign * value, rel=1e-9, abs=1e-12)
    assert record["token_count"] == len(rows)


def test_response_without_tokens_has_no_means() -> None:
    record = response_record(completion([]))
    assert record["uncertainties"] == {"nau": None, "ntu": None, "neu": None, "au": 0, "tu": 0, "eu": 0}
    assert record["logprobs"] == {"nll": None, "ll": 0}
    counts = ("_sum", "_spikes", "_bursts", "_rebounds", "_edis")
    assert {value for name, value in record["scores"].items() if not name.endswith(counts)} == {None}
    assert {value for name, value in record["scores"].items() if name.endswith(counts)} == {0}


def test_scaling_record_keeps_the_published_schema() -> None:
    response = response_record(completion([[0.1] * 8]), per_token=True)
    assert response["total"] == [0.1]
    assert response["token_ids"] == [100]
    record = scaling_record(PROBLEM, "<p>", [response], SETTINGS)
    assert record["prompt"] == "<p>"
    assert set(record["outputs"][0]) >= {"text", "uncertainties", "logprobs"}
    assert record.items() >= (SETTINGS | {"answer": "2", "unique_id": "test/algebra/1.json"}).items()


def test_read_greedy_joins_files_and_drops_doubles_and_torn_lines(tmp_path: Path) -> None:
    records = [
        greedy_record(PROBLEM | {"unique_id": f"a/{i}"}, "<p>", completion([[float(i)] * 8]), SETTINGS)
        for i in range(3)
    ]
    first, second = tmp_path / "batch_results_0_2.jsonl", tmp_path / "batch_results_2_3.jsonl"
    for path, record in ((first, records[0]), (first, records[1]), (second, records[2]), (second, records[1])):
        append_jsonl(path, record)
    with second.open("ab") as file:
        file.write('{"unique_id": "a/7", "problem": "é'.encode()[:-1])
    (tmp_path / "settings.json").write_text("{}")
    assert read_greedy(tmp_path) == records


def test_read_greedy_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"run greedy_unc_single_batch_refine\.py first"):
        read_greedy(tmp_path)
    path = tmp_path / "batch_results_0_1.jsonl"
    good = greedy_record(PROBLEM, "<p>", completion([[0.0] * 8]), SETTINGS)
    append_jsonl(path, good | {"schema_version": 2})
    with pytest.raises(ValueError, match=r"0_1\.jsonl: record 1 has schema_version 2"):
        read_greedy(tmp_path)
    path.unlink()
    append_jsonl(path, good | {"total": []})
    with pytest.raises(ValueError, match=r"record 1 \(test_algebra_1\) has arrays of unequal length"):
        read_greedy(tmp_path)
    for key, value in (("token_ids", 7), ("total", None), ("entropy", "abc")):
        path.unlink()
        append_jsonl(path, good | {key: value})
        with pytest.raises(ValueError, match=rf"0_1\.jsonl: record 1 \(test_algebra_1\): '{key}' is not a list"):
            read_greedy(tmp_path)
    path.unlink()
    append_jsonl(path, good)
    append_jsonl(path, good | {"unique_id": None})
    with pytest.raises(ValueError, match=r"0_1\.jsonl: record 2: neither unique_id nor metadata"):
        read_greedy(tmp_path)


@pytest.mark.parametrize("key", ["formatted_prompt", "answer", "seed", "num_samples", "bayes_sigma", "model"])
def test_read_greedy_refuses_a_problem_that_was_answered_in_two_ways(tmp_path: Path, key: str) -> None:
    record = greedy_record(PROBLEM, "<p>", completion([[0.0] * 8]), SETTINGS)
    append_jsonl(tmp_path / "batch_results_0_2.jsonl", record)
    append_jsonl(tmp_path / "batch_results_0_9.jsonl", record | {key: "another"})
    with pytest.raises(ValueError, match=rf"0_9\.jsonl: test_algebra_1 has another {key} than in .*0_2\.jsonl; move"):
        read_greedy(tmp_path)


def test_count_problems_counts_repeats_once_and_rows_without_an_id_each() -> None:
    assert count_problems([PROBLEM, {"problem": "a"}, PROBLEM, {"problem": "a"}, {"unique_id": 1}]) == 4
