"""How a faulty value is quoted in an error: short, on one line, and safe whatever was sent."""

from __future__ import annotations


def shown(value: object, limit: int = 60) -> str:
    """`repr` of a text or a small number, cut to `limit`; of anything else its type.

    The `repr` of a deeply nested list or of a huge integer raises, so these are never asked for one.
    """
    if isinstance(value, (str, bytes)):
        text = repr(value[:limit])
        return text if len(value) <= limit else text + "..."
    if isinstance(value, int) and value.bit_length() >= 128:
        return "(a huge integer)"
    if value is None or isinstance(value, (int, float)):
        return repr(value)
    return f"({type(value).__name__})"


#: What has no "s" when there are several: what is measured, units, and words that end badly.
_UNCOUNTABLE = ("memory", "power", "bandwidth", "storage", "s", "y", "x", "h", "B", "W")


def counted(n: int, noun: str) -> str:
    """ "1 core", "2 cores", "512 MB", "8 power"."""
    return f"{n:,} {noun}{'' if n == 1 or noun.endswith(_UNCOUNTABLE) else 's'}"
