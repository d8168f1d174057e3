"""The library of cpp/: compiled, loaded, and compared with what Python believes of its functions and structs.

ctypes cannot read C++: it puts arguments and members where the tables here say. The library therefore describes itself
(cpp/describe.h), and `library` compares before anything is called: a changed signature is a `LibraryMismatch`, never
somebody else's memory.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from ...files import atomic_path, cache_dir
from ...noise_config import QKV
from ...quantities import FIELDS
from ...uncertainty import CONFIDENCE_TOP_K

logger = logging.getLogger(__name__)

SOURCES = Path(__file__).with_name("cpp")
# The two -fno give up errno and floating-point exceptions, which nobody reads, and change no result.
FLAGS = ["-std=c++20", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Names that the sources take from here, as the members of an enum.
NAMES = [f"-DQUANTITIES={','.join(FIELDS)}", f"-DDTYPES={','.join(DTYPES)}"]
LANES = 16  # numbers in a vector
CONSTANTS = {"LANES": LANES, "PROJECTIONS": len(QKV), "TOP_K": CONFIDENCE_TOP_K}

Index = ctypes.c_int64
OfProjections = Index * len(QKV)


class LibraryMismatch(RuntimeError):
    """The C++ sources and the tables here disagree on a function, a struct or a constant: a mistake in this package."""


class AttentionShape(ctypes.Structure):
    """`AttentionShape` in cpp/attention.h."""

    _fields_ = [
        *((name, Index) for name in ("requests", "noisy_samples", "kv_heads", "group", "head_size")),
        *((name, Index) for name in ("block_size", "max_blocks")),
        *((name, Index) for name in ("query_stride", "key_stride", "value_stride", "output_stride", "block_stride")),
        *((name, Index) for name in ("key_step", "value_step")),
    ]


class NoiseShape(ctypes.Structure):
    """`NoiseShape` in cpp/noise.h."""

    _fields_ = [
        *((name, Index) for name in ("requests", "noisy_samples", "hidden", "width", "x_stride", "qkv_stride")),
        ("projections", Index),
        *((name, OfProjections) for name in ("begins", "sizes", "starts")),
    ]


class Numbers(ctypes.c_void_p):
    """Address of a tensor's first number, of the dtype that another argument names; None where there is no tensor."""

    points_to = "void"


class Float32s(Numbers):
    points_to = "float32"


class Int32s(Numbers):
    points_to = "int32"


class Int64s(Numbers):
    points_to = "int64"


def _names(kind: Any, names: str) -> dict[str, Any]:
    return dict.fromkeys(names.split(), kind)


# What each function returns and takes, in the order of its parameters. They are called with these names.
FUNCTIONS: dict[str, tuple[Any, dict[str, Any]]] = {
    "particle_attention": (
        None,
        {"shape": ctypes.POINTER(AttentionShape), "dtype": Index}
        | _names(Numbers, "query key value cache")
        | _names(Int32s, "block_table lengths")
        | _names(Int64s, "key_order value_order")
        | {"scale": ctypes.c_float, "window": Index, "soft_cap": ctypes.c_float}
        | {"output": Numbers, "threads": ctypes.c_int32},
    ),
    "draw_noise": (
        None,
        _names(Int64s, "seeds positions sites")
        | _names(Index, "layers noisy_samples requests projections width")
        | {"z": Float32s, "threads": ctypes.c_int32},
    ),
    "add_right_noise": (
        None,
        {"shape": ctypes.POINTER(NoiseShape), "dtype": Index}
        | _names(Numbers, "x basis")
        | {"z": Float32s, "rank": Index, "sigma": ctypes.c_float, "qkv": Numbers, "threads": ctypes.c_int32},
    ),
    "add_left_noise": (
        None,
        {"shape": ctypes.POINTER(NoiseShape), "dtype": Index, "scale": Float32s}
        | _names(Int64s, "seeds positions sites")
        | {"qkv": Numbers, "threads": ctypes.c_int32},
    ),
    "token_uncertainties": (
        None,
        {"dtype": Index, "logits": Numbers}
        | _names(Index, "sample_stride token_stride num_samples tokens size")
        | {"token_ids": Int64s, "out": Float32s, "threads": ctypes.c_int32},
    ),
}


@functools.cache
def library() -> Any:
    """The functions of FUNCTIONS, to be called with named arguments; None where no compiler can make them.

    The reason for None is said once, in the log. LibraryMismatch if the library is not what the tables say.
    """
    try:
        return _load_or_rebuild(build())
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or str(error)
        logger.warning("TFB models decode slower: the CPU kernels cannot be compiled (%s)", detail.strip()[-300:])
        return None


def _load_or_rebuild(path: Path) -> SimpleNamespace:
    """`load`, after compiling again if the file is damaged: a full disk or a copied cache may have cut it."""
    try:
        return load(path)
    except OSError as error:
        logger.warning("%s cannot be loaded (%s); compiling it again", path, error)
        path.unlink()
        return load(build())


def build() -> Path:
    """Path of the shared library for this processor, compiler and source; compiled if it is not there."""
    compiler = os.environ.get("CXX", "g++")
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    sources = sorted(SOURCES.iterdir())
    flags = [*FLAGS, *NAMES]
    parts = [version, *flags, _processor(), *(path.read_text() for path in sources)]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    target = cache_dir() / f"cpu_kernels_{digest}.so"
    if not target.exists():
        with atomic_path(target) as made:
            command = [compiler, *flags, str(SOURCES / "kernels.cpp"), "-o", str(made)]
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return target


def _processor() -> str:
    """What `-march=native` depends on; a home folder may be shared between machines."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else [platform.processor()]
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def load(path: Path) -> SimpleNamespace:
    """The functions of a compiled library; LibraryMismatch if it does not describe itself as the tables here do."""
    compiled = ctypes.CDLL(str(path))
    try:
        describe = compiled.library_description
    except AttributeError as error:
        raise LibraryMismatch(f"{path} does not describe itself: it has no library_description") from error
    describe.argtypes, describe.restype = (), ctypes.c_char_p
    _compare(dict(line.split(": ", 1) for line in describe().decode().splitlines()), _expected())
    functions = SimpleNamespace()
    for name, (result, parameters) in FUNCTIONS.items():
        prototype = ctypes.CFUNCTYPE(result, *parameters.values())
        setattr(functions, name, prototype((name, compiled), tuple((1, parameter) for parameter in parameters)))
    return functions


def _compare(found: dict[str, str], expected: dict[str, str]) -> None:
    differences = [
        f"{name} is {found.get(name, 'missing')} in {SOURCES.name}/ and {expected.get(name, 'missing')} in {__name__}"
        for name in [*expected, *found.keys() - expected.keys()]
        if found.get(name) != expected.get(name)
    ]
    if differences:
        more = f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""
        raise LibraryMismatch(f"{differences[0]}{more}; make the two agree")


def _expected() -> dict[str, str]:
    """What cpp/describe.h must say, by name: constants, structs with their members, functions."""
    described = {name: str(value) for name, value in CONSTANTS.items()}
    for struct in (AttentionShape, NoiseShape):
        described[struct.__name__] = f"{ctypes.sizeof(struct)} bytes"
        for name, kind, *_ in struct._fields_:
            described[f"{struct.__name__}.{name}"] = f"{_type_name(kind)} at {getattr(struct, name).offset}"
    for name, (result, parameters) in FUNCTIONS.items():
        listed = ", ".join(f"{_type_name(kind)} {parameter}" for parameter, kind in parameters.items())
        described[name] = f"{_type_name(result)}({listed})"
    return described


def _type_name(kind: Any) -> str:
    """As `type_name` in cpp/describe.h."""
    simple = {None: "void", ctypes.c_int64: "int64", ctypes.c_int32: "int32", ctypes.c_float: "float32"}
    if kind in simple:
        return simple[kind]
    if issubclass(kind, Numbers):
        return f"{kind.points_to}*"
    if issubclass(kind, ctypes.Array):
        return f"{_type_name(kind._type_)}[{kind._length_}]"
    if issubclass(kind, ctypes._Pointer):
        return f"{_type_name(kind._type_)}*"
    return str(kind.__name__)
