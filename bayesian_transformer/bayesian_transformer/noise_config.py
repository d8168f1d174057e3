"""The noise settings of a TFB model, validated. Importing this module imports neither torch nor transformers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

DEFAULT_RANK = 8
MOST_SAMPLES = 1 << 16
NOISE_KINDS = ("right", "left")  # directions of low-rank noise, see layers.py
QKV = ("q_proj", "k_proj", "v_proj")  # the projections that can carry noise, in the order in which models hold them
PROJECTIONS = ("q_proj", "v_proj")  # those that carry it by default


@dataclass(frozen=True)
class NoiseConfig:
    """The noise keys of a TFB model config, validated; absent keys take the published defaults."""

    bayes_sigma: float = 0.1  # scale of the Gaussian noise, >= 0
    bayes_noise: str = "right"  # direction of the low-rank noise, see layers.py
    basis_idx: tuple[int, ...] = tuple(range(DEFAULT_RANK))  # which singular directions, by descending singular value
    num_samples: int = 10  # weight samples per token, the noise-free one included
    sample: bool = True  # False runs the noise-free model only
    use_tfb_for_generation: bool = (
        False  # sample tokens from the mean of all weight samples, not from the noise-free one
    )
    bayes_projections: tuple[str, ...] = PROJECTIONS  # those that carry noise, in the order of QKV
    kinds: ClassVar[tuple[str, ...]] = NOISE_KINDS

    @classmethod
    def from_model_config(cls, config: Any) -> "NoiseConfig":
        """Read the keys from a transformers config (or anything with these attributes); ValueError names a bad key."""
        noise = cls(**{name: getattr(config, name, default) for name, default in _defaults().items()})
        noise._validate()
        return replace(
            noise,
            bayes_sigma=float(noise.bayes_sigma),
            basis_idx=tuple(noise.basis_idx),
            bayes_projections=tuple(name for name in QKV if name in noise.bayes_projections),
        )

    def replaced(self, **changes: Any) -> "NoiseConfig":
        """A validated copy with some keys changed."""
        return self.from_model_config(replace(self, **changes))

    @property
    def effective_samples(self) -> int:
        """Weight samples that are computed: 1 when sampling is switched off."""
        return self.num_samples if self.sample else 1

    @property
    def noisy_samples(self) -> int:
        """Those of them that carry noise: S - 1."""
        return self.effective_samples - 1

    @property
    def rank(self) -> int:
        return len(self.basis_idx)

    @property
    def later_settings(self) -> dict[str, Any]:
        """The keys that files name only where they are not the default, because older ones do not know them."""
        projections = [*self.bayes_projections]
        return {} if self.bayes_projections == PROJECTIONS else {"bayes_projections": projections}

    def _validate(self) -> None:
        check_kind(self.bayes_noise, self.kinds)
        sigma, indices = self.bayes_sigma, self.basis_idx
        if not isinstance(sigma, int | float) or isinstance(sigma, bool) or not 0 <= sigma < math.inf:
            raise ValueError(f"bayes_sigma must be a finite number >= 0; got {sigma!r}")
        if not _is_integer(self.num_samples) or self.num_samples < 1:
            raise ValueError(f"num_samples must be an integer >= 1; got {self.num_samples!r}")
        if self.num_samples > MOST_SAMPLES:  # each is a row of a forward: no machine has the memory
            raise ValueError(f"num_samples must be at most {MOST_SAMPLES}; got {self.num_samples!r}")
        if not isinstance(indices, list | tuple) or not indices or any(not _is_integer(i) or i < 0 for i in indices):
            raise ValueError(f"basis_idx must list integers >= 0, at least one; got {indices!r}")
        if len(set(indices)) != len(indices):
            raise ValueError(f"basis_idx must not repeat an index; got {list(indices)!r}")
        check_projections(self.bayes_projections)
        for key in ("sample", "use_tfb_for_generation"):
            if not isinstance(getattr(self, key), bool):
                raise ValueError(f"{key} must be true or false; got {getattr(self, key)!r}")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _defaults() -> dict[str, Any]:
    return {field.name: field.default for field in fields(NoiseConfig)}


def check_kind(kind: str, kinds: Sequence[str] = NOISE_KINDS) -> str:
    """`kind` itself, or ValueError if it is not one of `kinds`."""
    if kind not in kinds:
        raise ValueError(f"bayes_noise must be one of {', '.join(kinds)}; got {kind!r}")
    return kind


def check_projections(projections: Any) -> None:
    """ValueError unless `projections` lists some of QKV, each once, in any order."""
    if not isinstance(projections, list | tuple) or not projections or any(p not in QKV for p in projections):
        raise ValueError(f"bayes_projections must list some of {', '.join(QKV)}; got {projections!r}")
    if len(set(projections)) != len(projections):
        raise ValueError(f"bayes_projections must not repeat a projection; got {list(projections)!r}")
