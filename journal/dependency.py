"""Job dependencies (RFC 26): their text and object forms, and the normal one that a jobspec keeps. Pure.

Decides which schemes there are and what their values may be, as flux-core does. `any(...)` and `all(...)` are ours: in
RFC 26's object form their scheme is `any` or `all`, and their value the alternatives in text form, joined by commas.
Whether a dependency holds, `antecedent` says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from ..kvs.errors import Rejected
from .ids import f58, parse_id
from .jobspec_check import fault
from .shown import shown

# A scheme about another job -> how flux-core describes it in the events dependency-add and -remove.
DESCRIBED = {
    "after": "after-start", "afterstart": "after-start", "afterany": "after-finish", "afterok": "after-success",
    "afternotok": "after-failure", "afterexcept": "after-except",
}  # fmt: skip
JOINED = ("any", "all")
SCHEMES = (*DESCRIBED, "singleton", "begin-time", *JOINED)
MAX_PARTS = 1000  # leaves of one any() or all(): each change looks at all of them
MAX_NESTED = 16


@dataclass(frozen=True, slots=True)
class Dependency:
    """job: id named (0: none). back: another job of the same submission instead of an id, see `resolve`.
    at: of begin-time, Unix seconds. parts: of any and all. extra: further keys of the object, carried through."""

    scheme: str
    job: int = 0
    back: int | None = None
    at: float = 0.0
    parts: tuple[Dependency, ...] = ()
    extra: tuple[tuple[str, Any], ...] = ()

    @property
    def value(self) -> str:
        """The value of its object form."""
        if self.parts:
            return ",".join(part.uri for part in self.parts)
        if self.scheme == "begin-time":
            return f"{self.at:.3f}".rstrip("0").rstrip(".")
        if self.scheme == "singleton":
            return ""
        return f58(self.job) if self.back is None else f"#{self.back}"

    @property
    def uri(self) -> str:
        """Its text form: afterok:ƒ2oLkTLb, any(afterok:ƒ2,after:ƒ3), singleton."""
        if self.parts:
            return f"{self.scheme}({self.value})"
        return f"{self.scheme}:{self.value}" if self.scheme != "singleton" else self.scheme

    @property
    def description(self) -> str:
        """What events call it: flux-core's words (after-success=ƒ2oLkTLb)."""
        if self.parts:
            return f"{self.scheme}({','.join(part.description for part in self.parts)})"
        if self.scheme == "begin-time":
            return f"begin-time={self.at:.3f}"
        if self.scheme == "singleton":
            return self.scheme
        return f"{DESCRIBED[self.scheme]}={self.value}"

    @property
    def object(self) -> dict[str, Any]:
        """Its RFC 26 object."""
        return {"scheme": self.scheme, "value": self.value, **dict(self.extra)}

    def leaves(self) -> Iterator[Dependency]:
        """Itself, or what its parts come down to."""
        if not self.parts:
            yield self
        for part in self.parts:
            yield from part.leaves()


def _bad(what: str, why: str, hint: str = "") -> Rejected:
    return Rejected(f"bad dependency {shown(what)}: {why}", code="bad-dependency", hint=hint)


def nameless() -> Rejected:
    """The error of a singleton without a name."""
    return _bad("singleton", "the job has no name", "--job-name gives it one")


def parse_uri(text: str) -> dict[str, Any]:
    """The RFC 26 object of a command-line form, SCHEME:VALUE[?key=val[&key=val...]]; its scheme is not looked at.

    `any(...)`, `all(...)` and a plain `singleton` are taken too. Raises `Rejected`.
    """
    scheme, opened, inside = text.partition("(")
    if opened and scheme in JOINED:
        if not inside.endswith(")"):
            raise _bad(text, "a closing parenthesis is missing", f"write {scheme}(afterok:ID,afterok:ID)")
        return {"scheme": scheme, "value": inside[:-1]}
    if text == "singleton":
        return {"scheme": text, "value": ""}
    scheme, colon, value = text.partition(":")
    if not colon or not scheme:
        raise _bad(text, "it has no scheme", "write SCHEME:VALUE, e.g. afterok:ƒ2oLkTLb")
    found: dict[str, Any] = {"scheme": scheme}
    found["value"], asks, query = value.partition("?")
    for pair in query.replace(";", "&").split("&") if asks else ():
        key, equals, given = pair.partition("=")
        if not key or not equals or key in ("scheme", "value"):
            raise _bad(text, f"{shown(pair)} is not key=value")
        found[key] = given
    return found


_PATH = "attributes.system.dependencies"


def check_objects(dependencies: Any) -> None:
    """Raise `Rejected` unless this is a list of RFC 26 objects, of whatever scheme."""
    _check_plain(dependencies)
    for at, one in enumerate(dependencies):
        if one["scheme"] == "string":
            if one.get("type") not in ("in", "out", "inout"):
                raise fault(f"{_PATH}[{at}].type", "must be in, out or inout")
            if one.get("scope") not in ("user", "global"):
                raise fault(f"{_PATH}[{at}].scope", "must be user or global")


def _check_plain(dependencies: Any) -> None:
    if not isinstance(dependencies, list | tuple):
        raise fault(_PATH, "must be a list")
    if not dependencies:
        raise fault(_PATH, "is left out when there is none")
    for at, one in enumerate(dependencies):
        if not isinstance(one, Mapping):
            raise fault(f"{_PATH}[{at}]", "must be an object")
        for key in ("scheme", "value"):
            if not isinstance(one.get(key), str):
                raise fault(f"{_PATH}[{at}].{key}", "must be a string")


def read(dependencies: Any, references: bool = False) -> list[Dependency]:
    """Objects as values, each description once. references: values such as #-1 may stand for ids (see `resolve`).

    Raises `Rejected` for a scheme that is not there or a value that cannot be.
    """
    _check_plain(dependencies)
    found: dict[str, Dependency] = {}
    for one in dependencies:
        made = _read(one["scheme"], one["value"], references, 0)
        extra = tuple((key, value) for key, value in one.items() if key not in ("scheme", "value"))
        if extra:
            made = replace(made, extra=extra)
        found.setdefault(made.description, made)
    return list(found.values())


def _read(scheme: str, value: str, references: bool, depth: int) -> Dependency:
    if scheme in DESCRIBED:
        return _about_job(scheme, value, references)
    if scheme == "begin-time":
        return Dependency(scheme, at=_moment(value))
    if scheme == "singleton":
        if value:
            raise _bad(f"singleton:{value}", "singleton takes no value", "write singleton, and name the job")
        if depth:
            raise _bad(scheme, "singleton cannot stand in any() or all()")
        return Dependency(scheme)
    if scheme in JOINED:
        return _joined(scheme, value, references, depth)
    raise _bad(f"{scheme}:{value}", f"no scheme is called {shown(scheme)}", f"there are {', '.join(SCHEMES)}")


def _about_job(scheme: str, value: str, references: bool) -> Dependency:
    if references and value.startswith("#"):
        try:
            return Dependency(scheme, back=int(value[1:]))
        except ValueError:
            raise _bad(f"{scheme}:{value}", "#N names a job of this submission by its number") from None
    if value.startswith("#"):
        raise _bad(f"{scheme}:{value}", "#N names a job of the same submission, and there is none here")
    if "/" in value:
        hint = "name the job that the instance is, or submit it there: fluxkv --instance PATH submit"
        raise _bad(f"{scheme}:{value}", "a job in another instance is nothing to wait for in this one", hint)
    try:
        id = parse_id(value)
    except Rejected as error:
        hint = "repeat --dependency for several, or join them: all(afterok:ID,afterok:ID)" if "," in value else error.hint
        raise _bad(f"{scheme}:{value}", str(error), hint) from None
    if not id:
        raise _bad(f"{scheme}:{value}", "no job has the id 0")
    return Dependency(scheme, id)


def _moment(value: str) -> float:
    try:
        at = float(value)
    except ValueError:
        at = -1.0
    if not isfinite(at) or at < 0 or "_" in value:
        raise _bad(f"begin-time:{value}", "it is not a time in seconds since 1970", "--begin-time takes +2h or a date")
    return at


def _joined(scheme: str, value: str, references: bool, depth: int) -> Dependency:
    text = f"{scheme}({value})"
    if depth >= MAX_NESTED:
        raise _bad(text, f"nested more than {MAX_NESTED} deep")
    parts, several = [], split_parts(value, text)
    if len(several) > MAX_PARTS:
        raise _too_many(text)
    for part in several:
        one = parse_uri(part)
        if len(one) > 2:
            raise _bad(part, "further keys cannot stand in any() or all()")
        parts.append(_read(one["scheme"], one["value"], references, depth + 1))
    made = Dependency(scheme, parts=tuple(parts))
    if sum(1 for _ in made.leaves()) > MAX_PARTS:
        raise _too_many(text)
    return made


def _too_many(text: str) -> Rejected:
    return _bad(text, f"more than {MAX_PARTS} parts", "give several dependencies instead: all of them must hold")


def split_parts(value: str, text: str) -> list[str]:
    """The parts between commas that no parenthesis encloses."""
    parts, depth, begin = [], 0, 0
    for at, sign in enumerate(value):
        depth += (sign == "(") - (sign == ")")
        if depth < 0:
            break
        if sign == "," and not depth:
            parts.append(value[begin:at].strip())
            begin = at + 1
    if depth:
        raise _bad(text, "its parentheses do not match")
    parts.append(value[begin:].strip())
    if not all(parts):
        raise _bad(text, "a part is empty", f"write {text.partition('(')[0]}(afterok:ID,afterok:ID)")
    return parts


def of_jobspec(jobspec: Mapping[str, Any] | None) -> Any:
    """What a jobspec says of dependencies, not looked at; None if nothing."""
    attributes = (jobspec or {}).get("attributes") or {}
    return (attributes.get("system") or {}).get("dependencies")


def objects(given: str | Mapping[str, Any] | Iterable[str | Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """One or several dependencies, texts or objects, as objects. Raises `Rejected`."""
    several = [given] if isinstance(given, str | Mapping) else given
    return [parse_uri(one) if isinstance(one, str) else one for one in several]


def normalise(given: str | Mapping[str, Any] | Iterable[str | Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Dependencies in any form (one or several; text or object) as a jobspec keeps them, ids in F58. Raises `Rejected`."""
    return [one.object for one in read(objects(given), True)]


def settle(system: dict[str, Any]) -> None:
    """Bring `attributes.system.dependencies` of a jobspec, if there, into normal form. Raises `Rejected`."""
    if "dependencies" not in system:
        return
    made = system["dependencies"] = normalise(system["dependencies"])
    if any(one["scheme"] == "singleton" for one in made) and not (system.get("job") or {}).get("name"):
        raise nameless()


def with_ids(jobspecs: Sequence[dict[str, Any]], before: Sequence[int], ids: Sequence[int]) -> Sequence[dict[str, Any]]:
    """Jobspecs of one submission, ids in the place of references between them. ids: theirs; before: of those before them."""
    numbers = [at for at, one in enumerate(jobspecs) if any("#" in each["value"] for each in of_jobspec(one) or ())]
    if not numbers:
        return jobspecs
    every, found = [*before, *ids], list(jobspecs)
    for at in numbers:
        attributes = jobspecs[at]["attributes"]
        system = dict(attributes["system"])
        resolved = resolve(system.pop("dependencies"), every, len(before) + at)
        if resolved:
            system["dependencies"] = resolved
        found[at] = {**jobspecs[at], "attributes": {**attributes, "system": system}}
    return found


def renumbered(dependencies: Sequence[Mapping[str, Any]], numbers: Mapping[int, int]) -> list[dict[str, Any]]:
    """Put references (#N) in the place of ids: what a job waited for, submitted anew together with it. Inverse of `resolve`."""
    return [_renumbered(one, numbers).object for one in read(dependencies)]


def _renumbered(one: Dependency, numbers: Mapping[int, int]) -> Dependency:
    if one.parts:
        return replace(one, parts=tuple(_renumbered(part, numbers) for part in one.parts))
    return replace(one, job=0, back=numbers[one.job]) if one.job in numbers else one


def resolve(dependencies: Sequence[Mapping[str, Any]], ids: Sequence[int], number: int) -> list[dict[str, Any]]:
    """Put ids in the place of references between jobs of one submission. ids: of all before it; number: its own, from 0.

    #3 is the job number 3; #-1 the one before this one, and where there is none that far back, no dependency.
    Raises `Rejected` if #N is not before this job.
    """
    found = (_resolve(one, ids, number) for one in read(dependencies, True))
    return [one.object for one in found if one is not None]


def _resolve(one: Dependency, ids: Sequence[int], number: int) -> Dependency | None:
    if one.parts:
        parts = tuple(made for part in one.parts if (made := _resolve(part, ids, number)) is not None)
        return replace(one, parts=parts) if parts else None
    if one.back is None:
        return one
    at = one.back + number if one.back < 0 else one.back
    if one.back >= number:
        raise _bad(one.uri, f"job number {one.back} is not submitted before number {number}")
    return replace(one, job=ids[at], back=None) if at >= 0 else None
