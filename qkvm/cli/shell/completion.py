"""Completion in bash and zsh: the scripts, and the verb complete that they call."""

from __future__ import annotations

from qkvm.errors import InvalidValue
from qkvm.units import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args

_BASH = r"""# Completion of qkvm in bash: source <(qkvm completion bash)
_qkvm() {
    local words=() word glue= cut i
    # bash has split MAC addresses, --option=value and the like at these characters; here they are whole words.
    for word in "${COMP_WORDS[@]:1:COMP_CWORD}"; do
        word=${word//[\"\'\\]/}
        if [[ ${#words[@]} -gt 0 && ( $glue || ( $word && -z ${word//[:=@]/} ) ) ]]; then
            words[-1]+=$word
        else
            words+=("$word")
        fi
        glue=
        [[ -z $word || ${word//[:=@]/} ]] || glue=yes
    done
    mapfile -t COMPREPLY < <("${1:-${COMP_WORDS[0]}}" complete -- "${words[@]}" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == */ ]]; then
        compopt -o nospace 2>/dev/null
    fi
    # What it replaces begins behind the last of them.
    cut=${words[-1]%"${words[-1]##*[:=@]}"}
    for i in "${!COMPREPLY[@]}"; do
        printf -v "COMPREPLY[i]" %q "${COMPREPLY[i]#"$cut"}"
    done
}
complete -F _qkvm qkvm
"""

_ZSH = r"""#compdef qkvm
# Completion of qkvm in zsh: source <(qkvm completion zsh), behind compinit.
_qkvm() {
    local -a found
    local word
    found=("${(@f)$("${(Q)words[1]}" complete -- "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
    for word in "${found[@]}"; do
        if [[ $word == */ ]]; then
            compadd -S '' -- "$word"
        elif [[ -n $word ]]; then
            compadd -- "$word"
        fi
    done
}
# As a file on fpath this text is the function's body when it is called first.
if [[ ${funcstack[1]} == _qkvm ]]; then
    _qkvm "$@"
else
    compdef _qkvm qkvm
fi
"""

SCRIPTS = {"bash": _BASH, "zsh": _ZSH}


def completion(context: Context, args: Args) -> None:
    """Print the completion script for a shell."""
    shell = args.required("shell")
    if shell not in SCRIPTS:
        raise InvalidValue(f"no completion for shell '{printable(shell)}'", hint=" or ".join(SCRIPTS))
    context.out(SCRIPTS[shell])


def complete(context: Context, args: Args) -> None:
    """Print the candidates for the last word; print nothing on any error."""
    from qkvm.cli.shell.candidates import outside

    words = args.texts("string") or [""]
    context.out("".join(f"{word}\n" for word in outside(context.tree, words)))
