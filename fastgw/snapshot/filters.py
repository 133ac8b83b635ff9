"""The key `tools:` of a server or an endpoint: it is taken what is named there, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fastgw.policy.patterns import PROMPT, RESOURCE, Patterns


class Filter:
    """The key, by what its patterns speak of.

    Args:
        texts: patterns as written; None where the key is not written: everything is taken.
    """

    def __init__(self, texts: Sequence[str] | None) -> None:
        written = texts or ()
        self._everything = texts is None
        self._tools = _Names(text for text in written if not text.startswith((PROMPT, RESOURCE)))
        self._prompts = _Names(text.removeprefix(PROMPT) for text in written if text.startswith(PROMPT))
        uris = Patterns(text.removeprefix(RESOURCE) for text in written if text.startswith(RESOURCE))
        self.uris = None if texts is None else uris
        """Tried on URIs; None takes all."""

    def takes_tool(self, name: str, sources: Sequence[str]) -> bool:
        """Whether a tool is taken: by its name, or by `server/tool` of every target."""
        return self._everything or self._tools.fit(name, sources)

    def takes_prompt(self, name: str, sources: Sequence[str]) -> bool:
        """Whether a prompt is taken, likewise."""
        return self._everything or self._prompts.fit(name, sources)

    def gives_tool(self, server: str, own: str) -> bool:
        """Whether this key of a server takes its tool, by its own name or by `server/tool`."""
        return self.takes_tool(own, (own,)) or self.takes_tool(own, (f"{server}/{own}",))

    def gives_prompt(self, server: str, own: str) -> bool:
        """Whether this key of a server takes its prompt, likewise."""
        return self.takes_prompt(own, (own,)) or self.takes_prompt(own, (f"{server}/{own}",))

    @property
    def no_uris(self) -> bool:
        """Whether no resource can be taken."""
        return self.uris is not None and not self.uris.texts


class _Names:
    """Patterns over names, and those with a slash over `server/name`."""

    def __init__(self, texts: Iterable[str]) -> None:
        every = tuple(texts)
        self._names = Patterns(text for text in every if "/" not in text)
        self._sources = Patterns(text for text in every if "/" in text)

    def fit(self, name: str, sources: Sequence[str]) -> bool:
        return self._names.fits(name) or all(map(self._sources.fits, sources))
