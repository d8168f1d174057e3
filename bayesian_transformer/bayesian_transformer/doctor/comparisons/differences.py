"""How far results are from what they should be."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..finding import Finding, error, ok
from ..protocol import doing


@dataclass
class Differences:
    """The comparisons of one check. All of them are made, so that the report names every one that fails."""

    shares: dict[str, float] = field(default_factory=dict)  # by name: largest difference as a share of its tolerance
    largest: float = 0.0  # of all, in the unit of the numbers
    wrong: list[str] = field(default_factory=list)  # one line for each comparison that failed

    def compare(self, name: str, got: Tensor, wanted: Tensor, atol: float, rtol: float = 0.0) -> None:
        """Compare tensors of one shape: |got - wanted| <= atol + rtol * |wanted|; NaN and infinities must be alike."""
        got, wanted = got.detach().double().cpu(), wanted.detach().double().cpu()
        if got.shape != wanted.shape:
            self.wrong.append(f"{name}: shape {[*got.shape]} instead of {[*wanted.shape]}")
            return
        same = (got == wanted) | (got.isnan() & wanted.isnan())
        difference = (got - wanted).abs().masked_fill(same, 0.0)
        share = (difference / (atol + rtol * wanted.abs())).masked_fill(same, 0.0).nan_to_num(torch.inf, torch.inf)
        finite = difference[difference.isfinite()]
        self.largest = max(self.largest, finite.max().item() if finite.numel() else 0.0)
        largest = share.max().item() if share.numel() else 0.0
        self.shares[name] = max(largest, self.shares.get(name, 0.0))
        if largest > 1.0:
            place = tuple(int(index) for index in torch.unravel_index(share.argmax(), share.shape))
            self.wrong.append(f"{name}: {got[place].item():.6g} instead of {wanted[place].item():.6g}")

    def finding(self, what: str, unit: str = "") -> Finding:
        """ok if all agree, else an error that names what does not. With a `unit`, how far apart they are in it."""
        details: dict[str, Any] = {
            "shares of the tolerance": {name: round(share, 4) for name, share in self.shares.items()}
        }
        if self.wrong:
            names = list(dict.fromkeys(line.partition(":")[0] for line in self.wrong))
            found = f"wrong: {', '.join(names)}; first {self.wrong[0]}"
            return error(found, **details, wrong=self.wrong[:20])
        apart = f"to {self.largest:.0e} {unit}" if unit else f"to {max(self.shares.values()):.2f} of tolerance"
        return ok(f"{what} agree {apart}", **details, largest=self.largest)


def announce(name: str) -> str:
    """Say that `name` is compared next, so that a crash is put down to it."""
    doing(f"comparing {name}")
    return name
