"""The arguments of a call with what the operator has settled: fixed ones, and defaults for what was left out."""

from __future__ import annotations

from collections.abc import Iterable

from fastgw.protocol.envelope import NotAMessage, emit, members

Pairs = tuple[tuple[str, bytes], ...]
"""Argument names and the JSON text of each value."""


def filled(arguments: bytes, fixed: Pairs, defaults: Pairs) -> bytes:
    """The arguments that are sent: the agent's own byte for byte in its order, then what is filled in.

    A `null` is a value: a default takes its place no more than any other's.

    Args:
        arguments: JSON text of `params.arguments`; empty or `null` where the call has none.
        fixed: sent always; the agent must not name them, nor imitate them in another case.
        defaults: sent where the agent does not name them.

    Raises:
        NotAMessage: no object, a member twice, or a fixed argument: agents do not see those, so it is one that there
            is not.
        NotJson: not JSON.
    """
    found = {} if arguments in (b"", b"null") else members(arguments)
    if fixed:
        _refuse(found, fixed)
    filled_in = {name: value for name, value in defaults if name not in found}
    return emit({**found, **filled_in, **dict(fixed)})


def _refuse(found: Iterable[str], fixed: Pairs) -> None:
    taken = {name.casefold() for name, _ in fixed}
    for name in found:
        if name.casefold() in taken:
            raise NotAMessage(f"there is no argument {name[:64]!r}")
