"""The worker's part: noise seeds before a forward, statistics of its logits, and their way into the output."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from vllm.platforms import current_platform
from vllm.v1.outputs import AsyncModelRunnerOutput, ModelRunnerOutput
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from ..checkpoint import CONFIG_FILE, tensor_files
from ..fitting import check_same_bases
from ..noise import noise_key
from . import kernels
from .kernels import token_uncertainty
from .model_mixin import EXPERTS_ARE_PACKED, weight_patterns
from .outputs import pack
from .stopping import REQUEST_CHECK

if current_platform.is_cpu():
    from vllm.v1.worker.cpu_worker import CPUWorker as StockWorker
else:
    from vllm.v1.worker.gpu_worker import Worker as StockWorker

_REPLICA_SEEDS = 1 << 40  # between the noise seeds of data-parallel replicas, each of which counts its own arrivals


class TFBWorker(StockWorker):
    """vLLM's worker with a model runner that computes uncertainties."""

    def init_device(self) -> None:
        """Set up the device; which V1 model runner the stock worker makes is the platform's choice."""
        super().init_device()
        kernels.prepare()
        runner = self.model_runner
        runner.__class__ = type(f"Uncertainty{type(runner).__name__}", (UncertaintyRunner, type(runner)), {})
        if self.model_config.logits_processors == [REQUEST_CHECK]:  # which reads no tokens; vLLM would copy them for it
            runner.input_batch.logitsprocs_need_output_token_ids = False

    def wake_up(self, tags: list[str] | None = None) -> None:
        """Wake up from sleep, whose deepest level keeps registered buffers of the model only."""
        super().wake_up(tags)
        if tags is None or "weights" in tags:  # with which our buffers lie
            self.model_runner.write_buffers()


class UncertaintyRunner(GPUModelRunner):
    """Additions to vLLM's V1 model runner, of which the CPU's is a subclass too.

    `TFBWorker` gives a runner this class after it was made, so no `__init__` of ours runs: the state begins as the
    class's own values, which are replaced and never changed in place.
    """

    staged_seeds: tuple[int, ...] = ()  # what `particles.seeds` begins with
    arrivals = 0  # requests seen so far
    statistics: Tensor | None = None  # of the tokens just sampled, float32 [B, 8]

    def _model_forward(self, *args: Any, **kwargs: Any) -> Tensor:
        particles = self.get_model().particles
        seeds = self._request_seeds()
        if seeds != self.staged_seeds:
            staged = torch.tensor(seeds, dtype=torch.int64, pin_memory=current_platform.is_cuda())
            particles.seeds[: len(seeds)].copy_(staged, non_blocking=True)
            self.staged_seeds = seeds
        output = super()._model_forward(*args, **kwargs)
        # Taken from the output, not inside the model: on the replay of a captured graph no model code runs.
        particles.hidden = output[kwargs["positions"].shape[0] :]
        return output

    def write_buffers(self) -> None:
        """Write again what the particles hold on the device; the seeds before the next forward."""
        self.staged_seeds = ()
        self.get_model().particles.write_sites()

    def _request_seeds(self) -> tuple[int, ...]:
        """Noise seeds in batch order: the request's own, else engine seed + arrival number, far apart for each replica.

        A seed is kept on the request's state, which lives as long as the request. Its id may come again at once.
        """
        first = self.model_config.seed + self.parallel_config.data_parallel_index * _REPLICA_SEEDS
        for request in self.requests.values():
            if not hasattr(request, "noise_seed"):
                seed = request.sampling_params.seed
                request.noise_seed = noise_key(first + self.arrivals if seed is None else seed)
                self.arrivals += 1
        return tuple(self.requests[request_id].noise_seed for request_id in self.input_batch.req_ids)

    def reload_weights(
        self,
        weights_iterator: Any = None,
        weights_path: str | None = None,
        is_checkpoint_format: bool = True,
        **kwargs: Any,
    ) -> None:
        """Load weights again. ValueError, before anything is changed, if bases are known to be missing."""
        if not is_checkpoint_format:
            raise ValueError(
                "is_checkpoint_format=False is not supported: weights in that form come without their bases"
            )
        model = self.get_model()
        if model.packs_experts:
            raise ValueError(EXPERTS_ARE_PACKED)
        name = weights_path or self.model_config.model
        uses_file = weights_iterator is None and model.expect_first_weights(name)
        if weights_iterator is None and (folder := Path(name)).is_dir():
            missing = sorted(model.basis_names - tensor_files(folder).keys())
            if missing and model.needs_stored_bases and not uses_file:
                raise ValueError(f"{folder}: {missing[0]} is missing ({len(missing)} are); convert the model first")
            if (folder / CONFIG_FILE).is_file():
                check_same_bases(folder, model.particles.noise)
            model.allow_patterns_overrides = weight_patterns(folder)
        super().reload_weights(weights_iterator, weights_path, is_checkpoint_format, **kwargs)

    def _sample(self, logits: Tensor | None, spec_decode_metadata: Any) -> Any:
        particles = self.get_model().particles
        raw, particles.logits = particles.logits, None
        output = super()._sample(logits, spec_decode_metadata)
        self.statistics = token_uncertainty(raw, output.sampled_token_ids[:, 0]).stack()
        return output

    def sample_tokens(self, grammar_output: Any) -> Any:
        with self._unfinished_prompts_keep_generators():
            output = super().sample_tokens(grammar_output)
        statistics, self.statistics = self.statistics, None
        if statistics is None:  # nothing was scheduled
            return output
        if isinstance(output, AsyncModelRunnerOutput):
            return AsyncUncertaintyOutput(output, statistics, self._get_or_create_async_output_copy_stream())
        output.sampling_masks = pack(statistics.cpu())
        return output

    @contextmanager
    def _unfinished_prompts_keep_generators(self) -> Iterator[None]:
        """Hide the generators of requests whose token will be discarded.

        Stock code lets them draw and then winds them back, which torch's CPU generators cannot do.
        """
        generators = self.input_batch.generators
        discarded = np.nonzero(self.discard_request_mask.np[: self.input_batch.num_reqs])[0].tolist()
        hidden = {row: generators.pop(row) for row in discarded if row in generators}
        yield
        generators.update(hidden)

    def _dummy_sampler_run(self, hidden_states: Tensor) -> Tensor:
        """Profiling must see the logits and statistics of the particle rows too.

        Triton compiles a kernel for one token, for multiples of 16 and for other numbers of tokens; a GPU meets all of
        them here, so that no request waits for the compiler.
        """
        particles = self.get_model().particles
        particles.hidden = hidden_states.repeat(particles.noisy_samples, 1)
        output = super()._dummy_sampler_run(hidden_states)
        tokens = len(hidden_states)
        token_ids = torch.zeros(tokens, 1, dtype=torch.int32, device=hidden_states.device)[:, 0]  # as the sampler's
        for count in {tokens} | ({1, 2, 16} if current_platform.is_cuda() else set()):
            token_uncertainty(particles.logits[:, :count], token_ids[:count])
        particles.logits = None
        return output


class AsyncUncertaintyOutput(AsyncModelRunnerOutput):
    """Adds the statistics to an asynchronous output; their copy to the host overlaps the next step."""

    def __init__(self, inner: AsyncModelRunnerOutput, statistics: Tensor, stream: Any) -> None:
        self._inner = inner
        self._device_statistics = statistics  # kept alive until the copy is done
        self._ready = torch.cuda.Event(blocking=True)
        current = torch.cuda.current_stream()
        with torch.cuda.stream(stream):
            stream.wait_stream(current)
            self._statistics = statistics.to("cpu", non_blocking=True)
            self._ready.record()

    def get_output(self) -> ModelRunnerOutput:
        output = self._inner.get_output()
        self._ready.synchronize()
        output.sampling_masks = pack(self._statistics)
        return output
