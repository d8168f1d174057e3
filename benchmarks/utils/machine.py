"""What the machine reaches at best, measured in vLLM's own worker process (its threads, its device), and its memory."""

import time
from collections.abc import Callable
from typing import Any

import psutil
import torch

_REPEATS = 5
_BUFFER_BYTES = {"cpu": 1 << 28, "cuda": 1 << 32}  # far beyond the last-level cache
_MATMUL_SIZE = {"cpu": 2048, "cuda": 8192}


class MachineProbe:
    """A `worker_extension_cls`: vLLM mixes it into its worker, whose `device` it uses."""

    device: torch.device

    def measure_machine(self, dtype: str) -> dict[str, Any]:
        """Read bandwidth (bytes/s) and matmul rate (FLOP/s) in `dtype`, best of several, and who measured them."""
        kind = self.device.type
        data = torch.ones(_BUFFER_BYTES[kind] // 4, dtype=torch.float32, device=self.device)
        out = torch.empty(len(data) // 2, dtype=torch.float32, device=self.device)
        read = data.nbytes / self._best_seconds(data.sum)
        dot = data.nbytes / self._best_seconds(lambda: torch.dot(data[: len(out)], data[len(out) :]))
        copied = 2 * out.nbytes / self._best_seconds(lambda: out.copy_(data[: len(out)]))
        size = _MATMUL_SIZE[kind]
        left = torch.ones(size, size, dtype=getattr(torch, dtype), device=self.device)
        return {
            "device": torch.cuda.get_device_name(self.device) if kind == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
            "bytes_per_second": max(read, dot, copied),
            "flops_per_second": 2 * size**3 / self._best_seconds(lambda: left @ left),
        }

    def _best_seconds(self, run: Callable[[], Any]) -> float:
        seconds = []
        for _ in range(_REPEATS + 1):  # the first is a warm-up, and slower
            self._synchronize()
            start = time.perf_counter()
            run()
            self._synchronize()
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def best_of(machine: dict[str, Any], again: dict[str, Any]) -> dict[str, Any]:
    """The larger of two measured rates: what else runs on a machine can only make it look slower."""
    rates = ("bytes_per_second", "flops_per_second")
    return again | {rate: max(again[rate], machine.get(rate, 0.0)) for rate in rates}


def available_bytes() -> int:
    """Memory that two engines may share: free memory of the machine, or nine tenths of a GPU's."""
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        return psutil.virtual_memory().available
    return int(0.9 * current_platform.get_device_total_memory())
