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
