"""fluxkv: a hierarchical workload manager whose whole state is an append-only journal in Redis.

    import fluxkv

    with fluxkv.connect() as instance:
        job = instance.submit(["hostname"], ntasks=2)
        print(job, job.wait().returncode)

The public API is imported lazily: the start-up time of the command line is a feature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .instances.calls import RemoteError, RemoteTraceback
    from .instances.client import Instance, connect
    from .instances.executor import Executor
    from .instances.follow import JobResult
    from .instances.futures import JobException, JobFuture
    from .instances.handle import JobHandle
    from .instances.kvs_client import Kvs
    from .instances.resize_client import Resizing, Size
    from .instances.views import NodeView, QueueView, Resources
    from .journal.job import Job, JobState, Result
    from .journal.rset import NodeRecord, ResourceSet
    from .journal.state import State
    from .journal.wire import Event
    from .kvs.errors import Conflict, Corrupt, FluxkvError, Rejected, Unavailable

__version__ = "0.1.0"

__all__ = [
    "Conflict",
    "Corrupt",
    "Event",
    "Executor",
    "FluxkvError",
    "Instance",
    "Job",
    "JobException",
    "JobFuture",
    "JobHandle",
    "JobResult",
    "JobState",
    "Kvs",
    "NodeRecord",
    "NodeView",
    "QueueView",
    "Rejected",
    "RemoteError",
    "RemoteTraceback",
    "Resizing",
    "ResourceSet",
    "Resources",
    "Result",
    "Size",
    "State",
    "Unavailable",
    "connect",
]

_HOMES = {
    "instances.calls": ("RemoteError", "RemoteTraceback"),
    "instances.client": ("Instance", "connect"),
    "instances.executor": ("Executor",),
    "instances.follow": ("JobResult",),
    "instances.futures": ("JobException", "JobFuture"),
    "instances.handle": ("JobHandle",),
    "instances.kvs_client": ("Kvs",),
    "instances.resize_client": ("Resizing", "Size"),
    "instances.views": ("NodeView", "QueueView", "Resources"),
    "journal.job": ("Job", "JobState", "Result"),
    "journal.rset": ("NodeRecord", "ResourceSet"),
    "journal.state": ("State",),
    "journal.wire": ("Event",),
    "kvs.errors": ("Conflict", "Corrupt", "FluxkvError", "Rejected", "Unavailable"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            from importlib import import_module

            value = getattr(import_module(f".{home}", __name__), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
