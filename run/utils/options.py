"""Command line and course of a run, shared by the two run scripts."""

import json
import sys
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from bayesian_transformer.files import dumps

from .config import MAX_TOKENS, Model, dataset_name, load_model
from .engine import Job, start_engine, stream
from .results import SCHEMA_VERSION, SETTINGS, answer_text, count_problems, load_problems, problem_text, question_id

# The engine arguments that change results; others, such as tensor_parallel_size, may differ when a run resumes.
_RESULT_ARGS = ("dtype", "quantization", "max_model_len", "tokenizer")
_OWN_OPTIONS = {"model": "--model-path", "seed": "--seed"}  # recorded with the results, so given in one way only


class JsonObject(click.ParamType):
    """A JSON object on the command line."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        try:
            parsed = json.loads(value)
        except json.JSONDecodeError as error:
            self.fail(f"not valid JSON ({error}): {value}", param, ctx)
        if not isinstance(parsed, dict):
            self.fail(f'must be a JSON object like {{"dtype": "float32"}}, got {value}', param, ctx)
        for key in _OWN_OPTIONS.keys() & parsed.keys():
            self.fail(f"must not hold {key!r}; use {_OWN_OPTIONS[key]}", param, ctx)
        return parsed


@dataclass(frozen=True)
class RunOptions:
    """What both run scripts are asked to do."""

    dataset_path: Path
    dataset_start: int
    dataset_end: int | None
    model_path: str
    output_dir: Path
    seed: int
    batch_size: int
    num_samples: int | None
    bayes_sigma: float | None
    max_tokens: int
    system_prompt_file: Path | None
    engine_args: dict[str, Any]

    @property
    def hf_overrides(self) -> dict[str, Any]:
        """Config keys to replace: those of --engine-args, then --num-samples and --bayes-sigma."""
        overrides = self.engine_args.get("hf_overrides", {})
        if not isinstance(overrides, dict):
            raise ValueError(f"--engine-args: hf_overrides must be a JSON object, got {overrides!r}")
        given = {"num_samples": self.num_samples, "bayes_sigma": self.bayes_sigma}
        return overrides | {key: value for key, value in given.items() if value is not None}

    def system_prompt(self) -> str | None:
        """The text of --system-prompt-file; None leaves the model family's."""
        if self.system_prompt_file is None:
            return None
        try:
            return self.system_prompt_file.read_text(encoding="utf-8").strip()
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.system_prompt_file}: is not UTF-8 text ({error}); save it as UTF-8") from error


def run_options(batch_size: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator that adds the options of RunOptions to a click command."""
    file = click.Path(exists=True, dir_okay=False, path_type=Path)
    options = [
        click.option("--dataset-path", type=file, required=True, help="JSON Lines file of problems."),
        click.option("--dataset-start", type=click.IntRange(0), default=0, show_default=True, help="First problem."),
        click.option("--dataset-end", type=click.IntRange(1), help="One past the last problem.  [default: all]"),
        click.option("--model-path", required=True, help="TFB model: folder, hub name, llama1b, llama8b or qwen3b."),
        click.option(
            "--output-dir",
            type=click.Path(file_okay=False, path_type=Path),
            default=Path("results"),
            show_default=True,
            help="Root of the results; model, data set and seed become folders below it.",
        ),
        click.option(
            "--seed",
            type=click.IntRange(0, 2**32 - 1),
            default=96,
            show_default=True,
            help="Seed of noise and sampling.",
        ),
        click.option(
            "--batch-size",
            type=click.IntRange(1),
            default=batch_size,
            show_default=True,
            help="Responses that vLLM decodes at once.",
        ),
        click.option("--num-samples", type=click.IntRange(1), help="Weight samples.  [default: the model's]"),
        click.option("--bayes-sigma", type=click.FloatRange(0), help="Noise scale.  [default: the model's]"),
        click.option("--max-tokens", type=click.IntRange(1), default=MAX_TOKENS, show_default=True),
        click.option("--system-prompt-file", type=file, help="Text to use as system prompt; an empty file sends none."),
        click.option(
            "--engine-args", type=JsonObject(), default="{}", help="JSON object of further vllm.LLM arguments."
        ),
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn errors of the user's files and settings into one line without a traceback."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise click.ClickException(" ".join(str(error).split())) from error


@dataclass
class Run:
    """The problems of one run, what is known of them, and what went wrong."""

    options: RunOptions
    model: Model
    dataset: str
    start: int
    end: int
    dataset_problems: int  # different ones in the whole data set
    digests: dict[str, str | None]  # of what neither a name nor an option tells: the prompt and the weights
    jobs: dict[str, Job] = field(default_factory=dict)  # by question id
    failures: dict[str, str] = field(default_factory=dict)

    @classmethod
    def prepare(cls, options: RunOptions) -> "Run":
        """Read model and data set and format the prompts. A problem that cannot be asked becomes a failure."""
        problems = load_problems(options.dataset_path)
        end = len(problems) if options.dataset_end is None else options.dataset_end
        if not options.dataset_start < end <= len(problems):
            raise ValueError(
                f"{options.dataset_path}: --dataset-start {options.dataset_start} --dataset-end {end} is not a range "
                f"of its {len(problems)} problems"
            )
        tokenizer = options.engine_args.get("tokenizer")
        model = load_model(options.model_path, options.hf_overrides, options.system_prompt(), tokenizer)
        name, count = dataset_name(str(options.dataset_path)), count_problems(problems)
        digests = {"prompt_digest": model.prompt_digest(), "weights_digest": model.weights_digest()}
        run = cls(options, model, name, options.dataset_start, end, count, digests)
        for index in range(options.dataset_start, end):
            run._add(problems[index], index)
        return run

    def _add(self, problem: dict[str, Any], index: int) -> None:
        label = f"problem {index}"
        try:
            label = question_id(problem)
            dumps(problem).encode()  # half a surrogate pair can neither be tokenised nor stored
            prompt = self.model.prompt(problem_text(problem))
            job = Job(label, problem, answer_text(problem), prompt, self.model.token_ids(prompt))
        except ValueError as error:
            self.fail(label, error)
            return
        self.jobs.setdefault(label, job)  # an exact repeat needs no second answer

    def fail(self, label: str, error: ValueError) -> None:
        """Count a problem that has no result, and say so at once."""
        self.failures[label] = " ".join(str(error).split())
        tqdm.write(f"{label}: {self.failures[label]}", file=sys.stderr)

    def refuse(self, label: str, error: ValueError) -> None:
        """Count a problem that cannot be asked, see `fail`, and do not ask it."""
        del self.jobs[label]
        self.fail(label, error)

    def settings(self, temperature: float) -> dict[str, Any]:
        """Everything that decides the numbers of this run, to be stored with them: the keys of SETTINGS."""
        noise = self.model.noise
        overrides = {k: v for k, v in self.options.hf_overrides.items() if k not in asdict(noise)}
        args = {key: self.options.engine_args[key] for key in _RESULT_ARGS if key in self.options.engine_args}
        values = {
            "schema_version": SCHEMA_VERSION,
            "model": self.model.name,
            "dataset": self.dataset,
            "seed": self.options.seed,
            "num_samples": noise.effective_samples,
            "bayes_sigma": noise.bayes_sigma,
            "bayes_noise": noise.bayes_noise,
            "rank": noise.rank,
            "use_tfb_for_generation": noise.use_tfb_for_generation,
            "temperature": temperature,
            "max_tokens": self.options.max_tokens,
            "engine_args": args | ({"hf_overrides": overrides} if overrides else {}),
            **self.digests,
        }
        return {key: values[key] for key in SETTINGS}

    def results(self, finished: Container[str], n: int, temperature: float) -> Iterator[tuple[Job, Any]]:
        """Ask for n responses to each problem that is not `finished`; yield each success with its RequestOutput."""
        jobs = [job for job in self.jobs.values() if job.question_id not in finished]
        if not jobs:
            return
        batch = self.options.batch_size
        args = self.options.engine_args | {"hf_overrides": self.options.hf_overrides}
        llm = start_engine(self.model.path, self.options.seed, batch, args)
        params = {
            "n": n,
            "temperature": temperature,
            "max_tokens": self.options.max_tokens,
            "stop_token_ids": list(self.model.stop_token_ids),
        }
        in_flight = 2 * -(-batch // n)  # enough to fill the batch, and as many waiting to replace them
        done = len(self.jobs) - len(jobs)
        with tqdm(total=len(self.jobs), initial=done, desc=self.dataset, unit="problem") as progress:
            for job, output in stream(llm, jobs, params, self.options.seed, in_flight):
                progress.update()
                if isinstance(output, ValueError):
                    self.fail(job.question_id, output)
                else:
                    yield job, output

    def finish(self, where: Path) -> None:
        """Say where the results are; exit with status 1 if a problem has none."""
        click.echo(f"{len(self.jobs.keys() - self.failures.keys())} problems have results in {where}")
        if self.failures:
            raise click.ClickException(f"{len(self.failures)} problems have no result: {', '.join(self.failures)}")
