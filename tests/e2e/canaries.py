"""Secrets of a test, one for each place where a secret may stand, and the search for them in whatever was heard.

secret = canary("arguments")              # letters alone, so that no encoding of JSON or URLs changes them
heard = Heard(); heard.add("the log", text)
heard.check(allowed={"the answer to the agent": {"result"}})

Knows: how a secret may look in a text. Refuses to know: gateways.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from functools import cache

LETTERS = "abcdefghijklmnop"


@cache
def canary(place: str) -> str:
    """The secret of a place."""
    return "cnry" + "".join(
        LETTERS[digit >> 4] + LETTERS[digit & 15] for digit in hashlib.sha256(place.encode()).digest()[:12]
    )


def forms(secret: str) -> dict[str, bytes]:
    """What to look for, in lower case where case tells nothing: the secret, and what is as good as it.

    Its middle is enough: half of a secret is one, too.
    """
    core = secret.encode()
    inner = core[2:-2]
    found = {"plain": core, "its middle": inner, "backwards": core[::-1], "hex": core.hex().encode()}
    for shift in range(3):  # wherever in a longer text it stood
        whole = b64encode(b"\0" * shift + core)
        found[f"base64 {shift}"] = whole[-(-shift * 4 // 3) + (1 if shift else 0) : -4]
    found["hash"] = hashlib.sha256(core).hexdigest().encode()
    found["hash in base64"] = b64encode(hashlib.sha256(core).digest())[:-2]
    return found


@dataclass
class Heard:
    """Texts by where they were heard."""

    texts: dict[str, bytes] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)

    def secret(self, place: str) -> str:
        """The secret of a place, which is looked for from now on."""
        return self.secrets.setdefault(place, canary(place))

    def watch(self, place: str, secret: str) -> None:
        """Look for a secret that somebody else has made."""
        self.secrets[place] = secret

    def add(self, where: str, text: bytes | str) -> None:
        self.texts[where] = self.texts.get(where, b"") + b"\n" + (text.encode() if isinstance(text, str) else text)

    def found(self, allowed: Mapping[str, Set[str]]) -> list[str]:
        """Which secret was heard where, in what form, and a bit of what stands around it; `allowed`: places by where,
        of which only the beginning need be said.
        """
        told = []
        for where, text in self.texts.items():
            small, fine = text.lower(), set[str]().union(*(own for at, own in allowed.items() if where.startswith(at)))
            for place in sorted(self.secrets.keys() - fine):
                for form, sought in forms(self.secrets[place]).items():
                    inside = text if "base64" in form else small
                    if (at := inside.find(sought if "base64" in form else sought.lower())) >= 0:
                        told.append(f"{place} ({form}) in {where}: {text[max(0, at - 100) : at + 60]!r}")
                        break
        return told
