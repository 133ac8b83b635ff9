"""URI templates read backwards: what a template expands to fits it, and no template costs more than its length."""

from __future__ import annotations

import random
from urllib.parse import quote

import pytest

from fastgw.catalog.templates import LONGEST, MOST_EXPRESSIONS, Marks, compiled

Value = str | list[str] | dict[str, str] | None
RESERVED = ":/?#[]@!$&'()*+,;="
LEVELS = {
    "": ("", ",", False, "", ""), "+": ("", ",", False, "", RESERVED), "#": ("#", ",", False, "", RESERVED),
    ".": (".", ".", False, "", ""), "/": ("/", "/", False, "", ""), ";": (";", ";", True, "", ""),
    "?": ("?", "&", True, "=", ""), "&": ("&", "&", True, "=", ""),
}  # fmt: skip
"""Operator to what begins and separates, whether names show, what an empty value shows, what is not encoded: RFC 6570,
appendix A."""


RUNS = {"{a}": ("", "/?#"), "{+a}": ("", ""), "{/a}": ("/", "/?#"), "{/a*}": ("/", "?#"), "{?a}": ("?", "#")}
"""Expressions to what begins them and what ends them."""


def fits(template: str, uri: str) -> bool:
    return compiled(template).fits(Marks(uri))


@pytest.mark.parametrize(
    ("template", "uris", "others"),
    [
        ("help://{page}", ["help://a", "help://", "help://a%2Fb", "help://a b"], ["help://a/b", "help://a?b", "halp://a"]),
        ("t://template/{id}/data", ["t://template/1/data"], ["t://template/1/2/data", "t://template/1/dat"]),
        ("f:///{+path}/{name}", ["f:///a/b/c", "f:////"], ["f:///a"]),
        ("f:{a}x{b}", ["f:x", "f:xx", "f:axbxc"], ["f:", "f:a/x"]),
        ("f:{+a}x{b}y", ["f:x/xy", "f:/x/xyxy"], ["f:x/y", "f:xyz"]),
        ("s:q{?a,b}", ["s:q", "s:q?a=1&b=2", "s:q?b=/"], ["s:qa", "s:q?a#f"]),
        ("s:q?z=1{&a}", ["s:q?z=1", "s:q?z=1&a=2"], ["s:q?z=12"]),
        ("a:{/x,y}", ["a:", "a:/1", "a:/1/2"], ["a:/1/2/3", "a:1"]),
        ("a:{/x*}", ["a:", "a:/1/2/3"], ["a:1", "a:/1?"]),
        ("a:x{.e}{#f}", ["a:x", "a:x.t.u", "a:x.t#u/v", "a:x#"], ["a:xt", "a:x/"]),
        ("a:x{;p}", ["a:x;p=1", "a:x;p"], ["a:xp"]),
        ("n://caf\u00e9/{x}", ["n://caf\u00e9/1", "n://caf%C3%A9/1"], ["n://cafe/1"]),
        ("n://a b", ["n://a b", "n://a%20b"], ["n://ab"]),
        ("{+x}", ["", "a:b", "\u00e9"], []),
        ("a:b", ["a:b"], ["a:bc", "a:"]),
    ],
)  # fmt: skip
def test_what_fits(template: str, uris: list[str], others: list[str]) -> None:
    assert [uri for uri in uris if not fits(template, uri)] == []
    assert [uri for uri in others if fits(template, uri)] == []


@pytest.mark.parametrize("text", ["{", "}", "{a", "a}", "{{a}}", "{}", "{=a}", "{a b}", "{a:0}", "{a,}", "a:{+}"])
def test_what_is_no_template_fits_nothing_and_says_why(text: str) -> None:
    template = compiled(text)
    assert template.wrong
    assert not template.fits(Marks(text))
    assert template.scheme == ""


@pytest.mark.parametrize(
    ("text", "scheme"),
    [("help://{x}", "help"), ("a+b:{x}", "a+b"), ("{x}", ""), ("{s}://x", ""), ("a{x}:b", ""), ("1:{x}", "")],
)  # fmt: skip
def test_a_scheme_is_literal_and_first(text: str, scheme: str) -> None:
    assert compiled(text).scheme == scheme


def test_forms_leave_out_names_that_do_not_show() -> None:
    assert compiled("a:{x}/{+y}/{/z*}").form == compiled("a:{page}/{+p:3}/{/list*}").form
    assert compiled("a:{?x}").form != compiled("a:{?y}").form
    assert compiled("a:{x}").form != compiled("a:{+x}").form


def test_every_expansion_fits() -> None:
    dice = random.Random(7)
    for _ in range(3000):
        template, values = _template(dice)
        uri = expansion(template, values)
        assert compiled("".join(template)).wrong == ""
        assert fits("".join(template), uri), (template, values, uri)


def test_it_says_what_a_plain_search_says() -> None:
    """The places against the obvious way that goes back, on all short URIs of three characters."""
    dice = random.Random(3)
    for _ in range(300):
        parts = [
            dice.choice(["{a}", "{+a}", "{/a}", "{/a*}", "{?a}", "a", "/", "ab"]) for _ in range(dice.randrange(1, 5))
        ]
        template = compiled("".join(parts))
        for _ in range(40):
            uri = "".join(dice.choice("ab/?") for _ in range(dice.randrange(6)))
            assert template.fits(Marks(uri)) is _searched(parts, uri), (parts, uri)


def test_hostile_templates_and_uris_are_answered() -> None:
    uri = "x:" + "x" * 65_536
    marks = Marks(uri)
    many = "{a}x" * MOST_EXPRESSIONS
    for text in ("x:" + many, "x:{+a}" + "x" * 4000 + "{b}", "x:" + "{a}{+b}" * 50 + "x"):
        assert compiled(text).fits(marks)
        assert not compiled(text + "y").fits(marks)
    for text in (
        "{a}" * 2700,
        "{a}x" * (MOST_EXPRESSIONS + 1),
        "x" * (LONGEST + 1),
        "{" * 8000,
        "}" * 8000,
        "{a" * 4000,
    ):
        assert compiled(text).wrong


def _template(dice: random.Random) -> tuple[list[str], dict[str, Value]]:
    parts, values = [], {}
    texts = ["", "a", "a b", "\u00e9/x?#", "100%", "a,b;c=d&e", "..", "+", "\U0001f600"]
    for _ in range(dice.randrange(1, 5)):
        parts.append(dice.choice(["", "a", "x:", "//", "/b/", "?q=1", "%20", "\u00e9", "a b", "~"]))
        specs = []
        for _ in range(dice.randrange(1, 4)):
            name = f"v{len(values)}"
            many = [dice.choice(texts) for _ in range(dice.randrange(3))]
            values[name] = dice.choice(
                [None, dice.choice(texts), many, {f"k {at}": one for at, one in enumerate(many)}]
            )
            specs.append(name + dice.choice(["", "", "*", ":2"]))
        parts.append("{" + dice.choice(list(LEVELS)) + ",".join(specs) + "}")
    return parts, values


def expansion(template: list[str], values: dict[str, Value]) -> str:
    """By the algorithm of RFC 6570, section 3.2.1; `template` is literal and expression by turns."""
    return "".join(
        _expanded(part[1:-1], values) if part.startswith("{") else quote(part, safe=RESERVED + "%~")
        for part in template
    )


def _expanded(expression: str, values: dict[str, Value]) -> str:
    operator = expression[0] if expression[0] in LEVELS else ""
    first, between, named, empty, safe = LEVELS[operator]
    shown = []
    for spec in expression[len(operator) :].split(","):
        name, _, cut = spec.rstrip("*").partition(":")
        value = values[name]
        if value is None or value in ([], {}):
            continue
        shown.append(_shown(name, value, (spec.endswith("*"), cut, between, named, empty, safe)))
    return first + between.join(shown) if shown else ""


def _shown(name: str, value: Value, how: tuple[bool, str, str, bool, str, str]) -> str:
    explode, cut, between, named, empty, safe = how

    def encoded(text: str) -> str:
        return quote(text, safe=safe + "~")

    if isinstance(value, str):
        text = encoded(value[: int(cut)] if cut else value)
        return text if not named else name + (f"={text}" if text else empty)
    assert value is not None
    pairs = [(key, one) for key, one in value.items()] if isinstance(value, dict) else [(name, one) for one in value]
    keyed = isinstance(value, dict) or named
    if explode:
        if not keyed:
            return between.join(encoded(one) for _, one in pairs)
        bare = empty if named else "="
        return between.join(encoded(key) + (f"={encoded(one)}" if one else bare) for key, one in pairs)
    flat = [encoded(text) for pair in pairs for text in (pair if isinstance(value, dict) else pair[1:])]
    return f"{name}={','.join(flat)}" if named else ",".join(flat)


def _searched(parts: list[str], uri: str) -> bool:
    """Every way to cut the URI, tried one after the other."""
    if not parts:
        return uri == ""
    if parts[0] not in RUNS:
        return uri.startswith(parts[0]) and _searched(parts[1:], uri[len(parts[0]) :])
    lead, enders = RUNS[parts[0]]
    if _searched(parts[1:], uri):
        return True
    if not uri.startswith(lead):
        return False
    for end in range(len(lead), len(uri) + 1):
        if any(one in enders for one in uri[len(lead) : end]):
            return False
        if _searched(parts[1:], uri[end:]):
            return True
    return False
