"""Detection and scaling from stored real responses to the files written, against numpy, sklearn and plain loops."""

import csv
import itertools
import math
import struct
from collections import defaultdict
from hashlib import blake2b
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from sklearn.metrics import auc, precision_recall_curve, roc_auc_score

from bayesian_transformer.scores import SCORES
from eval import eval_detect_multi_seed, eval_scaling_test_multi_gpu
from tests.helpers.plain_metrics import coverage_at_risk, within_levels
from tests.helpers.stored_generations import DATASET, MODEL, ROOT, answer, greedy_records, scaling_records

SEEDS = (89, 96)
WINDOW, STRATA, DRAWS = 32, 10, 40
FIELDS = {
    "tu": ("total", -1), "au": ("aleatoric", -1), "eu": ("epistemic", -1), "bir": ("implicit_reward", -1),
    "entropy": ("entropy", -1), "ll": ("logprob", 1), "self_certainty": ("self_certainty", 1),
    "confidence": ("confidence", 1),
}  # fmt: skip
PUBLISHED = {"tu": "tu_sum", "au": "au_sum", "eu": "eu_sum", "ll": "ll_mean"}
PUBLISHED_METRICS = ("auc", "auprc", "top10", "top25", "top50", "top75")
METRICS = 21  # of each score, but for the published names
Numbers = list[float]
Array = NDArray[np.float64]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def detection_scores(seed: int) -> tuple[dict[str, Numbers], list[bool], list[int]]:
    """Every score of every response, which are right, and their token counts."""
    records = greedy_records(seed)
    tokens = [len(record["token_ids"]) for record in records]
    scores: dict[str, Numbers] = {"length": [-float(count) for count in tokens]}
    for short, (field, sign) in FIELDS.items():
        scores[f"{short}_sum"] = [sign * math.fsum(record[field]) for record in records]
        scores[f"{short}_mean"] = [sign * fmean(record[field]) for record in records]
    lowest: Numbers = []
    bottom: Numbers = []
    for record in records:
        values = record["confidence"]
        width = min(WINDOW, len(values))
        groups = sorted(fmean(values[i : i + width]) for i in range(len(values) - width + 1))
        lowest.append(groups[0])
        bottom.append(fmean(groups[: max(1, len(groups) // 10)]))
    scores |= {"confidence_lowest_group": lowest, "confidence_bottom_groups": bottom}
    return scores, [answer(record["text"]) == record["answer"] for record in records], tokens


def expected_hits(score: Numbers, right: list[bool]) -> Numbers:
    """Expected right answers among the k most confident, k = 0 .. n; tied answers in random order."""
    hits = [0.0]
    for _, group in itertools.groupby(sorted(zip(score, right, strict=True), key=lambda row: -row[0]), lambda r: r[0]):
        labels = [label for _, label in group]
        hits += [hits[-1] + fmean(labels) * (k + 1) for k in range(len(labels))]
    return hits


def within_strata(score: Numbers, right: list[bool], tokens: list[int]) -> float:
    """Share of concordant pairs among those of one length stratum, by a loop over all pairs."""
    edges = sorted(set(np.percentile(tokens, [100 * k / STRATA for k in range(1, STRATA)]).tolist()))
    stratum = [sum(edge < count for edge in edges) for count in tokens]
    pairs = [
        1.0 if score[i] > score[j] else 0.5 if score[i] == score[j] else 0.0
        for i, j in itertools.product(range(len(score)), repeat=2)
        if right[i] and not right[j] and stratum[i] == stratum[j]
    ]
    return fmean(pairs)


def cross_fitted_residual(score: Numbers, tokens: list[int], seed: int) -> Array:
    """What the straight line through the other four parts of the problems leaves, part by part."""
    ids = [record["unique_id"].replace("/", "_") for record in greedy_records(seed)]
    part_of = dict(zip(sorted(ids), np.random.default_rng(20250517).permutation(len(ids)) % 5, strict=True))
    parts, values, lengths = np.array([part_of[name] for name in ids]), np.array(score), np.array(tokens)
    residual = np.zeros(len(ids))
    for part in range(5):
        slope, offset = np.polyfit(lengths[parts != part], values[parts != part], 1)
        residual[parts == part] = (values - slope * lengths - offset)[parts == part]
    return np.round(residual, 9)


def expected_columns(score: Numbers, right: list[bool], tokens: list[int], seed: int) -> dict[str, float]:
    size, hits = len(right), expected_hits(score, right)
    precision, recall, _ = precision_recall_curve(right, score)
    risks = [1 - hits[k] / k for k in range(1, size + 1)]
    best = [1 - min(k, sum(right)) / k for k in range(1, size + 1)]
    error = 1 - fmean(right)
    late = slice(size - size // 2, size)
    return {
        "auc": roc_auc_score(right, score),
        "auprc": auc(recall, precision),
        **{f"top{p}": hits[size * p // 100] / (size * p // 100) for p in (10, 25, 50, 75, 80, 90, 95)},
        "aurc": fmean(risks),
        "eaurc": fmean(risks) - fmean(best),
        "augrc": fmean((k - hits[k]) / size for k in range(1, size + 1)),
        "prr": (error - fmean(risks)) / (error - fmean(best)),
        "prr50": (error - fmean(risks[late])) / (error - fmean(best[late])),
        **{f"cov_risk{p}": coverage_at_risk(score, right, p / 100) for p in (1, 5, 10)},
        "auc_strata": within_strata(score, right, tokens),
        "auc_residual": roc_auc_score(right, cross_fitted_residual(score, tokens, seed)),
        "auc_level": within_levels(score, right, [record["level"] for record in greedy_records(seed)]),
    }


@pytest.fixture(scope="module")
def detection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("detection")
    arguments = ["--dataset", DATASET, "--model", MODEL, "--seeds", "96", "89", "--results-dir", str(ROOT)]
    arguments += ["--output-dir", str(output), "--bootstrap", str(DRAWS)]
    result = CliRunner().invoke(eval_detect_multi_seed.main, arguments)
    assert result.exit_code == 0, result.output
    (folder,) = output.iterdir()
    return folder


def test_both_labels_occur_and_every_verdict_is_the_one_read_here(detection: Path) -> None:
    rows = table(detection / "response_scores.csv")
    for seed in SEEDS:
        expected = {
            record["unique_id"].replace("/", "_"): answer(record["text"]) == record["answer"]
            for record in greedy_records(seed)
        }
        found = {row["question_id"]: row["verdict"] == "right" for row in rows if row["seed"] == str(seed)}
        assert found == expected
        assert 20 < sum(found.values()) < 56


def explored_scores(detection: Path, seed: int) -> dict[str, list[float]]:
    """The scores that are not recomputed here, in the order of the records; test_eval_aggregations.py does that."""
    rows = {row["question_id"]: row for row in table(detection / "response_scores.csv") if row["seed"] == str(seed)}
    ids = [record["unique_id"].replace("/", "_") for record in greedy_records(seed)]
    names = [score.name for score in SCORES if score.aggregation.explored]
    return {name: [float(rows[question][name]) for question in ids] for name in names if not of_spans(name)}


def of_spans(name: str) -> bool:
    """Whether a score or column needs the offsets of tokens, which these older records do not have."""
    return name.endswith(("_answer", "_worst_step"))


def test_detection_of_every_score_and_metric(detection: Path) -> None:
    rows = {int(row["seed"]): row for row in table(detection / "detailed_results.csv")}
    assert sorted(rows) == sorted(SEEDS)
    compared = 0
    for seed, row in rows.items():
        scores, right, tokens = detection_scores(seed)
        scores |= explored_scores(detection, seed)
        assert (int(row["total_samples"]), int(row["correct_samples"])) == (len(right), sum(right))
        assert float(row["overall_accuracy"]) == pytest.approx(fmean(right))
        length_auc = roc_auc_score(right, scores["length"])
        for name, score in scores.items():
            expected = expected_columns(score, right, tokens, seed)
            expected["auc_gain"] = expected["auc"] - length_auc
            for prefix, value in expected.items():
                assert float(row[f"{prefix}_{name}"]) == pytest.approx(value, abs=1e-9), f"{prefix}_{name}"
                compared += 1
        for alias, name in PUBLISHED.items():
            expected = expected_columns(scores[name], right, tokens, seed)
            for prefix in PUBLISHED_METRICS:
                assert float(row[f"{prefix}_{alias}"]) == pytest.approx(expected[prefix], abs=1e-9)
                compared += 1
    spanned = [score.name for score in SCORES if of_spans(score.name)]
    assert all(row[f"auc_{name}"] == "" for row in rows.values() for name in spanned)
    assert compared == 2 * ((len(SCORES) - len(spanned)) * METRICS + 4 * 6)
    assert len(rows[96]) == 1 + 3 + len(SCORES) * METRICS + 4 * 6  # no column is left unchecked


def test_detection_summary_and_bootstrap_intervals(detection: Path) -> None:
    rows = table(detection / "detailed_results.csv")
    lines = {line["metric"]: line for line in table(detection / "summary_statistics.csv")}
    for name, line in lines.items():
        if of_spans(name):
            continue
        values = [float(row[name]) for row in rows]
        assert float(line["mean"]) == pytest.approx(fmean(values))
        assert float(line["std"]) == pytest.approx(stdev(values))
        assert (float(line["minimum"]), float(line["maximum"])) == (min(values), max(values))
    data = [detection_scores(seed) for seed in SEEDS]
    order = np.argsort([record["unique_id"].replace("/", "_") for record in greedy_records(96)])
    draws = np.random.default_rng(20250517).multinomial(len(order), np.full(len(order), 1 / len(order)), size=DRAWS)
    for name in ("length", "tu_sum", "eu_sum", "eu_mean", "ll_mean", "confidence_bottom_groups"):
        aucs = [
            fmean(
                roc_auc_score(np.array(right)[order], np.array(scores[name])[order], sample_weight=weights)
                for scores, right, _ in data
            )
            for weights in draws
        ]
        low, high = np.percentile(aucs, [2.5, 97.5])
        assert float(lines[f"auc_{name}"]["low"]) == pytest.approx(low)
        assert float(lines[f"auc_{name}"]["high"]) == pytest.approx(high)


SCALING_SCORES = {
    "nau": ("uncertainties", "nau", -1), "neu": ("uncertainties", "neu", -1), "ntu": ("uncertainties", "ntu", -1),
    "au": ("uncertainties", "au", -1), "eu": ("uncertainties", "eu", -1), "tu": ("uncertainties", "tu", -1),
    "nll": ("logprobs", "nll", 1), "ll": ("logprobs", "ll", 1), "ce": ("scores", "ce", 1), "dc": ("scores", "dc", 1),
    "entropy_mean": ("scores", "entropy", -1), "bir_mean": ("scores", "bir", -1),
}  # fmt: skip


def subset_of(name: str, size: int, repeat: int) -> list[int]:
    """The responses of a repeat: the promise of reproducibility, spelled out."""
    words = struct.unpack("<4I", blake2b(name.encode(), digest_size=16).digest())
    generator = np.random.default_rng(np.random.SeedSequence([96, size, repeat, *words]))
    return generator.permutation(16)[:size].tolist()


def winner_accuracy(votes: dict[str, float], gold: str) -> float:
    tied = [name for name, weight in votes.items() if math.isclose(weight, max(votes.values()), rel_tol=1e-11)]
    return tied.count(gold) / len(tied) if tied else 0.0


def chosen(index: list[int], values: Numbers, answers: list[str | None], gold: str, p_val: float) -> list[float]:
    """Majority, weighted vote and best of N among the responses `index` by one score."""
    kept = sorted(index, key=lambda i: -values[i])[: max(1, int(p_val * len(index) + 1e-9))]
    majority: dict[str, float] = defaultdict(float)
    weighted: dict[str, float] = defaultdict(float)
    for i in kept:
        given = answers[i]
        if given is not None:
            majority[given] += 1
            weighted[given] += math.exp(values[i] - max(values[j] for j in kept if answers[j] is not None))
    best = [answers[i] == gold for i in index if values[i] == max(values[j] for j in index)]
    return [winner_accuracy(majority, gold), winner_accuracy(weighted, gold), fmean(best)]


def expected_accuracies(p_val: float) -> dict[tuple[str, str, int], list[Numbers]]:
    """Accuracies [problem][repeat] by method, score and N."""
    result: dict[tuple[str, str, int], list[Numbers]] = defaultdict(list)
    for name, record in scaling_records().items():
        gold, outputs = record["answer"], record["outputs"]
        answers = [answer(output["text"]) for output in outputs]
        right = [text == gold for text in answers]
        scores = {key: [sign * output[a][b] for output in outputs] for key, (a, b, sign) in SCALING_SCORES.items()}
        scores["length"] = [-float(output["token_count"]) for output in outputs]
        for size in (1, 2, 4, 8, 16):
            rows: dict[tuple[str, str], Numbers] = defaultdict(list)
            for repeat in range(10 if size < 16 else 1):
                index = subset_of(name, size, repeat)
                votes: dict[str, float] = defaultdict(float)
                for given in (answers[i] for i in index):
                    if given is not None:
                        votes[given] += 1
                rows["majority", "none"].append(winner_accuracy(votes, gold))
                rows["pass", "none"].append(float(any(right[i] for i in index)))
                rows["single", "none"].append(fmean(right[i] for i in index))
                subsets = math.comb(16, size)
                rows["pass_expected", "none"].append(1 - math.comb(right.count(False), size) / subsets)
                for key, values in scores.items():
                    numbers = chosen(index, values, answers, gold, p_val)
                    for method, value in zip(("majority", "weighted", "best_of_n"), numbers, strict=True):
                        rows[method, key].append(value)
            for (method, key), values in rows.items():
                result[method, key, size].append(values)
    return result


@pytest.mark.parametrize("p_val", [0.1, 0.5, 0.9])
def test_scaling_of_every_score_method_and_size(tmp_path: Path, p_val: float) -> None:
    arguments = ["--dataset", DATASET, "--model", MODEL, "--seed", "96", "--n-particles", "16", "--p_val", str(p_val)]
    arguments += ["--results-dir", str(ROOT), "--output-dir", str(tmp_path)]
    result = CliRunner().invoke(eval_scaling_test_multi_gpu.main, arguments)
    assert result.exit_code == 0, result.output
    rows = table(tmp_path / f"{MODEL}_{DATASET}_seed96_p{p_val}_all_scaling_summary.csv")
    expected = expected_accuracies(p_val)
    assert {(row["method"], row["score"], int(row["n"])) for row in rows} == set(expected)
    for row in rows:
        values = np.array(expected[row["method"], row["score"], int(row["n"])])
        problems, repeats = values.shape
        assert (int(row["problems"]), int(row["repeats"])) == (problems, repeats) == (22, 1 if row["n"] == "16" else 10)
        assert float(row["accuracy_mean"]) == pytest.approx(values.mean(), abs=1e-12), row
        assert float(row["standard_error"]) == pytest.approx(values.mean(axis=1).std(ddof=1) / math.sqrt(problems))
        if repeats > 1:
            assert float(row["accuracy_std"]) == pytest.approx(values.mean(axis=0).std(ddof=1), abs=1e-12)
        else:
            assert row["accuracy_std"] == ""
