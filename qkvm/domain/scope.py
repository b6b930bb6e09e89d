"""--live, --config, --current: which of the two a change is for, the running guest or the definition.

live changes the running guest alone, config the definition alone, both together both; neither, and current,
mean live when it runs, else config.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from qkvm.errors import InvalidState, InvalidValue

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle


class Scope(NamedTuple):
    """What a change is for; at least one of the two is true."""

    live: bool
    config: bool


def resolve(domain: Handle, *, live: bool = False, config: bool = False, current: bool = False) -> Scope:
    """The scope that these flags mean for a domain as it is now.

    :raises InvalidValue: current together with another. :raises InvalidState: live and it does not run, or
        config and it has no definition.
    """
    if current and (live or config):
        other = "live" if live else "config"
        raise InvalidValue(f"Options --current and --{other} are mutually exclusive")
    running = domain.is_running
    if not live and not config:
        live, config = running, not running
    if live and not running:
        raise InvalidState("domain is not running")
    if config and not domain.is_persistent:
        raise InvalidState("transient domains do not have any persistent config")
    return Scope(live, config)
