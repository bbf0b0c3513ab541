"""An instance on a server that somebody else runs: its address, its place there, and whether that server may be trusted.

Decides what such an instance is called when nobody says, where its password is kept (a file in the state directory, so that
no address shows it), and which servers are refused. Never starts, stops or configures a server.
"""

from __future__ import annotations

import os
import re
from typing import Any

from ..kvs.errors import Rejected
from ..kvs.listening import write_secret
from ..kvs.uri import PASSWORD_VARIABLE, StoreUri, parse_server, parse_uri, quote, with_password_file
from .paths import StateDir

VARIABLE = "FLUXKV_REDIS_URL"
NAME = re.compile(r"[^\w.@+-]")


def settings_for(url: str, directory: StateDir, *, unsafe: bool) -> dict[str, Any]:
    """What instance.json holds of an outside server: uri, outside, unsafe_server, home. Writes the password's file, if any.

    Without a fragment the instance gets a namespace of its own, named by user and state directory, so that several stand
    beside one another. Raises `Rejected`.
    """
    parsed = parse_uri(url)
    address = parse_server(parsed.server)
    if address.kind == "memory":
        raise Rejected("a store inside one process can not be shared by daemons", code="bad-uri", hint="leave --redis out")
    if "#" not in url:
        parsed = StoreUri(parsed.server, "/" + NAME.sub("_", f"{_user()}-{os.path.basename(directory.path)}"))
    uri = keep_password(str(parsed), directory)
    home = f"{os.uname().nodename}:{directory.path}"
    return {"uri": uri, "outside": True, "unsafe_server": unsafe, "home": home}


def keep_password(uri: str, directory: StateDir) -> str:
    """The URI with its password (or the environment's) in a file of the state directory, which is made if there is one."""
    parsed = parse_uri(uri)
    path = directory.join("password")
    kept, password = with_password_file(uri, path)
    if not password and not parse_server(parsed.server).password_file and (password := os.environ.get(PASSWORD_VARIABLE, "")):
        mark = "&" if "?" in parsed.server else "?"
        kept = str(StoreUri(f"{parsed.server}{mark}password_file={quote(path)}", parsed.namespace))
    if password:
        directory.create()
        write_secret(path, password)
    return kept if password else uri


def at_another_place(settings: dict[str, Any], url: str, directory: StateDir, *, unsafe: bool) -> dict[str, Any]:
    """An old instance's settings with its server's new address; its namespace stays. Raises `Rejected`."""
    if not settings.get("outside"):
        raise Rejected(
            f"{directory.path} holds an instance with a server of its own; --redis cannot move it", code="exists",
            hint="choose another --state-dir for an instance on that server",
        )  # fmt: skip
    namespace = parse_uri(str(settings["uri"])).namespace
    if "#" in url and parse_uri(url).namespace != namespace:
        raise Rejected(f"{directory.path} holds the instance {namespace}, not {parse_uri(url).namespace}", code="exists")
    moved = f"{parse_uri(url).server}#{namespace}"
    return {**settings, **settings_for(moved, directory, unsafe=unsafe or bool(settings.get("unsafe_server")))}


def check(settings: dict[str, Any], *, alive: bool) -> list[str]:
    """What is wrong with the instance's outside server, one line each. Raises `Rejected(code="unsafe-server")` for anything,
    unless the settings accept it; `Unavailable` when the server does not answer.

    alive: other daemons of the instance live, so it is not left without a keeper, whatever has become of the server.
    """
    from ..kvs.reach import connect
    from ..kvs.replies import reply_failure
    from ..kvs.resp import ReplyError
    from ..kvs.server_choice import check_server

    parsed = parse_uri(str(settings["uri"]))
    connection = connect(parsed.server, parsed.namespace)
    try:
        problems = check_server(connection, settings.get("durability", "strict"))
        if parse_server(parsed.server).kind != "cluster" and b"cluster_enabled:1" in connection.call("INFO", "cluster"):
            problems.append("it is one node of a cluster, and keys move between them (redis+cluster://HOST:PORT)")
    except ReplyError as error:
        raise reply_failure(error, connection.address) from None
    finally:
        connection.close()
    if problems and not alive and not settings.get("unsafe_server"):
        raise Rejected(
            f"the server at {connection.address} is not to be trusted with a journal: {'; '.join(problems)}", code="unsafe-server",
            hint="change that in its configuration; or take it as it is with --unsafe-server",
        )  # fmt: skip
    return problems


def hide_password(url: str, argv: list[str]) -> None:
    """When a password was typed into a command's words, begin again without it: everybody can read those (`ps`).

    argv: this process's own, whole (`sys.orig_argv`). Returns only if there is nothing to hide.
    """
    parsed = parse_uri(url)
    password = parse_server(parsed.server).password
    if not password or not any(url in word for word in argv):
        return
    import sys

    scheme, _, rest = parsed.server.partition("://")
    who, _, place = rest.rpartition("@")
    user = who.partition(":")[0]
    bare = str(url).replace(parsed.server, f"{scheme}://{user}{'@' if user else ''}{place}")
    os.environ[PASSWORD_VARIABLE] = password
    os.execv(sys.executable, [word.replace(url, bare) for word in argv])


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
