"""The course of a run, shared by the run scripts: problems in, one job each, failures counted and named."""

import sys
from collections.abc import Container, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

import click
from tqdm import tqdm

from bayesian_transformer.command_line import say
from bayesian_transformer.files import dumps
from bayesian_transformer.printable import one_line, printable
from bayesian_transformer.problems import answer_text, count_problems, load_problems, problem_text, question_id
from bayesian_transformer.results import SCHEMA_VERSION, SETTINGS

from .config import Model, dataset_name, load_model
from .engine import Job, end_engine, start_engine, stream
from .run_options import RunOptions
from .terminal import Progress, output_to

# The engine arguments that change results; others, such as tensor_parallel_size, may differ when a run resumes.
_RESULT_ARGS = ("dtype", "quantization", "max_model_len", "tokenizer")


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
    _terminal: TextIO | None = field(default=None, init=False)
    _llm: Any = field(default=None, init=False)

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
        self.failures[label] = one_line(error)
        tqdm.write(f"{printable(label)}: {self.failures[label]}", file=self._terminal or sys.stderr)

    def refuse(self, label: str, error: ValueError) -> None:
        """Count a problem that cannot be asked, see `fail`, and do not ask it."""
        del self.jobs[label]
        self.fail(label, error)

    def settings(self, temperature: float) -> dict[str, Any]:
        """Everything that decides the numbers of this run, to be stored with them: keys of SETTINGS."""
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
            **noise.later_settings,
        }
        return {key: values[key] for key in SETTINGS if key in values}

    @contextmanager
    def engine_output(self) -> Iterator[None]:
        """What is printed in the block goes to --log-file, but for progress and failures. Its end ends the engine."""
        with output_to(self.options.log_file) as self._terminal:
            try:
                yield
            finally:
                if self._llm is not None:
                    end_engine(self._llm)  # here, because it has something to print as well
        self._terminal = None

    def results(self, finished: Container[str], n: int, temperature: float) -> Iterator[tuple[Job, Any]]:
        """Ask for n responses to each problem that is not `finished`; yield each success with its RequestOutput.

        In a block of `engine_output` only.
        """
        jobs = [job for job in self.jobs.values() if job.question_id not in finished]
        if not jobs:
            return
        batch = self.options.batch_size
        overrides = {**self.model.engine_overrides, **self.options.hf_overrides}
        args = self.options.engine_args | {"hf_overrides": overrides}
        params = {
            "n": n,
            "temperature": temperature,
            "max_tokens": self.options.max_tokens,
            "stop_token_ids": list(self.model.stop_token_ids),
        }
        in_flight = 2 * -(-batch // n)  # enough to fill the batch, and as many waiting to replace them
        done = len(self.jobs) - len(jobs)
        with closing(Progress(self.dataset, len(self.jobs), done, self._terminal or sys.stderr)) as progress:
            self._llm = start_engine(self.model.path, self.options.seed, batch, args)
            progress.begin()
            for job, output in stream(self._llm, jobs, params, self.options.seed, in_flight):
                progress.update()
                if isinstance(output, ValueError):
                    self.fail(job.question_id, output)
                else:
                    yield job, output

    def finish(self, where: Path) -> None:
        """Say where the results are; exit with status 1 if a problem has none."""
        say(f"{len(self.jobs.keys() - self.failures.keys())} problems have results in {where}")
        if self.failures:
            names = printable(", ".join(self.failures))
            raise click.ClickException(f"{len(self.failures)} problems have no result: {names}")
