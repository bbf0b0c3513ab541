"""fluxkv: a hierarchical workload manager whose whole state is an append-only journal in Redis.

The public API is imported lazily: the start-up time of the command line is a feature.
"""

from __future__ import annotations

__version__ = "0.1.0"
