"""The two hash functions that everybody needs. Decides nothing.

CPython has both in small modules of its own; `hashlib` would load OpenSSL first, which takes a command 4 ms.
"""

from __future__ import annotations

try:
    from _blake2 import blake2b as blake2b
    from _sha1 import sha1 as sha1  # type: ignore[import-not-found]
except ImportError:  # a Python that was built without them
    from hashlib import blake2b as blake2b
    from hashlib import sha1 as sha1
