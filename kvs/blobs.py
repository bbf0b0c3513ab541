"""Content-addressed bytes: a blob's name is the hash of what it holds. Decides names; never stores."""

from __future__ import annotations

from .errors import Corrupt
from .hashes import blake2b

NAME_LENGTH = 40


def blob_name(data: bytes) -> str:
    """The name of these bytes: 40 hex digits, blake2b of 160 bits."""
    return blake2b(data, digest_size=20).hexdigest()


def is_blob_name(text: str) -> bool:
    """Whether this could be a blob's name."""
    return len(text) == NAME_LENGTH and all(digit in "0123456789abcdef" for digit in text)


def checked_blob(name: str, data: bytes) -> bytes:
    """Return `data` if it is what `name` promises, else raise `Corrupt`."""
    if blob_name(data) != name:
        raise Corrupt(f"blob {name} does not hold what its name promises", code="bad-blob")
    return data


def payload_hash(payload: bytes) -> bytes:
    """The checksum of a journal entry's payload, 16 bytes, as its header carries it."""
    return blake2b(payload, digest_size=16).digest()
