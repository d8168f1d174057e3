"""The table of checks, in the order of their lines. A check is a function without arguments that gives a Finding."""

from dataclasses import dataclass

_HERE = "bayesian_transformer.doctor"
_PLAIN = "set TOKUR_KERNELS=plain to go on without our kernels, and report this line (tokur doctor --json)"
_REPORT = "mend the errors above first; else report this line (tokur doctor --json)"
_BROKEN_IMPORT = "pip uninstall torchvision torchaudio torchcodec, if one of them is named; else reinstall it"

GPU = "gpu"  # the check whose verdict n/a means that there is none


@dataclass(frozen=True)
class Check:
    """One line of the doctor."""

    key: str  # its name in the JSON document
    title: str  # its name on the screen
    function: str  # "module:function", imported in a process of its own
    seconds: float  # deadline; far above what it takes, as a slow disk may hold up an import
    remedy: str  # for whatever the function itself does not foresee, a crash say
    needs: tuple[str, ...] = ()  # keys of checks without which this one makes no sense
    on_gpu: bool = False  # runs on the GPU where there is one
    engine: bool = False  # starts an engine; `--skip-engine` leaves it out


CHECKS = (
    Check("python", "Python", f"{_HERE}.installed:python", 30, "reinstall Python"),
    Check("torch", "torch", f"{_HERE}.installed:torch_build", 60, "reinstall torch for this machine"),
    Check(GPU, "GPU", f"{_HERE}.installed:gpu", 60, "mend the NVIDIA driver, or hide the GPU", ("torch",), True),
    Check("transformers", "transformers", f"{_HERE}.packages:transformers_models", 120, _BROKEN_IMPORT),
    Check("vllm", "vLLM", f"{_HERE}.packages:vllm_version", 180, _BROKEN_IMPORT),
    Check("plugin", "vLLM plugin", f"{_HERE}.packages:plugin", 30, "reinstall bayesian_transformer"),
    Check("companions", "companions", f"{_HERE}.packages:companions", 60, _BROKEN_IMPORT),
    Check("cache", "cache folder", f"{_HERE}.installed:cache", 30, "set TOKUR_CACHE to a folder that can be written"),
    Check("switch", "kernel switch", f"{_HERE}.installed:kernel_switch", 60, "unset TOKUR_KERNELS", ("torch",)),
    Check("cpp", "C++ kernels", f"{_HERE}.comparisons.cpp_kernels:check", 200, _PLAIN, ("torch", "cache")),
    Check(
        "statistics", "Triton statistics", f"{_HERE}.comparisons.triton_kernels:statistics", 150, _PLAIN, (GPU,), True
    ),
    Check("noise", "Triton noise", f"{_HERE}.comparisons.triton_kernels:noise", 150, _PLAIN, (GPU,), True),
    Check("merge", "Triton merge", f"{_HERE}.comparisons.triton_kernels:merge", 150, _PLAIN, (GPU,), True),
    Check(
        *("attention", "FlashAttention", f"{_HERE}.comparisons.gpu_attention:prefix", 150),
        remedy="start engines with hf_overrides={'num_samples': 1} or on a CPU, and report this line (--json)",
        needs=(GPU, "vllm"),
        on_gpu=True,
    ),
    Check(
        *("graph", "CUDA graph", f"{_HERE}.comparisons.gpu_attention:graph", 150),
        remedy="start engines with enforce_eager=True, and report this line (tokur doctor --json)",
        needs=(GPU, "vllm"),
        on_gpu=True,
    ),
    Check(
        *("engine", "engine, eager", f"{_HERE}.comparisons.tiny_engine:eager", 300),
        remedy=f"mend the errors above first; else {_PLAIN}",
        needs=("vllm", "plugin"),
        on_gpu=True,
        engine=True,
    ),
    Check(
        *("engine_graphs", "engine, graphs", f"{_HERE}.comparisons.tiny_engine:graphs", 500),
        remedy="if the line above is well, start engines with enforce_eager=True; report this line (--json)",
        needs=(GPU, "vllm", "plugin"),
        on_gpu=True,
        engine=True,
    ),
    Check("score", "one text scored", f"{_HERE}.comparisons.scored_text:check", 120, _REPORT, ("transformers",), True),
)
