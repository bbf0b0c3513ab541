"""`fluxkv.Executor`: Python functions and commands as jobs, as `concurrent.futures` has it.

Decides what a caller sees: options, futures, the end. The thread that submits and follows is `executor_thread`; what a
function's job is made of, `calls`. May be shared between threads; not carried across a fork.
"""

from __future__ import annotations

import os
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor as BaseExecutor
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from ..kvs.errors import Rejected
from . import pyjob
from .calls import MARK, Call, Results, dump_call, dump_chunk, main_script, root_of, search_path
from .executor_thread import Core, Work
from .futures import JobFuture
from .submission import Command, Environment, Jobspec, build_jobspec, prepare
from .submit_keys import check_key

if TYPE_CHECKING:
    from .handle import JobHandle
    from .resize_client import Resizing

PATIENCE_S = 300.0


class Template:
    """The jobspec that all functions with the same options share, and how a call becomes one."""

    def __init__(self, python: str, options: dict[str, Any]) -> None:
        for name in ("ntasks", "input"):
            if name in options:
                raise Rejected(f"{name}: a function runs as one task without input", code="bad-option")
        if (options.get("nodes") or 1) != 1:
            raise Rejected("nodes: a function runs as one task on one node", code="bad-option")
        self._named = "name" in options
        self._model = build_jobspec([python, "-P", pyjob.__file__], **options)
        attributes = self._model["attributes"]
        self._system, self._user = attributes["system"], attributes.get("user") or {}
        self._own = self._system.get("environment") or {}

    def fill(self, call: Call, variables: Mapping[str, str], mark: Mapping[str, str]) -> dict[str, Any]:
        """A jobspec for one call."""
        system = {**self._system, "environment": {**self._own, **variables}}
        if not self._named:
            system["job"] = {**(system.get("job") or {}), "name": call.name}
        attributes = {**self._model["attributes"], "system": system, "user": {**self._user, MARK: dict(mark)}}
        return {**self._model, "attributes": attributes}


class Executor(BaseExecutor):
    """Runs Python functions and commands as jobs of an instance; a `concurrent.futures.Executor`.

        with fluxkv.Executor(cores_per_task=2, duration="10m") as executor:
            future = executor.submit(pow, 2, 10)
            print(future.result(), future.jobid())

    uri: the instance (default: as `fluxkv.connect`). env: the jobs' environment (default: this process's). python: the
    interpreter that runs functions. results: the folder of functions' results (default: in the instance's state directory,
    which must be on this host; only you may be able to write to it). keep_results: leave them there for a week, for who
    attaches later; else each is removed once it has been read.
    patience_s: how long a server that is away is waited for before futures fail with `Unavailable`. urgency, flags, options:
    of each job, as in `Instance.submit`.

    One thread submits in few commits and follows the journal for all futures. Futures complete although every daemon, the
    server too, is killed and started again meanwhile. Jobs outlive this object and this process: `attach(id)` gives a future
    for any job anywhere. Without `shutdown` or `with`, the interpreter's end waits for what is pending, as the standard
    library's executors have it. May be shared between threads; after a fork the child makes its own.
    """

    def __init__(
        self,
        uri: str | None = None,
        *,
        env: Environment | None = None,
        python: str = sys.executable,
        results: str | os.PathLike[str] | None = None,
        keep_results: bool = True,
        patience_s: float = PATIENCE_S,
        urgency: int = 16,
        flags: int = 0,
        **options: Any,
    ) -> None:
        from .paths import find_uri

        self.uri = find_uri(uri)
        self._results = os.fspath(results) if results is not None else None
        self._python = python
        self._env: Environment = dict(os.environ if env is None else env)
        self._options = options
        self._order = (urgency, flags)
        self._template: Template | None = None
        self._model: dict[str, Any] | None = None
        self._call_env: Environment | None = None
        self._parent: Executor | None = None
        self._core = Core(self.uri, patience_s, keep_results)
        self._finalizer = weakref.finalize(self, self._core.close)
        self._finalizer.atexit = False

    def with_options(
        self, *, env: Environment | None = None, urgency: int | None = None, flags: int | None = None, **options: Any
    ) -> Executor:
        """The same executor (thread, shutdown) whose jobs have these options beyond, or instead of, its own."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._options = {**self._options, **options}
        other._env = self._env if env is None else dict(env)
        other._order = (self._order[0] if urgency is None else urgency, self._order[1] if flags is None else flags)
        other._template = other._call_env = other._model = None
        other._parent = self  # the thread ends when nobody holds the first one any more
        return other

    # -- submitting

    def submit(self, function: Callable[..., Any] | Jobspec, /, *args: Any, **kwargs: Any) -> JobFuture:
        """Call `function(*args, **kwargs)` in a job of its own; its future.

        The call is pickled now: by cloudpickle where that is installed and plain pickle will not do. Raises
        `Rejected(code="not-picklable")`, and RuntimeError after `shutdown`. A jobspec in the place of a function is
        submitted as it is, as Flux's executor does: see `submit_command`.
        """
        if isinstance(function, Mapping):
            return self.submit_command(function, *args, **kwargs)
        return self._submit(dump_call(function, args, kwargs))

    def submit_once(self, key: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> JobFuture:
        """As `submit`, but a job that has this key already is the one, ended or not: so a program that is started again repeats
        nothing.

        Arguments are not compared, so put what tells calls apart into the key; one that was given to another function, or one with
        other options, gives a future that raises `Rejected(code="key-taken")`. Its value is kept for a week
        (see `keep_results`); an older one raises `JobException`.
        """
        return self._submit(dump_call(function, args, kwargs), check_key(key))

    def submit_command(self, command: Command | Jobspec, **options: Any) -> JobFuture:
        """Run a command (a list of words, or one text for the shell) or a jobspec as a job; a future of its exit code.

        options: as in `Instance.submit`, beyond the executor's own; key: see `submit_once`.
        """
        key = options.pop("key", "")
        if key:
            check_key(key)
        if not options and not isinstance(command, Mapping):
            return self._put(JobFuture(self._core), self._command(command), self._env, self._order, key)
        env = options.pop("env", None)
        urgency, flags = options.pop("urgency", self._order[0]), options.pop("flags", self._order[1])
        every = options if isinstance(command, Mapping) else {**self._options, **options}
        jobspec, environment = prepare(command, every, self._env if env is None else dict(env))
        return self._put(JobFuture(self._core), jobspec, environment, (urgency, flags), key)

    def _command(self, command: Command) -> dict[str, Any]:
        """A jobspec with the executor's own options: built and checked once, then only its command differs."""
        if self._model is None:
            self._model = build_jobspec(["true"], **self._options)
        words = ["/bin/sh", "-c", command] if isinstance(command, str) else [os.fspath(word) for word in command]
        if not words or not all(type(word) is str for word in words):
            return build_jobspec(words, **self._options)  # which says what is wrong
        return {**self._model, "tasks": [{**self._model["tasks"][0], "command": words}]}

    def map(
        self,
        function: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[Any]:
        """As `Executor.map`: values in the order of the arguments.

        chunksize: how many calls share a job, and so the start of an interpreter: what makes short functions worth it.
        timeout: seconds from now; `TimeoutError` from the iterator after it. Futures not done are cancelled when the
        iterator is closed.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1")
        deadline = None if timeout is None else time.monotonic() + timeout
        arguments = zip(*iterables, strict=False)
        if chunksize == 1:
            return _values([self._submit(dump_call(function, items, {})) for items in arguments], deadline)
        chunks = iter(lambda: list(islice(arguments, chunksize)), [])
        futures = [self._submit(dump_chunk(function, chunk)) for chunk in chunks]
        return chain.from_iterable(_values(futures, deadline))

    def attach(self, id: int | str | JobHandle) -> JobFuture:
        """A future for a job that is there already, submitted here or by any other process; a function's gives its value.

        An unknown id gives a future that raises `Rejected(code="no-such-job")`.
        """
        from ..journal.ids import parse_id

        future = JobFuture(self._core)
        future.submitted(parse_id(id) if isinstance(id, int | str) else id.id)
        self._core.attach(future)
        return future

    def resize(self, change: str, job: JobFuture | int | str | None = None, **terms: Any) -> Resizing:
        """Have the instance that runs the jobs ask the one around it for more nodes, or give some back: "+2N", "-1N", "=4N"; or do
        that to one of its jobs. terms: as `Instance.resize`; of any thread.
        """
        from .client import connect

        with connect(self.uri) as instance:
            found = instance.resize(change, job.jobid() if isinstance(job, JobFuture) else job, **terms)
        found.lets_go = True
        return found

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more; with `wait`, until all futures are done. cancel_futures: cancel those that do not run yet."""
        self._core.close(cancel=cancel_futures)
        if wait:
            self._core.join()

    def __reduce__(self) -> Any:
        raise TypeError("an Executor has a thread: make one in the other process, on the same uri")

    def _submit(self, call: Call, key: str = "") -> JobFuture:
        if self._template is None:
            self._call_env = {**self._env, pyjob.PATHS: search_path(self._python), pyjob.MAIN: main_script() or None}
            # Last, since other threads look at it.
            self._template = Template(self._python, {"cwd": os.getcwd(), **self._options})
        core = self._core
        if core.results is None:
            core.results = Results(root_of(self.uri) if self._results is None else self._results)
        variables, mark = core.results.payload(call, sync=core.strict)
        future = JobFuture(core)
        future.folder, future.call_file = mark["results"], mark["call"]
        assert self._call_env is not None
        return self._put(future, self._template.fill(call, variables, mark), self._call_env, self._order, key)

    def _put(
        self, future: JobFuture, jobspec: dict[str, Any], env: Environment, order: tuple[int, int], key: str
    ) -> JobFuture:
        urgency, flags = order
        if type(urgency) is not int or not 0 <= urgency <= 31:
            raise Rejected(f"urgency {urgency!r} is not in 0..31", code="bad-urgency")
        self._core.put(Work(future, jobspec, env, urgency, flags, key))
        return future


def _values(futures: list[JobFuture], deadline: float | None) -> Iterator[Any]:
    """Values in order; what is left is cancelled when nobody wants it any more."""

    try:
        futures.reverse()
        while futures:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            yield futures[-1].result(left)
            futures.pop()
    finally:
        for future in futures:
            future.cancel()
