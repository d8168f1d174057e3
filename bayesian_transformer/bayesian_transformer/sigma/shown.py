"""What `tokur sigma` prints and stores."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from ..bootstrap import LEVEL
from .choosing import Choice
from .labelled import FEW, SCORES, Auroc, Labelled
from .search import Search
from .summary import LEAST_FOR_HALVES, Row

SCHEMA_VERSION = 1
SMALL_NLL = 0.01  # nats per token; below it a relative change is about hardly anything
_HEADER = f"{'S':>3} {'sigma':>7}  {'flipped tokens [' + str(LEVEL) + ' %]':<27}{'NLL change per token':<24}"
_HEADER += f"{'EU mean':>9}{'EU/TU':>9}{'EU error':>10}{'halves r':>10}"


def lines(search: Search, rows: Sequence[Sequence[Row]], choices: Sequence[Choice]) -> Iterator[str]:
    """The table, what is recommended, and what must be known of both."""
    tokens, problems = sum(sums.tokens for sums in search.sums), search.problems
    clean = sum(sums.clean_nll for sums in search.sums) / tokens
    yield (
        f"{len(search.texts)} responses to {problems} problems, {tokens} tokens; "
        f"noise-free NLL {clean:.4f} nats per token"
    )
    yield _HEADER.rstrip()
    for of_count in rows:
        yield from map(_row, of_count)
    for choice in choices:
        yield f"{choice.num_samples} weight samples: {choice.text}"
    yield from (f"note: {note}" for note in notes(clean, problems, rows))


def notes(clean: float, problems: int, rows: Sequence[Sequence[Row]]) -> list[str]:
    """What a reader of the table must know. `clean` is the noise-free NLL per token."""
    found = ["no theory ties the share of flipped tokens to how well EU tells right from wrong answers"]
    if problems < FEW:
        found.append(f"with fewer than {FEW} problems the intervals are rough, and rather too narrow")
    if clean < SMALL_NLL:
        found.append(
            f"the noise-free NLL is only {clean:.4f} nats per token, so relative changes of it are large by themselves"
        )
    if few := [of_count[0].num_samples for of_count in rows if of_count[0].num_samples < LEAST_FOR_HALVES]:
        found.append(
            f"S = {', '.join(map(str, few))}: the error of EU needs at least {LEAST_FOR_HALVES} weight samples"
        )
    return found


def _row(row: Row) -> str:
    interval = "[-, -]"
    if row.flip_rate_interval is not None:
        interval = "[{:.2f}, {:.2f}]".format(*(100 * end for end in row.flip_rate_interval))
    flipped = f"{100 * row.flip_rate:6.2f} % {interval}"
    change = f"{row.nll_change:+.4f} ({_percent(row.nll_change_relative, sign=True)})"
    correlation = "-" if row.eu_correlation is None else f"{row.eu_correlation:.2f}"
    return (
        f"{row.num_samples:>3} {row.sigma:>7g}  {flipped:<27}{change:<24}{row.eu_mean:>9.2g}{_percent(row.eu_share):>9}"
        f"{_percent(row.eu_error, digits=0):>10}{correlation:>10}"
    )


def _percent(share: float | None, digits: int = 2, sign: bool = False) -> str:
    return "-" if share is None else f"{100 * share:{'+' if sign else ''}.{digits}f} %"


def labelled_lines(labelled: Labelled) -> Iterator[str]:
    """The detection figures."""
    undecided = f" ({labelled.undecided} undecided)" if labelled.undecided else ""
    yield f"Detection: {labelled.right} right and {labelled.wrong} wrong responses{undecided}; AUROC [{LEVEL} %]"
    yield "without noise: " + ", ".join(f"{name} {_auroc(value)}" for name, value in labelled.baselines.items())
    yield f"{'S':>3} {'sigma':>7}  " + "".join(f"{score:<22}" for score in SCORES).rstrip()
    for count in dict.fromkeys(each.num_samples for each in labelled.detections):
        of_count = [each for each in labelled.detections if each.num_samples == count]
        for sigma in of_count[0].by_sigma:
            yield _aurocs(count, f"{sigma:g}", [each.by_sigma[sigma] for each in of_count])
        yield _aurocs(count, "picked", [each.out_of_sample for each in of_count])
    yield "picked: the best sigma on one half of the problems, judged on the other; the best line is best by chance too"
    yield from (f"note: {note}" for note in labelled.notes)


def _aurocs(count: int, sigma: str, values: Sequence[Auroc]) -> str:
    return f"{count:>3} {sigma:>7}  " + "".join(f"{_auroc(value):<22}" for value in values).rstrip()


def _auroc(auroc: Auroc) -> str:
    numbers = (auroc.value, auroc.low, auroc.high)
    value, low, high = ("-" if number is None else f"{100 * number:.1f}" for number in numbers)
    return f"{value} [{low}, {high}]"


def document(
    search: Search, rows: Sequence[Sequence[Row]], choices: Sequence[Choice], labelled: Labelled | None
) -> dict[str, Any]:
    """What is stored, without what it was made with."""
    tokens = sum(sums.tokens for sums in search.sums)
    found = None if labelled is None else asdict(labelled)
    for each in found["detections"] if found else ():
        picked = each.pop("picked")  # a key in JSON is a text, so sigma becomes a value
        each["by_sigma"] = [{"sigma": k, **value, "picked": picked[k]} for k, value in each["by_sigma"].items()]
    return {
        "schema_version": SCHEMA_VERSION,
        "responses": len(search.texts),
        "problems": search.problems,
        "tokens": tokens,
        "clean_nll_mean": sum(sums.clean_nll for sums in search.sums) / tokens,
        "flip_rate_tolerance": search.tolerance,
        "rows": [asdict(row) for of_count in rows for row in of_count],
        "recommended": [asdict(choice) for choice in choices],
        "detection": found,
    }
