"""What would it save to stop uncertain responses early, and what would it lose? A table from stored greedy results.

    python eval/eval_stop_rules.py --dataset math500 --model llama1b --seeds 96 89 64

Reads the results that eval_detect_multi_seed.py reads, and prints for some thresholds how many tokens the rule saves,
how many right answers it cuts off, and how many are cut off by stopping as many responses of the same lengths blindly
and by a token limit that saves as much. The thresholds are chosen on the same responses, so take one from here and look
at others with it (--threshold). Needs no GPU.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click
import numpy as np

from bayesian_transformer.aggregations import DEFAULT_WINDOW
from bayesian_transformer.bootstrap import DEFAULT_DRAWS, LEVEL, bootstrap_weights, problem_places
from bayesian_transformer.command_line import FiniteRange, one_line_errors, say
from bayesian_transformer.graded import GradedFolder, read_graded
from bayesian_transformer.grading import Grader, Verdict
from bayesian_transformer.quantities import FIELDS
from bayesian_transformer.results import dataset_name, folders_to_read, model_name
from bayesian_transformer.scores import record_arrays
from bayesian_transformer.stop_rule import LONGEST_WINDOW, StopRule
from eval.utils.csv_tables import write_csv
from eval.utils.eval_options import DATASET, MODEL, RESULTS_DIR, WORKERS, SeveralValues
from eval.utils.stop_rules import Outcome, Responses, outcome, rules_that_stop

PERCENTS = (5, 10, 20, 40)
_QUANTITIES = ("epistemic", "total", "logprob", "confidence")


@click.command(cls=SeveralValues, help=__doc__)
@DATASET
@MODEL
@click.option("--seeds", type=click.IntRange(0), multiple=True, required=True, help="One or more: --seeds 96 89 64.")
@RESULTS_DIR
@click.option(
    "--quantity", type=click.Choice(FIELDS), multiple=True, default=_QUANTITIES, show_default=True, help="What is read."
)
@click.option(
    "--window",
    type=click.IntRange(1, LONGEST_WINDOW),
    default=DEFAULT_WINDOW,
    show_default=True,
    help="Tokens of a mean.",
)
@click.option("--min-tokens", type=click.IntRange(0), default=0, show_default=True, help="Never stop before these.")
@click.option(
    "--threshold", type=FiniteRange(), help="That of one --quantity, in nats.  [default: those that stop 5 to 40 %]"
)
@click.option("--bootstrap", type=click.IntRange(1), default=DEFAULT_DRAWS, show_default=True, help="Bootstrap draws.")
@click.option("--csv", type=click.Path(dir_okay=False, path_type=Path), help="Also write the table to this file.")
@WORKERS
def main(dataset: str, model: str, results_dir: Path, csv: Path | None, **options: Any) -> None:
    if options["threshold"] is not None and len(options["quantity"]) != 1:
        raise click.UsageError("--threshold is that of one quantity; give one --quantity with it")
    dataset, model = dataset_name(dataset), model_name(model)
    with one_line_errors():
        folders = folders_to_read(results_dir, model, dataset, options["seeds"])
        with Grader(workers=options["workers"]) as grader:
            runs = [read_graded(folder, grader) for folder in folders.values()]
        responses = joined(runs, options["bootstrap"])
        outcomes = [outcome(responses, rule) for rule in asked_rules(responses, options)]
        if not outcomes:
            raise ValueError("no rule stops 5 to 40 % of the responses; choose a shorter --window or a --threshold")
        if csv:
            write_csv(csv, [cells(each) for each in outcomes])
    say(f"\n{model} on {dataset}, {len(responses.right)} responses, {int(responses.right.sum())} right; window of")
    say(f"{options['window']} tokens; in percent, intervals at {LEVEL} %\n\n{text_table(outcomes)}")


def asked_rules(responses: Responses, options: dict[str, Any]) -> list[StopRule]:
    """The rules of the table's rows."""
    window, least, threshold = options["window"], options["min_tokens"], options["threshold"]
    return [
        rule
        for quantity in options["quantity"]
        for rule in (
            rules_that_stop(responses, quantity, window, least, PERCENTS)
            if threshold is None
            else [StopRule(quantity, threshold, window, least)]
        )
    ]


def joined(runs: Sequence[GradedFolder], draws: int) -> Responses:
    """The responses of all seeds; ValueError if all are right, or none is."""
    problems, places = problem_places([run.problems for run in runs])
    right = np.array([verdict is Verdict.RIGHT for run in runs for verdict in run.verdicts], dtype=bool)
    if right.all() or not right.any():
        raise ValueError(f"all {len(right)} responses are {'right' if right.all() else 'wrong'}; nothing to compare")
    values = [record_arrays(record, len(record["token_ids"])) for run in runs for record in run.records]
    return Responses(values, right, bootstrap_weights(problems, draws)[:, np.concatenate(places)])


def cells(row: Outcome) -> dict[str, Any]:
    """A row of the CSV table."""
    rule = row.rule
    made = {"quantity": rule.quantity, "threshold": rule.threshold, "window": rule.window}
    shares = ("stopped", "saved", "wrong_stopped", "right_lost", "blind_lost", "difference", "limit_lost")
    ends = ("value", "low", "high")
    return {
        **made,
        "min_tokens": rule.min_tokens,
        "limit": row.limit,
        **{
            name if end == "value" else f"{name}_{end}": getattr(getattr(row, name), end)
            for name in shares
            for end in ends
        },
    }


def text_table(outcomes: Sequence[Outcome]) -> str:
    """The table for a terminal."""
    head = ("stop where", "tokens saved", "wrong stopped", "right lost", "blindly", "difference", "token limit")
    body = [
        (
            f"{row.rule.quantity} {'>' if row.rule.sign < 0 else '<'} {row.rule.threshold:.4g}",
            *map(str, (row.saved, row.wrong_stopped, row.right_lost, row.blind_lost, row.difference, row.limit_lost)),
        )
        for row in outcomes
    ]
    widths = [max(len(row[column]) for row in [head, *body]) for column in range(len(head))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in [head, *body]]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


if __name__ == "__main__":
    main()
