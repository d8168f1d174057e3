"""The counter-based noise: known answers of the block cipher, independence of shape, and the distribution."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from bayesian_transformer.noise import noise_key, philox4x32, site_index, standard_normal
from bayesian_transformer.noise_config import QKV

INT64 = st.integers(-(2**63), 2**63 - 1)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers_of_random123(
    counter: Sequence[int], key: Sequence[int], expected: Sequence[int]
) -> None:
    k0, k1 = (torch.tensor(word) for word in key)
    words = philox4x32(four_tensors(*counter), (k0, k1))
    assert tuple(word.item() for word in words) == expected


def four_tensors(a: int, b: int, c: int, d: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.tensor(a), torch.tensor(b), torch.tensor(c), torch.tensor(d)


def plain_philox(counter: list[int], key: list[int]) -> list[int]:
    """The cipher in Python integers."""
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k0, p1 % 2**32, (p0 >> 32) ^ c[3] ^ k1, p0 % 2**32]
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c


@given(seed=INT64, position=st.integers(0, 2**31), site=st.integers(0, 300), sample=st.integers(1, 64))
def test_normals_are_the_box_muller_transform_of_plain_integers(
    seed: int, position: int, site: int, sample: int
) -> None:
    z = standard_normal(*four_tensors(seed, position, site, sample), width=10)
    expected = []
    for block in range(3):
        words = plain_philox([block, position, site, sample], [seed % 2**32, (seed >> 32) % 2**32])
        for a, b in (words[:2], words[2:]):
            radius = np.sqrt(-2 * np.log(((a >> 8) + 1) / 2**24))
            angle = 2 * np.pi * (b >> 8) / 2**24
            expected += [radius * np.cos(angle), radius * np.sin(angle)]
    np.testing.assert_allclose(z.numpy(), np.array(expected[:10]), rtol=0, atol=3e-6)


@given(seed=INT64, width=st.integers(1, 40), block=st.integers(0, 5))
def test_a_slice_equals_the_whole(seed: int, width: int, block: int) -> None:
    arguments = four_tensors(seed, 7, 3, 1)
    whole = standard_normal(*arguments, width=4 * block + width)
    assert torch.equal(standard_normal(*arguments, width=width, start=4 * block), whole[4 * block :])


def test_each_element_depends_on_its_own_counter_only() -> None:
    seeds, positions = torch.tensor([5, -3, 2**62]), torch.tensor([0, 9, 100000])
    batch = standard_normal(seeds[:, None], positions[:, None], torch.arange(6), torch.tensor(2), 8)
    for row, (seed, position) in enumerate(zip(seeds, positions, strict=True)):
        for site in range(6):
            alone = standard_normal(seed, position, torch.tensor(site), torch.tensor(2), 8)
            assert torch.equal(batch[row, site], alone)


def test_noise_is_standard_normal_and_uncorrelated_between_counters() -> None:
    axes = torch.arange(20)[:, None, None, None], torch.arange(25)[:, None, None], torch.arange(10)[:, None]
    z = standard_normal(*axes, torch.arange(1, 6), 8).double()  # 200,000 values
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-3
    for axis in range(z.dim()):
        rows = z.movedim(axis, 0).flatten(1)
        correlation = torch.corrcoef(rows) - torch.eye(len(rows))
        assert correlation.abs().max() < 6 / rows.shape[1] ** 0.5


def test_start_must_be_a_whole_block() -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        standard_normal(*four_tensors(0, 0, 0, 0), width=4, start=2)


@given(st.integers(-(2**70), 2**70))
def test_noise_key_keeps_the_low_64_bits(seed: int) -> None:
    key = noise_key(seed)
    assert -(2**63) <= key < 2**63
    assert (key - seed) % 2**64 == 0


def test_sites_are_distinct_and_keep_their_numbers() -> None:
    sites = [site_index(layer, projection) for layer in range(80) for projection in QKV]
    assert len(set(sites)) == len(sites)
    assert sites[:6] == [0, 1_073_741_824, 1, 2, 1_073_741_825, 3]
    assert max(sites) < 2**32
