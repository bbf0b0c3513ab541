"""A submitted job, as a client holds it: its instance and its id. Decides nothing; every call is the instance's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from ..journal.ids import f58, parse_id

if TYPE_CHECKING:
    from ..journal.wire import Event
    from .client import Instance
    from .follow import JobResult
    from .resize_client import Resizing

JobIds: TypeAlias = "Iterable[int | str | JobHandle] | int | str | JobHandle"


class JobHandle(NamedTuple):
    """A submitted job.

        import fluxkv

        with fluxkv.connect() as instance:
            job = instance.submit("echo hello; exit 3", duration="10s")
            print(job, job.wait(timeout=60).returncode, job.output()[0].decode())
            print([event.name for event in job.events()])

    `int(handle)` is its id, `str(handle)` its F58 text.
    """

    instance: Instance
    id: int

    def wait(self, timeout: float | None = None) -> JobResult:
        """Its result. timeout: seconds; raises `Unavailable(code="timeout")`."""
        return self.instance.wait([self.id], timeout)[0]

    async def wait_async(self, timeout: float | None = None) -> JobResult:
        """As `wait`, in an event loop: any number of jobs awaited there share one subscription."""
        from . import aio

        return await aio.wait(self.instance, self.id, timeout)

    def output(self) -> tuple[bytes, bytes]:
        """What it has put out so far on standard output and standard error, where that went to no file of the user's."""
        from io import BytesIO

        from .output import OutputWriter, read_output

        out, err = BytesIO(), BytesIO()
        writer = OutputWriter(out, err)
        read_output(self.instance.store, self.id, writer)
        writer.flush()
        return out.getvalue(), err.getvalue()

    def cancel(self, note: str = "") -> bool:
        """Cancel it; False if it had ended, or was ending, already."""
        return bool(self.instance.cancel([self.id], note))

    def resize(self, change: str, **terms: Any) -> Resizing:
        """Give it more nodes, or take some back: "+2N", "-1N", "=4N". terms: as `Instance.resize` has them."""
        return self.instance.resize(change, self.id, **terms)

    def events(self, *, follow: bool = False) -> Iterator[Event]:
        """Its events; with follow, as they come, until it ends."""
        return self.instance.events(self.id, follow=follow)

    def __int__(self) -> int:
        return self.id

    def __index__(self) -> int:
        return self.id

    def __str__(self) -> str:
        return f58(self.id)


def id_of(job: int | str | JobHandle) -> int:
    """A job's id."""
    return job.id if isinstance(job, JobHandle) else parse_id(job)


def ids_of(jobs: JobIds) -> list[int]:
    """One job or many; a handle is a tuple, and so would pass for several."""
    if isinstance(jobs, int | str | JobHandle):
        return [id_of(jobs)]
    return [id_of(one) for one in jobs]
