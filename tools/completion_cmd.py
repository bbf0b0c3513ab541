"""`fluxkv completion SHELL` and the answers to a TAB. Decides how a shell asks and is answered; what may stand where is
`params`'s.

A shell sets _FLUXKV_COMPLETE and gets lines `kind TAB value TAB description`, kind being value, file or dir. Whatever goes
wrong, nothing is printed and nobody waits: an answer that takes longer than `LIMIT_S` is none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import click

LIMIT_S = 1.0
ASKED = "_FLUXKV_COMPLETE"

_BASH = r"""# fluxkv completion for bash: eval "$(fluxkv completion bash)" in ~/.bashrc
_fluxkv_complete() {
    local kind value about typed=$2 glue=nospace
    COMPREPLY=()
    while IFS=$'\t' read -r kind value about; do
        case $kind in
            value) COMPREPLY+=("$value"); [[ $value == *[.=:] ]] || glue= ;;
            file) COMPREPLY=($(compgen -f -- "$typed")); compopt -o filenames 2>/dev/null; return ;;
            dir) COMPREPLY=($(compgen -d -- "$typed")); compopt -o filenames 2>/dev/null; return ;;
        esac
    done < <(_FLUXKV_COMPLETE=bash COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_CUR="${COMP_WORDS[COMP_CWORD]}" \
        "$1" 2>/dev/null)
    [[ -z $glue ]] || compopt -o nospace 2>/dev/null
}
complete -o nosort -F _fluxkv_complete fluxkv 2>/dev/null || complete -F _fluxkv_complete fluxkv
"""

_ZSH = r"""#compdef fluxkv
# fluxkv completion for zsh: eval "$(fluxkv completion zsh)" in ~/.zshrc after compinit, or as _fluxkv in a folder of $fpath
_fluxkv() {
    local kind value about word=${(Q)PREFIX}
    local -a plain told before=("${(@Q)words[1,CURRENT-1]}")
    while IFS=$'\t' read -r kind value about; do
        case $kind in
            value) if [[ -n $about ]]; then told+=("${value//:/\\:}:$about"); else plain+=("$value"); fi ;;
            file) compset -P '--*='; _files; return ;;
            dir) compset -P '--*='; _files -/; return ;;
        esac
    done < <(_FLUXKV_COMPLETE=zsh COMP_LINE="${(pj:\x1f:)before}" COMP_CUR="$word" \
        "${(Q)words[1]}" 2>/dev/null)
    [[ $word == --*=* ]] && compset -P '--*='
    (( $#told )) && _describe -V -t values value told
    (( $#plain )) && compadd -U -V values -a plain
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _fluxkv "$@"; else compdef _fluxkv fluxkv; fi
"""

_FISH = r"""# fluxkv completion for fish: fluxkv completion fish > ~/.config/fish/completions/fluxkv.fish
function __fluxkv_complete
    set -l typed (commandline -ct)
    set -l option (string match -r -- '^--[^=]*=' $typed)
    for line in (_FLUXKV_COMPLETE=fish COMP_LINE=(string join \x1f -- (commandline -opc)) COMP_CUR="$typed" fluxkv 2>/dev/null)
        set -l part (string split \t -- $line)
        switch $part[1]
            case value
                printf '%s\t%s\n' "$option$part[2]" "$part[3]"
            case file
                for name in (__fish_complete_path (string replace -r -- '^--[^=]*=' '' $typed))
                    echo "$option$name"
                end
            case dir
                for name in (__fish_complete_directories (string replace -r -- '^--[^=]*=' '' $typed))
                    echo "$option$name"
                end
        end
    end
end
complete -c fluxkv -f -k -a '(__fluxkv_complete)'
"""

SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


@click.command()
@click.argument("shell", type=click.Choice(list(SCRIPTS)), required=False)
def completion(shell: str | None) -> None:
    """Print what makes a shell complete fluxkv's commands, options, job ids, queues and nodes (default: of $SHELL).

    \b
    Examples:
      eval "$(fluxkv completion bash)"           now; in ~/.bashrc for good
      fluxkv completion zsh > _fluxkv            in a folder of $fpath
      fluxkv completion fish > fluxkv.fish       in ~/.config/fish/completions
    """
    from .render import out

    if shell is None:
        shell = os.path.basename(os.environ.get("SHELL", ""))
        if shell not in SCRIPTS:
            raise click.UsageError(f"name a shell: {', '.join(SCRIPTS)}")
    out(SCRIPTS[shell], end="")


def answer() -> None:
    """Answer one TAB and leave, whatever happens."""
    import signal

    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        text = "".join(f"{kind}\t{value}\t{about}\n" for kind, value, about in _answers())
        os.write(1, text.encode(errors="replace"))
    except BaseException:
        if os.environ.get("FLUXKV_TRACEBACK"):
            raise
    os._exit(0)


def _answers() -> Iterator[tuple[str, str, str]]:
    """(kind, value, description) of all that may stand where the cursor is."""
    shell, line, current = os.environ[ASKED], os.environ.get("COMP_LINE", ""), os.environ.get("COMP_CUR", "")
    if shell == "bash":
        from click.shell_completion import split_arg_string

        words = split_arg_string(line)
        word = words.pop() if words and line[-1:] not in (" ", "\t") else ""
        # readline replaces only what follows the last "=" or ":" of the word.
        cut = len(word) - len(current) if current not in ("=", ":") and word.endswith(current) else len(word)
    else:
        words, word, cut = line.split("\x1f"), current, 0
    option, equals, _ = word.partition("=")
    cut -= len(option) + 1 if equals and option.startswith("--") else 0
    seen = set()
    for value, about in complete(words[1:], word):
        if value[:1] == "\0":
            yield value[1:], "", ""
        elif value not in seen and value.isprintable():
            seen.add(value)
            yield "value", value[max(0, cut) :], " ".join(about.split())


def complete(args: list[str], word: str) -> Iterator[tuple[str, str]]:
    """(value, description) of all that may come after these arguments and begins with `word`.

    Of an option and its value in one word ("--queue=de") the values alone.
    """
    from click.shell_completion import _resolve_context, _resolve_incomplete

    from .main import COMMANDS, cli
    from .params import FILE, Known, kind_of

    context = _resolve_context(cli, {}, "fluxkv", args)
    found, typed = _resolve_incomplete(context, args, word)
    if not context.allow_interspersed_args and (context.params.get("words") or context.params.get("command")):
        yield FILE  # what follows the job's command is that command's
        return
    if not isinstance(found, click.Parameter):
        if found is cli and not typed.startswith("-"):
            yield from ((name, about) for name, (_, _, about) in COMMANDS.items() if name.startswith(typed))
            return
        for item in found.shell_complete(context, typed):
            yield str(item.value), (item.help or "").partition(". ")[0]
        return
    known = Known(context)
    kind = kind_of(known.command, found)
    if isinstance(found.type, click.Choice) or kind is None:
        yield from ((str(item.value), item.help or "") for item in found.shell_complete(context, typed))
        return
    before, comma, last = typed.rpartition(",")
    for value, about in kind(known, last):
        if value[:1] == "\0" or value.startswith(last):
            yield (value if value[:1] == "\0" else before + comma + value), about


