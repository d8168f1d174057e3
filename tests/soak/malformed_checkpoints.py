"""Malformed checkpoints: each is refused in one line that names what is wrong, or accepted for a reason.

    python -m tests.soak checkpoints --flips 1000 --engines

The mutations and what must come of each are declared in bad_weights.py, bad_configs.py and bad_folders.py. Three
readers get them: the conversion (the command), transformers (the loading of our commands), and vLLM (the making of its
configuration, where the plugin looks at the folder; with `engines` also the start of an engine, where that was made).
Besides, single bytes of a header are changed at random.

What is claimed of each: an error is one line that names file and tensor or key; nothing is left behind, in the folder
or next to it; the memory grows by less than MOST_MEGABYTES, and it takes less than SECONDS.
"""

import json
import os
import random
import re
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner

from bayesian_transformer.convert import main as convert_command
from bayesian_transformer.hf.loading import load_model
from tests.soak.bad_configs import config_mutations
from tests.soak.bad_folders import folder_mutations
from tests.soak.bad_weights import weight_mutations
from tests.soak.mutation import CONVERT, LOAD, STAGES, VLLM, Mutation, accepted, content, make_checkpoints

MOST_MEGABYTES, SECONDS = 400, 120


def mutations() -> list[Mutation]:
    """All that are declared."""
    found = [*weight_mutations(), *config_mutations(), *folder_mutations()]
    assert max(Counter(mutation.name for mutation in found).values()) == 1
    return found


def flipped(seed: int, count: int) -> list[Mutation]:
    """Random bytes in the beginning of the first shard: most of them in its header."""
    draw = random.Random(seed)

    def flip(place: int, value: int, data: bytes) -> bytes:
        return data[:place] + bytes([value]) + data[place + 1 :]

    why = accepted("the header still says what fits")
    return [
        Mutation(f"byte {place} is {value}", content(partial(flip, place, value)), ("model",), why)
        for place, value in ((draw.randrange(1500), draw.randrange(256)) for _ in range(count))
    ]


def run(
    stages: Sequence[str] = STAGES, engines: bool = False, flips: int = 0, seed: int = 0, sample: int | None = None
) -> dict[str, int | float]:
    """The figures of a campaign; AssertionError names the mutation whose outcome is not what is declared.

    Args:
        stages: which readers.
        engines: start an engine where vLLM's configuration could be made, of declared mutations.
        flips: how many random bytes besides.
        sample: only so many of the declared mutations, drawn from `seed`.
    """
    chosen = mutations()
    if sample is not None:
        chosen = random.Random(seed).sample(chosen, sample)
    figures: Counter[str] = Counter()
    wrong, peak = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        base, tfb = make_checkpoints(Path(folder))
        if engines:  # what the first one loads is not what a mutation takes
            assert _in_vllm(tfb, tfb, True) is None
        for mutation in [*chosen, *flipped(seed, flips)]:
            figures["mutations"] += 1
            starts_engine = engines and mutation in chosen
            for stage in [stage for stage in mutation.stages if stage in stages]:
                if stage == VLLM and mutation.late and not engines:
                    continue
                source = base if stage == CONVERT else tfb
                try:
                    outcome, grown = _tried(mutation, stage, source, Path(folder) / "work", starts_engine)
                except AssertionError as error:
                    wrong.append(f"seed {seed}, {mutation.name}, {stage}: {error}")
                else:
                    figures[f"{stage}: {outcome}"] += 1
                    peak = max(peak, grown)
    assert not wrong, f"{len(wrong)} of {figures['mutations']} mutations:\n" + "\n".join(wrong)
    return {**figures, "largest growth of memory, MB": round(peak)}


def _tried(mutation: Mutation, stage: str, source: Path, work: Path, engines: bool) -> tuple[str, float]:
    """What came of a mutation, "refused", "refused by stock" or "accepted", and by how much the memory grew, MB."""
    shutil.rmtree(work, ignore_errors=True)
    folder = Path(shutil.copytree(source, work / "model", symlinks=True))
    mutation.change(folder)
    before = _listing(work)
    with_engine = engines and (stage == VLLM or VLLM not in mutation.stock)
    with _measured() as grown, _deadline(SECONDS):
        error = _READERS[stage](folder, work / "output", with_engine)
    left = _listing(work) - before
    assert not {path for path in left if not path.startswith("output")}, f"left behind: {sorted(left)}"
    assert grown[0] < MOST_MEGABYTES, f"memory grew by {grown[0]:.0f} MB"
    if error is None:
        assert stage in mutation.accepted, "accepted, which is not declared"
        return "accepted", grown[0]
    assert not left, f"left behind after an error: {sorted(left)}"
    lines = [line for line in error.splitlines() if all(part in line for part in mutation.says)]
    if mutation.says and lines and len(lines[0]) < 3000:
        return "refused", grown[0]
    assert stage in mutation.stock, f"must say {' ... '.join(mutation.says)} but says {error[:600]}"
    return "refused by stock", grown[0]


def _converted(folder: Path, output: Path, engines: bool) -> str | None:
    arguments = ["--model-path", str(folder), "--output-path", str(output), "--rank", "4"]
    result = CliRunner().invoke(convert_command, arguments)
    if result.exit_code == 0:
        broken = _loaded(output, output, engines) or (_in_vllm(output, output, True) if engines else None)
        assert broken is None, f"converts to what cannot be loaded: {broken}"
        return None
    assert isinstance(result.exception, SystemExit), f"a traceback: {result.exception!r}"
    *_, last = result.output.splitlines()
    assert last.startswith("Error: "), last
    return last


def _loaded(folder: Path, output: Path, engines: bool) -> str | None:
    try:
        load_model(str(folder), "float32", "cpu")
    except click.ClickException as error:
        message = error.message
    except Exception as error:
        raise AssertionError(f"a traceback: {error!r}"[:600]) from error
    else:
        return None
    assert "\n" not in message, f"more than a line: {message}"
    return message


def _in_vllm(folder: Path, output: Path, engines: bool) -> str | None:
    """Whether vLLM makes its configuration, and whether an engine starts and answers."""
    from vllm.engine.arg_utils import EngineArgs

    options: dict[str, Any] = {"skip_tokenizer_init": True, "dtype": "float32", "max_model_len": 32}
    try:
        EngineArgs(model=str(folder), **options).create_engine_config()
        if engines:
            _asked(folder, options)
    except Exception as error:  # noqa: BLE001  (stock raises whatever it likes)
        return str(error) or repr(error)
    return None


def _asked(folder: Path, options: dict[str, Any]) -> None:
    from vllm import SamplingParams

    from tests.helpers.vllm_engines import engine

    with engine(folder, in_process=True, kv_cache_memory_bytes=1 << 22, max_num_seqs=2, **options) as llm:
        params = SamplingParams(max_tokens=2, temperature=0, ignore_eos=True, detokenize=False)
        output = llm.generate([{"prompt_token_ids": [3, 4, 5]}], params, use_tqdm=False)[0].outputs[0]
        assert len(output.uncertainties) == len(output.token_ids) == 2


_READERS: dict[str, Callable[[Path, Path, bool], str | None]] = {
    CONVERT: _converted,
    LOAD: _loaded,
    VLLM: _in_vllm,
}


def _listing(folder: Path) -> set[str]:
    return {os.path.relpath(path, folder) for path in folder.rglob("*")}


@contextmanager
def _measured() -> Iterator[list[float]]:
    """By how many MB the resident memory rises in the block, at most."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, grown = _resident("VmRSS"), [0.0]
    yield grown
    grown[0] = (_resident("VmHWM") - before) / 1e3


def _resident(name: str) -> int:
    """In kB."""
    match = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert match, name
    return int(match[1])


@contextmanager
def _deadline(seconds: int) -> Iterator[None]:
    def late(*_: object) -> None:
        raise AssertionError(f"took more than {seconds} s")

    old = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


@click.command()
@click.option("--stage", "stages", multiple=True, type=click.Choice(STAGES), default=STAGES, show_default=True)
@click.option("--engines", is_flag=True, help="Start a vLLM engine wherever its configuration can be made.")
@click.option("--flips", default=200, show_default=True, help="Random bytes in a header, besides.")
@click.option("--seed", default=0, show_default=True)
def command(**options: Any) -> None:
    """Read malformed checkpoints with the conversion, transformers and vLLM."""
    begin = time.monotonic()
    figures = run(**options)
    click.echo(json.dumps({**figures, "seconds": round(time.monotonic() - begin)}))
