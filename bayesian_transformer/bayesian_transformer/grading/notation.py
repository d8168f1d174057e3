r"""Ways to write the same thing, made one: upright e, exp( ), typed Greek, the root of a quotient, unit vectors, dots.

Each rule looks at the notation only and leaves the value as it is. Every pattern runs in time linear in the text.
"""

import re

_GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "zeta": "ζ", "eta": "η", "iota": "ι",
    "kappa": "κ", "lambda": "λ", "mu": "μ", "nu": "ν", "xi": "ξ", "rho": "ρ", "sigma": "σ", "tau": "τ", "phi": "φ",
    "chi": "χ", "psi": "ψ", "omega": "ω", "Gamma": "Γ", "Delta": "Δ", "Lambda": "Λ", "Sigma": "Σ", "Phi": "Φ",
    "Psi": "Ψ", "Omega": "Ω",
}  # fmt: skip
_LETTERS = str.maketrans({letter: rf"\{name} " for name, letter in _GREEK.items()})
# Shorter names could be a product: nu, mu, xi. Next to other words they could be words themselves.
_TYPED_NAMES = (
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "kappa", "lambda", "sigma", "omega", "rho", "tau", "phi",
    "psi",
)  # fmt: skip
_TYPED = re.compile(rf"(?<![A-Za-z\\])({'|'.join(_TYPED_NAMES)})(?![A-Za-z])")
_WORD = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{3,}")
_FORMULA_WORDS = {*_TYPED_NAMES, "theta", "sqrt", "sin", "cos", "tan", "log", "exp"}
_BRACED = r"\{(?:[^{}]|\{[^{}]*\})*\}"
_UNIT_VECTOR = r"\\(?:hat|vec|mathbf|bm|boldsymbol|bf)\s*(?:\{\s*\\?([ijk])(?:math)?\s*\}|\\([ij])math(?![a-z]))"
_RULES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\{\s*:\s*\}", ":"),
        (r"\\(?:mathrm|operatorname|text|textrm|rm)\s*\{\s*e\s*\}|\{\s*\\rm\s+e\s*\}", "{e}"),
        (r"\\(?:operatorname|mathrm|text)\s*\{\s*(exp|ln)\s*\}", r"\\\1 "),
        (r"(?<![A-Za-z\\])(exp|ln)(?=\s*(?:\\left\s*)?[(\[{])", r"\\\1"),
        (rf"\\sqrt\s*(\\[dtc]?frac\s*{_BRACED}\s*{_BRACED})", r"\\sqrt{\1}"),
        (r"\\sqrt\s*(\\[dtc]?frac\s*[0-9]\s*[0-9])", r"\\sqrt{\1}"),
        *2 * ((_UNIT_VECTOR, r"\1\2"),),  # \mathbf{\hat{i}} has two
    )
]
_DOTS = re.compile(r"(?<![0-9.])([0-9]*\.[0-9]{2,60})\s*(?:\\(?:ldots|dots|cdots)(?![a-z])|\.{2,}|…)")
_CYCLE = re.compile(r"([0-9]*\.[0-9]*?)(?:([0-9])\2{2,}|([0-9]{2,12})\3+)")


def unified(text: str) -> str:
    """`text` in one notation."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    text = _DOTS.sub(_repeating, text.translate(_LETTERS))
    others = set(_WORD.findall(text)) - _FORMULA_WORDS
    return text if others or "\\text" in text or text.strip().isalpha() else _TYPED.sub(r"\\\1 ", text)


def _repeating(match: re.Match[str]) -> str:
    r"""0.333\ldots as 0.\overline{3}, if the digits end with one three times or with a group twice."""
    cycle = _CYCLE.fullmatch(match[1])
    if cycle is None or set(cycle[2] or cycle[3]) == {"0"}:
        return match[1]
    return rf"{cycle[1]}\overline{{{cycle[2] or cycle[3]}}}"
