"""Text that says something else than it shows: invisible characters, and names that look like another one (Unicode
Technical Standard 39). For the operator: nothing is refused by it.
"""

# ruff: noqa: RUF001 - letters that look like others are what this is about
from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Final

INVISIBLE: Final = re.compile(
    # Controls but tab and line ends; soft hyphen, fillers, zero width, bidirectional, variation selectors, tags.
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
    # Joiners and emoji's selectors have their use in words and pictures, and none twice, or after ASCII.
    "|[\u200c\u200d]{2,}|[\ufe0e\ufe0f]{2,}|(?<=[ -~])[\u200c\u200d]"
)
_ESCAPES = re.compile(r"\\\\|(?:\\u[0-9a-fA-F]{4})+")
MOST_SHOWN, LONGEST_SHOWN = 8, 64
"""Different characters that one remark names, and members; characters of a member's name."""

_LETTERS = {
    "аеорсухіјѕһԁԛԝкмтвьґпո": "aeopcyxijshdqwkmtbbrno",  # Cyrillic, and one of Armenian
    "АВЕКМНОРСТУХІЈЅԌ": "ABEKMHOPCTYXIJSG",
    "αοντρυκιγχωη": "aovtpukiyxwn",  # Greek
    "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ": "ABEZHIKMNOPTYX",
    "ıɑɡ": "iag",
}
_LATIN = {ord(one): latin for odd, plain in _LETTERS.items() for one, latin in zip(odd, plain, strict=True)}
_ALIKE = str.maketrans("0i1|-. /", "olll____")


def invisible(members: Mapping[str, bytes]) -> str:
    """Which invisible characters stand in these members (name to JSON text), in which; empty where none do."""
    found: dict[str, None] = {}
    where = []
    for member, text in members.items():
        if text.isascii() and b"\\u" not in text:
            continue
        if marks := INVISIBLE.findall(_ESCAPES.sub(_unescaped, text.decode())):
            found |= dict.fromkeys(f"U+{ord(one):04X}" for mark in marks for one in mark)
            where.append(member[:LONGEST_SHOWN])
    if not found:
        return ""
    return f"has invisible characters ({_few([*found])}) in {_few(where)}"


def _few(shown: list[str]) -> str:
    more = f" and {len(shown) - MOST_SHOWN} more" if len(shown) > MOST_SHOWN else ""
    return f"{', '.join(shown[:MOST_SHOWN])}{more}"


def visible(text: str) -> str:
    """A JSON string's text with what is invisible in it as escapes: `\\u200b`."""
    return INVISIBLE.sub(lambda found: json.dumps(found[0])[1:-1], text)


def look_alikes(names: Iterable[str]) -> dict[str, str]:
    """Of names that look alike: each but the first to the first."""
    first: dict[str, str] = {}
    return {name: other for name in names if (other := first.setdefault(_skeleton(name), name)) != name}


def _skeleton(name: str) -> str:
    """What names have in common that a reader takes for each other, whatever the case."""
    if not name.isascii():
        name = "".join(one for one in unicodedata.normalize("NFKD", name) if not unicodedata.combining(one))
        name = name.translate(_LATIN)
    return name.lower().translate(_ALIKE).replace("rn", "m").replace("vv", "w")


def _unescaped(found: re.Match[str]) -> str:
    return "" if found[0] == r"\\" else str(json.loads(f'"{found[0]}"'))
