"""`fluxkv kvs unlink`, `mkdir`, `link`, `readlink`, `copy`, `move`, `namespace`: what changes the tree but not its values."""

from __future__ import annotations

import click

from .kvs_shared import PRIMARY, SETTINGS, F, key_of, namespace_option, open_kvs
from .lazy_group import SuggestingGroup
from .reading import at_option, uri_option
from .target import target_options


@click.command("mkdir")
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@namespace_option
@uri_option
def mkdir(keys: tuple[str, ...], namespace: str, uri: str | None) -> None:
    """Make empty directories.

    \b
    Examples:
      fluxkv kvs mkdir run.results
    """
    with open_kvs(uri, None, namespace) as store:
        store.mkdir(*(key_of(key) for key in keys))


@click.command("unlink")
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@click.option("-R", "--recursive", is_flag=True, help="Directories that are not empty, too.")
@click.option("-f", "--force", is_flag=True, help="Say nothing of keys that are not there.")
@namespace_option
@uri_option
def unlink(keys: tuple[str, ...], recursive: bool, force: bool, namespace: str, uri: str | None) -> None:
    """Remove keys, all of them in one commit. Of a link the link itself is removed.

    \b
    Examples:
      fluxkv kvs unlink run.name
      fluxkv kvs unlink -R run
    """
    with open_kvs(uri, None, namespace) as store:
        store.unlink([key_of(key) for key in keys], recursive=recursive, force=force)


@click.command("link")
@click.argument("target")
@click.argument("linkname")
@click.option("-T", "--target-namespace", metavar="NAME", default="", help="The target is in this namespace.")
@namespace_option
@uri_option
def link(target: str, linkname: str, target_namespace: str, namespace: str, uri: str | None) -> None:
    """Make a symbolic link. The target need not be there yet; a link that would lead to itself is refused.

    \b
    Examples:
      fluxkv kvs link run.results latest
    """
    with open_kvs(uri, None, namespace) as store:
        store.link(key_of(target), key_of(linkname), target_namespace)


@click.command("readlink")
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@click.option("-o", "--namespace-only", is_flag=True, help="Only the namespace, where the link names one.")
@click.option("-k", "--key-only", is_flag=True, help="Only the key.")
@namespace_option
@at_option
@target_options
def readlink(
    keys: tuple[str, ...], namespace_only: bool, key_only: bool, namespace: str, at: str | None, uri: str | None,
    state_dir: str | None,
) -> None:  # fmt: skip
    """Print what links point to.

    \b
    Examples:
      fluxkv kvs readlink latest
    """
    from .kvs_shared import view_at

    if namespace_only and key_only:
        raise click.UsageError("--namespace-only and --key-only exclude each other")
    with open_kvs(uri, state_dir, namespace) as store:
        view = view_at(store, at)
        found = [view.readlink(key_of(key)) for key in keys]
    for space, target in found:
        if namespace_only:
            if space:
                click.echo(space)
        else:
            click.echo(f"{space}::{target}" if space and not key_only else target)


def _from_to(command: F) -> F:
    """Adds what copy and move take: from where, to where."""
    command = namespace_option(uri_option(command))
    command = click.option(
        "-D", "--dst-namespace", metavar="NAME", default="", help="Where the destination is."
    )(command)  # fmt: skip
    command = click.option(
        "-S", "--src-namespace", metavar="NAME", default="", help="Where the source is."
    )(command)  # fmt: skip
    return click.argument("source")(click.argument("destination")(command))


def _copied(old: str, new: str, source: str, target: str, namespace: str, uri: str | None, move: bool) -> None:
    with open_kvs(uri, None, target or namespace) as store:
        store.copy(key_of(old), key_of(new), source=source or namespace, move=move)


@click.command("copy")
@_from_to
def copy(
    source: str, destination: str, src_namespace: str, dst_namespace: str, namespace: str, uri: str | None
) -> None:
    """Copy a value, a link, or a directory with all that is below it.

    \b
    Examples:
      fluxkv kvs copy run.results kept
    """
    _copied(source, destination, src_namespace, dst_namespace, namespace, uri, False)


@click.command("move")
@_from_to
def move(
    source: str, destination: str, src_namespace: str, dst_namespace: str, namespace: str, uri: str | None
) -> None:
    """Move a value, a link or a directory in one step.

    \b
    Examples:
      fluxkv kvs move run.name run.title
    """
    _copied(source, destination, src_namespace, dst_namespace, namespace, uri, True)


@click.group("namespace", cls=SuggestingGroup, context_settings=SETTINGS)
def namespaces() -> None:
    """Keep keys apart: namespaces within the instance.

    \b
    Examples:
      fluxkv kvs namespace create mine
      fluxkv kvs put -N results best=0.25
      fluxkv kvs namespace list
    """


@namespaces.command("create")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("-o", "--owner", metavar="USER", help="Name or number of its owner (default: you).")
@uri_option
def create(names: tuple[str, ...], owner: str | None, uri: str | None) -> None:
    """Make namespaces.

    \b
    Examples:
      fluxkv kvs namespace create scratch
    """
    from .reading import user_id

    with open_kvs(uri) as store:
        for name in names:
            store.create_namespace(name, None if owner is None else user_id(owner))


@namespaces.command("remove")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@uri_option
def remove(names: tuple[str, ...], uri: str | None) -> None:
    """Remove namespaces with all they hold.

    \b
    Examples:
      fluxkv kvs namespace remove results
    """
    with open_kvs(uri) as store:
        for name in names:
            store.remove_namespace(name)


@namespaces.command("list")
@target_options
def list_(uri: str | None, state_dir: str | None) -> None:
    """List namespaces: name, owner, version of the last commit.

    \b
    Examples:
      fluxkv kvs namespace list
    """
    from . import render
    from .reading import user_name

    with open_kvs(uri, state_dir) as store:
        rows = [
            (info.name, "-" if info.name == PRIMARY else user_name(info.owner), str(info.version))
            for info in store.namespaces()
        ]
    wide = max(len("NAMESPACE"), *(len(row[0]) for row in rows))
    who = max(len("OWNER"), *(len(row[1]) for row in rows))
    for name, owner, version in (("NAMESPACE", "OWNER", "VERSION"), *rows):
        render.out(f"{name:<{wide}} {owner:>{who}} {version:>10}")
