"""The border to C++: whatever differs between the sources and Python's tables ends in an error that names it."""

import ctypes
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("vllm")
from bayesian_transformer.quantities import FIELDS
from bayesian_transformer.vllm_plugin import kernels
from bayesian_transformer.vllm_plugin.kernels import cpp, cpp_library
from bayesian_transformer.vllm_plugin.kernels.cpp_library import FUNCTIONS, LibraryMismatch

PACKAGE = "bayesian_transformer.vllm_plugin.kernels.cpp_library"


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the C++ sources that is built in place of them, without optimisation."""
    copy = tmp_path / "cpp"
    shutil.copytree(cpp_library.SOURCES, copy)
    quick = [flag for flag in cpp_library.FLAGS if flag not in ("-O3", "-march=native")]
    monkeypatch.setattr(cpp_library, "SOURCES", copy)
    monkeypatch.setattr(cpp_library, "FLAGS", [*quick, "-Wno-psabi"])
    monkeypatch.setenv("TOKUR_CACHE", str(tmp_path / "cache"))
    cpp_library.library.cache_clear()
    yield copy
    cpp_library.library.cache_clear()


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


SOURCE_CHANGES = [
    # file, what stood there, what stands there now, what is said
    (
        "kernels.cpp",
        "int64_t noisy_samples, int64_t requests,",
        "int64_t requests, int64_t noisy_samples,",
        r"draw_noise is void\(.*requests, int64 noisy_samples, .*\) in cpp/ and void\(.*noisy_samples, int64 requests",
    ),
    ("kernels.cpp", "const int32_t* lengths", "const int64_t* lengths", r"particle_attention is .*int64\* lengths"),
    ("kernels.cpp", "int64_t rank, float sigma", "int64_t rank, double sigma", "add_right_noise is .*float64 sigma"),
    (
        "kernels.cpp",
        "FUNCTION(token_uncertainties, ",
        "FUNCTION(statistics, ",
        "token_uncertainties is missing in cpp/",
    ),
    ("noise.h", "int64_t x_stride, qkv_stride;", "int64_t qkv_stride, x_stride;", "NoiseShape.x_stride is int64 at 40"),
    (
        "attention.h",
        "int64_t block_stride;",
        "int64_t block_stride, added;",
        "AttentionShape is 120 bytes in cpp/ and 112",
    ),
    ("common.h", "constexpr int LANES = 16;", "constexpr int LANES = 8;", "LANES is 8 in cpp/ and 16 in"),
    ("describe.h", "library_description", "described", "has no library_description"),
]


@pytest.mark.parametrize(("file", "old", "new", "said"), SOURCE_CHANGES, ids=[case[3][:25] for case in SOURCE_CHANGES])
def test_a_change_in_the_sources_is_named(sources: Path, file: str, old: str, new: str, said: str) -> None:
    """And it does not make the plain formulas step in without a word."""
    replace(sources / file, old, new)
    with pytest.raises(LibraryMismatch, match=said) as caught:
        kernels.noise_functions(torch.zeros(1))
    assert "\n" not in str(caught.value)


def test_an_unchanged_copy_is_loaded_and_computes(sources: Path) -> None:
    """What the tests above change is therefore what is refused."""
    noise, expected = torch.full((2, 1, 2, 2, 5), torch.nan)
    ids = torch.tensor([3, 4])
    sites = torch.tensor([[0, 1]])
    kernels.plain.draw_noise(expected, ids, ids, sites)
    assert kernels.noise_functions(noise) is cpp
    cpp.draw_noise(noise, ids, ids, sites)
    torch.testing.assert_close(noise, expected, rtol=0, atol=1e-6)
    assert len(list((sources.parent / "cache").glob("cpu_kernels_*.so"))) == 1


def test_a_quantity_that_moves_moves_in_the_library(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The columns of C++ are made from FIELDS: with them turned round, so is the table."""
    monkeypatch.setattr(cpp_library, "NAMES", [f"-DQUANTITIES={','.join(reversed(FIELDS))}", *cpp_library.NAMES[1:]])
    logits, token_ids = torch.randn(3, 2, 40), torch.tensor([0, 39])
    turned = torch.stack(list(vars(cpp.token_uncertainty(logits, token_ids)).values()), dim=-1)
    expected = kernels.uncertainty.token_uncertainty(logits, token_ids).stack()
    torch.testing.assert_close(turned.flip(-1), expected, rtol=1e-5, atol=1e-5)


def fresh_load() -> Any:
    return cpp_library.load(cpp_library.build())


def test_a_change_in_the_tables_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    result, parameters = FUNCTIONS["add_left_noise"]
    without = {name: kind for name, kind in parameters.items() if name != "sites"}
    with monkeypatch.context() as patch:
        patch.setitem(FUNCTIONS, "add_left_noise", (result, without))
        with pytest.raises(LibraryMismatch, match=r"^add_left_noise is void\(.* sites, .*; make the two agree$"):
            fresh_load()
    with monkeypatch.context() as patch:
        patch.delitem(FUNCTIONS, "draw_noise")
        with pytest.raises(LibraryMismatch, match=f"^draw_noise is void.* and missing in {PACKAGE}"):
            fresh_load()
    with monkeypatch.context() as patch:
        patch.setitem(FUNCTIONS, "more", (None, {}))
        patch.setitem(cpp_library.CONSTANTS, "TOP_K", 21)
        with pytest.raises(LibraryMismatch, match=r"^TOP_K is 20 in cpp/ and 21 in .* \(and 1 more\); make"):
            fresh_load()
    assert set(vars(fresh_load())) == set(FUNCTIONS)


def test_arguments_are_named_and_typed() -> None:
    functions = fresh_load()
    ids, z = torch.zeros(2, dtype=torch.int64), torch.full((1, 2, 2, 3), torch.nan)
    sizes = {"layers": 1, "noisy_samples": 1, "requests": 2, "projections": 2, "width": 3, "threads": 1}
    addresses = dict.fromkeys(("seeds", "positions", "sites"), ids.data_ptr()) | {"z": z.data_ptr()}
    functions.draw_noise(**addresses, **sizes)
    assert z.isfinite().all()
    with pytest.raises(TypeError, match="'z'"):
        functions.draw_noise(**{name: place for name, place in addresses.items() if name != "z"}, **sizes)
    with pytest.raises(TypeError):
        functions.draw_noise(**addresses, **sizes, sigma=1)
    for wrong in ({"width": 3.0}, {"z": z}, {"seeds": 0.5}):
        with pytest.raises(ctypes.ArgumentError):
            functions.draw_noise(**addresses | sizes | wrong)


def test_where_there_is_no_library_a_call_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpp, "library", lambda: None)
    ids, sites = torch.zeros(2, dtype=torch.int64), torch.zeros(1, 2, dtype=torch.int64)
    with pytest.raises(RuntimeError, match=r"no C\+\+ kernels on this machine.*use the plain formulas"):
        cpp.draw_noise(torch.zeros(1, 2, 2, 3), ids, ids, sites)


def test_a_damaged_library_in_the_cache_is_compiled_again(sources: Path) -> None:
    path = cpp_library.build()
    path.write_bytes(path.read_bytes()[:100])
    assert cpp_library.library() is not None
    assert len(path.read_bytes()) > 100
