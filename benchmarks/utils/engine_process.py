"""One vLLM engine in a process of its own that does what it is told: the child of `engines.Engine`.

Commands and replies are JSON lines. The engine core runs inside this process, so that a step happens when it is asked
for and never otherwise: a running batch stands still while another engine is measured.
"""

import json
import os
import sys
import time
from typing import Any


class Decoder:
    """A vLLM engine and the batch it is decoding."""

    def __init__(self, **options: Any) -> None:
        from vllm import LLM
        from vllm.platforms import current_platform

        if current_platform.is_cpu():
            # As in an ordinary run, the worker is a process whose threads vLLM binds to cores.
            options["distributed_executor_backend"] = "mp"
        self.llm = LLM(**options)
        self.engine = self.llm.llm_engine
        config = self.engine.vllm_config
        scheduler = config.scheduler_config
        # The second also has room for particle rows, which the scheduler knows nothing of.
        self.budget = scheduler.max_num_scheduled_tokens or scheduler.max_num_batched_tokens
        self.in_flight = config.max_concurrent_batches  # 2 with async scheduling: a step returns the last one's tokens
        self.facts = {
            "async_scheduling": config.scheduler_config.async_scheduling,
            "compilation_mode": str(config.compilation_config.mode),
            "cudagraph_mode": str(config.compilation_config.cudagraph_mode),
        }
        self.tokens: dict[str, int] = {}  # generated so far, by request id, in the order of arrival
        self._time_core()

    def _time_core(self) -> None:
        """Note the duration of schedule, forward, sampling and update: what a step costs when the front end, as in an
        ordinary run, works at the same time in another process."""
        core = self.engine.engine_core
        get_output = core.get_output

        def timed_get_output() -> Any:
            start = time.perf_counter()
            outputs = get_output()
            self.core_seconds = time.perf_counter() - start
            return outputs

        core.get_output = timed_get_output

    def fill(self, sequences: int, context: int, vocab_size: int) -> int:
        """Start a batch of which every sequence has exactly `context` tokens in the cache; the number of its waves.

        As many prompts as fit are prefilled in one step, and then generate one token in each later step; so the prompts
        of earlier waves are shorter by as much. A wave takes as many steps as the engine has in flight.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        size = (self.budget - sequences) // context
        starts = range(0, sequences, size)
        for wave, start in enumerate(starts):
            length = context - self.in_flight * (len(starts) - wave) + 1
            params = SamplingParams(
                temperature=0.0,
                max_tokens=self.engine.model_config.max_model_len - length,
                ignore_eos=True,
                detokenize=False,
                output_kind=RequestOutputKind.DELTA,
            )
            ids = [f"{sequence}" for sequence in range(start, min(start + size, sequences))]
            for request in ids:
                # Deterministic, spread over the vocabulary, and no two prompts alike.
                prompt = [(7919 * i + 104729 * int(request)) % vocab_size for i in range(length)]
                self.engine.add_request(request, {"prompt_token_ids": prompt}, params)
                self.tokens[request] = 0
            while any(self.tokens[request] == 0 for request in ids):
                self._step()
        return len(starts)

    def keep(self, sequences: int) -> None:
        """Abort all but the first `sequences`."""
        dropped = list(self.tokens)[sequences:]
        self.engine.abort_request(dropped)
        for request in dropped:
            del self.tokens[request]

    def steps(self, count: int, discard: int) -> dict[str, list[float]]:
        """Seconds of each of `count` decode steps, after some that are not counted: of the engine core, and in all."""
        core, total = [], []
        for _ in range(discard + count):
            start = time.perf_counter()
            self._step()
            total.append(time.perf_counter() - start)
            core.append(self.core_seconds)
        return {"core": core[discard:], "total": total[discard:]}

    def contexts(self) -> list[int]:
        """Tokens in the cache of each sequence: all it has but the one just generated."""
        requests = self.engine.engine_core.engine_core.scheduler.requests.values()
        return [request.num_computed_tokens for request in requests]

    def machine(self, dtype: str) -> dict[str, Any]:
        """What the first worker measures of its device, see machine.py."""
        return self.llm.collective_rpc("measure_machine", args=(dtype,))[0]

    def _step(self) -> None:
        for output in self.engine.step():
            if output.request_id not in self.tokens:  # an aborted one
                continue
            if output.finished:
                raise RuntimeError(f"request {output.request_id} ended during the measurement")
            self.tokens[output.request_id] += len(output.outputs[0].token_ids)


def main() -> None:
    """Serve commands from stdin until it is closed. Replies have stdout to themselves; vLLM's log goes to stderr."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # before vLLM is imported
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    decoder: Decoder | None = None
    for line in sys.stdin:
        command = json.loads(line)
        name, arguments = command["name"], command["arguments"]
        if decoder is None:
            decoder = Decoder(**arguments)
            result: Any = decoder.facts
        else:
            result = getattr(decoder, name)(**arguments)
        replies.write(json.dumps(result) + "\n")
    if decoder is not None:
        decoder.engine.engine_core.shutdown()


if __name__ == "__main__":
    main()
