"""URI templates read backwards: whether a URI may be an expansion of one (RFC 6570, levels 1 to 4).

The law: every expansion fits. What fits need not be one: undefined variables leave nothing, values are taken as wide as
servers read them (`{x}` is anything up to the next `/`, `?` or `#`), and query parameters may stand in any order.

A template and a URI are both a stranger's, so nothing here goes back: all places of the URI that a beginning of the
template can reach are one number, a bit for each place, and each part of the template moves them all at once
(R. Cameron's `MatchStar`: a run of characters is crossed by the carry of one addition). The cost is length times parts,
65 words at a time, whatever they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

LONGEST = 8192
"""Characters of a template."""
MOST_EXPRESSIONS = 100

_EXPRESSION = re.compile(r"\{([+#./;?&]?)([^{}]*)\}")
_VARIABLE = re.compile(r"(?:[A-Za-z0-9_.]|%[0-9A-Fa-f]{2})++(?:\*|:[1-9][0-9]{0,3})?")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*+:")
_EVERYWHERE = re.compile(r"(?:[!#$&'()*+,/:;=?@\[\]A-Za-z0-9\-._~]|%[0-9A-Fa-f]{2})++")
"""Literals that expand to themselves (RFC 6570, section 3.1); others may stand as they are, or encoded."""

SEGMENT, PATH, QUERY, ANY = b"/?#", b"?#", b"#", b""
"""Runs of characters, by the characters that end them."""
_SAMPLES = {"": "0", "+": "0", "#": "#0", ".": ".0", "/": "/0", ";": ";0", "?": "?0=0", "&": "&0=0"}
_NAMED = frozenset(";?&")
"""Operators whose expansions show the variables' names."""
_OPTIONAL = {"#": (b"#", ANY), ".": (b".", SEGMENT), ";": (b";", SEGMENT), "?": (b"?", QUERY), "&": (b"&", QUERY)}


class Unreadable(ValueError):
    """The text is no URI template, or beyond what is matched here."""


class Marks:
    """A URI as its templates look at it: for each kind of character, the places where one stands, a bit each."""

    __slots__ = ("text", "size", "_backwards", "_found")

    def __init__(self, uri: str) -> None:
        self.text = uri.encode("utf-8", "surrogatepass")
        self.size = len(self.text)
        self._backwards = self.text[::-1]
        self._found: dict[bytes, int] = {}

    def byte(self, wanted: bytes) -> int:
        """Where this one byte stands."""
        return self._where(b"=" + wanted)

    def run(self, enders: bytes) -> int:
        """Where any byte stands but these."""
        return self._where(b"!" + enders)

    def _where(self, kind: bytes) -> int:
        found = self._found.get(kind)
        if found is None:
            # The last byte is the highest bit, as in the number that `int` reads.
            found = self._found[kind] = int(self._backwards.translate(_table(kind)) or b"0", 2)
        return found


@dataclass(frozen=True, slots=True)
class Words:
    """One of some texts."""

    texts: tuple[bytes, ...]

    def move(self, places: int, marks: Marks) -> int:
        """From the places before it to those after it."""
        found = 0
        for text in self.texts:
            moved = places
            for at in range(len(text)):
                moved = (moved & marks.byte(text[at : at + 1])) << 1
                if not moved:
                    break
            found |= moved
        return found


@dataclass(frozen=True, slots=True)
class Run:
    """Any number of characters up to one of `enders`."""

    enders: bytes

    def move(self, places: int, marks: Marks) -> int:
        """From the places before it to those after it."""
        inside = marks.run(self.enders)
        return (((places & inside) + inside) ^ inside) | places


@dataclass(frozen=True, slots=True)
class Optional:
    """Nothing, or `lead` and any number of characters up to one of `enders`."""

    lead: bytes
    enders: bytes

    def move(self, places: int, marks: Marks) -> int:
        """From the places before it to those after it."""
        begun = (places & marks.byte(self.lead)) << 1
        inside = marks.run(self.enders)
        return places | begun | (((begun & inside) + inside) ^ inside)


Step = Words | Run | Optional
"""Moves places: from those before a part of the template to those after it."""


@dataclass(frozen=True, slots=True)
class Template:
    """A template, compiled.

    Args:
        text: as its server wrote it.
        prefix: the literal beginning of every expansion.
        suffix: the literal end of every expansion.
        steps: what follows the prefix; None for a template that nothing fits.
        form: the text less its variables' names where they do not show: equal forms fit the same URIs.
        wrong: why nothing fits it; empty for a template that can be read.
    """

    text: str
    prefix: bytes
    suffix: bytes
    steps: tuple[Step, ...] | None
    form: str
    wrong: str = ""

    @property
    def sample(self) -> str:
        """One of its expansions: every variable is `0`."""
        return _EXPRESSION.sub(lambda found: _SAMPLES[found[1]], self.text)

    @property
    def scheme(self) -> str:
        """The scheme of every expansion; empty where an expression stands before its colon, or nothing fits."""
        found = _SCHEME.match(self.prefix.decode()) if self.steps is not None else None
        return found[0][:-1] if found else ""

    def fits(self, marks: Marks) -> bool:
        """Whether the URI may be an expansion of this template."""
        if self.steps is None or not marks.text.startswith(self.prefix) or not marks.text.endswith(self.suffix):
            return False
        places = 1 << len(self.prefix)
        for step in self.steps:
            places = step.move(places, marks)
            if not places:
                return False
        return bool(places >> marks.size & 1)


def compiled(text: str) -> Template:
    """The template; one that cannot be read fits nothing and says why."""
    try:
        return _compiled(text)
    except Unreadable as wrong:
        return unused(text, str(wrong))


def unused(text: str, wrong: str) -> Template:
    """A template that nothing fits, and why."""
    return Template(text, b"", b"", None, text, wrong)


def _compiled(text: str) -> Template:
    if len(text) > LONGEST:
        raise Unreadable(f"is longer than {LONGEST} characters")
    parts = _EXPRESSION.split(text)
    if any("{" in literal or "}" in literal for literal in parts[::3]):
        raise Unreadable("has a brace without its partner")
    if len(parts) > 3 * MOST_EXPRESSIONS + 1:
        raise Unreadable(f"has more than {MOST_EXPRESSIONS} expressions")
    lead = _plain_start(parts[0])
    steps = _literal(parts[0][len(lead) :])
    form = [parts[0]]
    for operator, names, literal in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        left = _expression(operator, names)
        if not (steps and isinstance(steps[-1], Run) and [steps[-1]] == left):  # two equal runs are one
            steps.extend(left)
        steps.extend(_literal(literal))
        form += ["{", operator, names if operator in _NAMED else _anonymous(names), "}", literal]
    suffix = parts[-1] if len(parts) > 1 and _plain_start(parts[-1]) == parts[-1] else ""
    return Template(text, lead.encode(), suffix.encode(), tuple(steps), "".join(form))


def _plain_start(literal: str) -> str:
    """The beginning of a literal that expands to itself."""
    found = _EVERYWHERE.match(literal)
    return found[0] if found else ""


def _literal(text: str) -> list[Step]:
    """Literal text; a stretch that may stand encoded or not is a step of its own."""
    steps: list[Step] = []
    at = 0
    for plain in _EVERYWHERE.finditer(text):
        steps.extend(_either(text[at : plain.start()]))
        steps.append(Words((plain[0].encode(),)))
        at = plain.end()
    return [*steps, *_either(text[at:])]


def _either(text: str) -> list[Step]:
    return [Words((one.encode("utf-8", "surrogatepass"), quote(one, errors="surrogatepass").encode())) for one in text]


def _expression(operator: str, names: str) -> list[Step]:
    """What an expression may leave (RFC 6570, section 3.2)."""
    variables = names.split(",")
    if not all(map(_VARIABLE.fullmatch, variables)):
        raise Unreadable(f"has no variable it could fill in: {{{operator}{names[:50]}}}")
    if operator == "/":
        many = any(one.endswith("*") for one in variables)
        return [Optional(b"/", PATH)] if many else [Optional(b"/", SEGMENT)] * len(variables)
    if operator in ("", "+"):
        return [Run(ANY if operator else SEGMENT)]
    return [Optional(*_OPTIONAL[operator])]


def _anonymous(names: str) -> str:
    return ",".join("*" if one.endswith("*") else "" for one in names.split(","))


@lru_cache(maxsize=512)
def _table(kind: bytes) -> bytes:
    """For `bytes.translate`: `1` for the bytes of a kind, `0` for the rest."""
    named = frozenset(kind[1:])
    wanted = kind[:1] == b"="
    return bytes(ord("1") if (byte in named) is wanted else ord("0") for byte in range(256))
