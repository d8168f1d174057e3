"""What of a frozen description is gone or changed in a new one. Additions are fine.

A description is JSON. Dictionaries and lists may grow; everything else must stay as it was. A list under REQUIRED
is the exception: it may only shrink, because a caller must not be asked for more than before.
"""

from collections.abc import Iterator
from typing import Any

REQUIRED = "required"  # names that a caller must give


def losses(frozen: Any, found: Any, where: str = "") -> Iterator[str]:
    """One sentence for each difference that somebody outside would notice; `where` is the path to it."""
    if isinstance(frozen, dict) and isinstance(found, dict):
        for key, value in frozen.items():
            place = f"{where}: {key}" if where else key
            if key == REQUIRED:
                yield from (f"{where}: now needs {name}" for name in found.get(key, []) if name not in value)
            elif key in found:
                yield from losses(value, found[key], place)
            else:
                yield f"{place}: is gone"
    elif isinstance(frozen, list) and isinstance(found, list):
        yield from (f"{where}: {item} is gone" for item in frozen if item not in found)
    elif frozen != found:
        yield f"{where}: was {frozen}, is {found}"
