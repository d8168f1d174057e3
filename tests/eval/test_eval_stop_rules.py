"""What a stop rule saves and loses: by hand, against a loop over tokens, and from the command line."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bayesian_transformer.bootstrap import bootstrap_weights
from bayesian_transformer.stop_rule import StopRule
from eval.eval_stop_rules import PERCENTS, main
from eval.utils.stop_rules import Responses, outcome, rules_that_stop
from tests.helpers.detection_runs import table
from tests.helpers.eval_results import DATASET, MODEL, write_greedy


def responses(count: int, seed: int = 0) -> Responses:
    """Wrong ones are longer and less certain."""
    rng = np.random.default_rng(seed)
    right = rng.random(count) < 0.5
    lengths = rng.integers(1, 40, count) + np.where(right, 0, 15)
    doubts = np.where(right, 1.0, 1.6)
    values = [
        {"epistemic": doubt * rng.gamma(2.0, 1.0, length), "logprob": -doubt * rng.gamma(2.0, 1.0, length)}
        for doubt, length in zip(doubts, lengths, strict=True)
    ]
    return Responses(values, right, bootstrap_weights(count, 40))


def test_by_hand() -> None:
    values = [[0.0, 3.0, 0.0, 0.0], [0.0, 0.0, 3.0], [3.0, 0.0], [0.0] * 6]
    right = np.array([True, True, False, True])
    made = Responses([{"epistemic": np.array(each)} for each in values], right, bootstrap_weights(4, 1)[:1])
    found = outcome(made, StopRule("epistemic", 1.0, window=1))
    # The first stops after two of four tokens, the third after one of two. The second is at its end.
    assert [found.stopped.value, found.wrong_stopped.value] == [50, 100]
    assert found.saved.value == pytest.approx(100 * 3 / 15)
    assert found.right_lost.value == pytest.approx(100 / 3)
    # 12 tokens are left under a limit between 3 (11 tokens) and 4 (13): half of those with just four are cut.
    assert found.limit == pytest.approx(3.5)
    assert found.limit_lost.value == pytest.approx(100 * 1.5 / 3)
    # All four are of other lengths, so to stop blindly is to stop the same ones.
    assert (found.blind_lost.value, found.difference.value) == (found.right_lost.value, 0)


@pytest.mark.parametrize("quantity", ["epistemic", "logprob"])
@pytest.mark.parametrize(("window", "min_tokens"), [(1, 0), (5, 0), (5, 12)])
def test_the_thresholds_stop_as_many_as_they_say(quantity: str, window: int, min_tokens: int) -> None:
    made = responses(200)
    found = [outcome(made, rule) for rule in rules_that_stop(made, quantity, window, min_tokens, PERCENTS)]
    assert [row.stopped.value for row in found] == pytest.approx(list(PERCENTS))
    for row in found:
        kept = []
        for arrays in made.values:
            array, end = arrays[quantity], max(window, min_tokens)
            doubt = array if quantity == "epistemic" else -array
            line = row.rule.threshold * (1 if quantity == "epistemic" else -1)
            while end <= len(array) and not doubt[end - window : end].mean() > line:
                end += 1
            kept.append(min(end, len(array)))
        assert row.saved.value == pytest.approx(100 * (1 - sum(kept) / made.tokens.sum()))
        cut = np.minimum(made.tokens, row.limit).sum()
        assert cut == pytest.approx(sum(kept))
        assert row.right_lost.low <= row.right_lost.value <= row.right_lost.high


def test_the_blind_rule_is_dealt_among_responses_of_one_length() -> None:
    """All ten have three tokens: four are stopped, two of the six right ones among them."""
    right = np.arange(10) < 6
    values = [{"epistemic": np.array([float(i in (0, 1, 6, 7)), 0.0, 0.0])} for i in range(10)]
    found = outcome(Responses(values, right, bootstrap_weights(10, 1)[:1]), StopRule("epistemic", 0.5, window=1))
    assert found.blind_lost.value == pytest.approx(40)
    assert found.difference.value == pytest.approx(100 / 3 - 40)


def test_doubt_that_tells_wrong_from_right_loses_less_than_the_blind_rule() -> None:
    """And a rule on noise does not, though wrong responses are longer."""
    rng = np.random.default_rng(3)
    telling, blind = [], []
    right = np.arange(400) % 2 == 0
    for is_right in right:
        length = int(rng.integers(20, 60)) + (0 if is_right else 10)
        telling.append({"epistemic": rng.gamma(2.0, 1.0 if is_right else 2.0, length)})
        blind.append({"epistemic": rng.gamma(2.0, 1.0, length)})
    weights = bootstrap_weights(400, 200)
    differences = []
    for values in (telling, blind):
        made = Responses(values, right, weights)
        (rule,) = rules_that_stop(made, "epistemic", 8, 0, [30])
        differences.append(outcome(made, rule).difference)
    assert differences[0].high < 0
    assert differences[1].low < 0 < differences[1].high


def test_the_command(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_greedy(tmp_path, seed)
    options = ["--dataset", DATASET, "--model", MODEL, "--results-dir", str(tmp_path), "--workers", "1"]
    options += ["--seeds", "1", "2", "--bootstrap", "50", "--csv", str(tmp_path / "rules.csv"), "--window", "8"]
    found = CliRunner().invoke(main, options)
    assert found.exit_code == 0, found.output
    assert "240 responses, " in found.output
    rows = table(tmp_path / "rules.csv")
    assert len(rows) == 16
    assert {row["quantity"] for row in rows} == {"epistemic", "total", "logprob", "confidence"}
    one = next(row for row in rows if row["quantity"] == "epistemic")
    again = CliRunner().invoke(main, [*options, "--quantity", "epistemic", "--threshold", one["threshold"]])
    assert again.exit_code == 0, again.output
    (row,) = table(tmp_path / "rules.csv")
    assert row == one


def test_what_cannot_be(tmp_path: Path) -> None:
    write_greedy(tmp_path, 1, problems=20)
    options = ["--dataset", DATASET, "--model", MODEL, "--results-dir", str(tmp_path), "--workers", "1", "--seeds", "1"]
    found = CliRunner().invoke(main, [*options, "--window", "4000"])
    assert (found.exit_code, found.output.count("\n")) == (1, 1)
    assert "choose a shorter --window or a --threshold" in found.output
    found = CliRunner().invoke(main, [*options, "--threshold", "0.05"])
    assert found.exit_code == 2
    assert "give one --quantity with it" in found.output
    write_greedy(tmp_path, 2, problems=20, chance=1.0)
    found = CliRunner().invoke(main, [*options[:-1], "2"])
    assert "all 20 responses are right" in found.output
