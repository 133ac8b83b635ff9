"""Refused `Host`s, `Origin`s and proxies in the log: what an operator has forgotten to name is found there."""

from __future__ import annotations

import logging
import re

from fastgw.errors import Kind
from fastgw.gateway.context import RequestContext

log = logging.getLogger("fastgw")

QUIET = 60.0
"""Seconds in which the same value is logged once."""
MOST = 20
"""Values that are remembered, and so logged within `QUIET`."""
LONGEST = 100
"""Letters of a value that are shown."""

_FORMS = {
    Kind.BAD_HOST: (
        b"host",
        re.compile(r"[a-z0-9._-]+(:[0-9]{1,5})?|\[[0-9a-f:.]+\](:[0-9]{1,5})?"),
        "421: the Host %s is not served here",
        "; if it is one of yours, add it: public_url: http://%s (or https://, as agents write it)",
    ),
    Kind.BAD_ORIGIN: (
        b"origin",
        re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9._:\[\]-]+"),
        "403: pages of the Origin %s may not call",
        "; if it is one of yours, add it to the endpoint: origins: [%s]",
    ),
}


class RefusalLog:
    """Refused `Host`s and `Origin`s of one worker, each with what to add to the configuration, if it is a good one."""

    def __init__(self) -> None:
        self._logged: dict[tuple[Kind | str, str], float] = {}
        self._more = -QUIET

    def note(self, kind: Kind, context: RequestContext) -> None:
        """Log a refusal, unless the same was logged within a minute or too many others were.

        Args:
            kind: others than BAD_HOST and BAD_ORIGIN are left alone.
        """
        if kind not in _FORMS:
            return
        header, form, refused, advice = _FORMS[kind]
        value = context.headers.get(header, b"")[: LONGEST + 1].decode("latin-1").lower()
        shown = ascii(value[:LONGEST]) if value else "(none)"
        if header in context.twice:
            value, shown = "", "(more than one)"
        if self._is_new((kind, shown), context.started):
            text = refused % shown
            log.warning("%s", text + advice % value if len(value) <= LONGEST and form.fullmatch(value) else text)

    def note_untrusted(self, context: RequestContext, identity: str, header: bytes, peer: str) -> None:
        """Log that a header that names agents came from an address whose word does not count, likewise."""
        if self._is_new((identity, peer), context.started):
            log.warning(
                "the header %s from %s counts as not sent; if that is your proxy, add it to identity.%s.header.from",
                header.decode(), peer or "an unknown address", identity,
            )  # fmt: skip

    def _is_new(self, key: tuple[Kind | str, str], now: float) -> bool:
        logged = self._logged
        if key in logged and now - logged[key] < QUIET:
            return False
        if len(logged) >= MOST:
            self._logged = logged = {one: when for one, when in logged.items() if now - when < QUIET}
        if len(logged) < MOST:
            logged[key] = now
            return True
        if now - self._more >= QUIET:
            self._more = now
            log.warning("more Hosts, Origins and addresses are refused than are worth a line each; some are not logged")
        return False
