"""URI templates read backwards: what a simple one expands to fits it, and none costs more than its length."""

from __future__ import annotations

import random
import re
import time
from urllib.parse import quote

import pytest

from fastgw.catalog.uris import LONGEST_TEMPLATE, backwards
from fastgw.policy.uris import LONGEST

Value = str | list[str] | dict[str, str] | None
RESERVED = ":/?#[]@!$&'()*+,;="
LEVELS = {
    "": ("", ",", False, "", ""), "+": ("", ",", False, "", RESERVED), "/": ("/", "/", False, "", ""),
    "?": ("?", "&", True, "=", ""), "&": ("&", "&", True, "=", ""),
}  # fmt: skip
"""Operator to what begins and separates, whether names show, what an empty value shows, what is not encoded: RFC 6570,
appendix A."""
RUNS = {"{a}": ("", "/?#"), "{+a}": ("", ""), "{/a}": ("/", "/?#"), "{/a*}": ("/", "?#"), "{?a}": ("?", "#")}
"""Expressions to what begins them and what ends them."""


def fits(template: str, uri: str) -> bool:
    found = backwards(template)
    assert found is not None, template
    return re.fullmatch(found, uri) is not None


@pytest.mark.parametrize(
    ("template", "uris", "others"),
    [
        ("help://{page}", ["help://a", "help://", "help://a%2Fb", "help://a b"], ["help://a/b", "help://a?b", "halp://a"]),
        ("t://template/{id}/data", ["t://template/1/data"], ["t://template/1/2/data", "t://template/1/dat"]),
        ("f:///{+path}/{name}", ["f:///a/b/c", "f:////"], ["f:///a"]),
        ("f:///{+path}/meta", ["f:///a/b/meta", "f:///a/meta/meta"], ["f:///meta", "f:///a/meta/x"]),
        ("f:{a}x{b}", ["f:x", "f:xx", "f:axbxc"], ["f:", "f:a/x"]),
        ("f:{a}x{b}y/z", ["f:xxyy/z", "f:xyxy/z"], ["f:xyz", "f:x/y/z"]),
        ("f:{a}x{+b}", ["f:x", "f:axx/y"], ["f:", "f:a/x"]),
        ("s:q{?a,b}", ["s:q", "s:q?a=1&b=2", "s:q?b=/"], ["s:qa", "s:q?a#f"]),
        ("s:q?z=1{&a}", ["s:q?z=1", "s:q?z=1&a=2"], ["s:q?z=12"]),
        ("a:{/x,y}", ["a:", "a:/1", "a:/1/2"], ["a:/1/2/3", "a:1"]),
        ("a:{b}{/x*}{?q}", ["a:", "a:b/1/2/3", "a:/1?q=/"], ["a:1#"]),
        ("n://caf\u00e9/{x}", ["n://caf\u00e9/1", "n://caf%C3%A9/1"], ["n://cafe/1"]),
        ("n://a b", ["n://a b", "n://a%20b"], ["n://ab"]),
        ("a:100%/{x:3}.{y*}", ["a:100%/1.2", "a:100%/."], ["a:100%25/1.2"]),
        ("a:b", ["a:b"], ["a:bc", "a:"]),
    ],
)  # fmt: skip
def test_what_fits(template: str, uris: list[str], others: list[str]) -> None:
    assert [uri for uri in uris if not fits(template, uri)] == []
    assert [uri for uri in others if fits(template, uri)] == []


@pytest.mark.parametrize(
    "text",
    ["x:{", "x:}", "x:{a", "x:a}", "x:{{a}}", "x:{}", "x:{=a}", "x:{a b}", "x:{a:0}", "x:{a,}", "x:{+}", "{x}", "{+x}",
     "{s}://x", "a{x}:b", "1:{x}", "", "x:{#a}", "x:{.a}", "x:{;a}", "x:{?a}b", "x:{/a}/b", "x:{/a}{b}", "x:{?a}{/b}",
     "x:{+a}b", "x:{+a}{b}", "x:{+a}/{+b}", "x:" + "y" * LONGEST_TEMPLATE],
)  # fmt: skip
def test_what_is_not_simple_is_left_alone(text: str) -> None:
    assert backwards(text) is None


def test_names_of_variables_do_not_show() -> None:
    assert backwards("a:{x}/{+y}{/z*}") == backwards("a:{page}/{+p:3}{/list*}")
    assert backwards("a:{x}") != backwards("a:{+x}")


def test_every_expansion_fits() -> None:
    dice = random.Random(7)
    simple = 0
    for _ in range(6000):
        template, values = _template(dice)
        text = "".join(template)
        if backwards(text) is not None:
            simple += 1
            uri = expansion(template, values)
            assert fits(text, uri), (template, values, uri)
            assert fits(text, re.sub("[{}]", "", text)), "by which `Uris` finds one that is wider than another"
    assert simple > 600


def test_it_says_what_a_plain_search_says() -> None:
    """The expression against the obvious way that goes back, on short URIs."""
    dice = random.Random(3)
    simple = 0
    for _ in range(800):
        parts = ["x:", *(dice.choice([*RUNS, "{a}", "a", "/", "ab", "/b"]) for _ in range(dice.randrange(1, 6)))]
        if backwards("".join(parts)) is None:
            continue
        simple += 1
        for _ in range(60):
            uri = "x:" + "".join(dice.choice("aab/?") for _ in range(dice.randrange(7)))
            assert fits("".join(parts), uri) is _searched(parts, uri), (parts, uri)
    assert simple > 100


def test_hostile_templates_and_uris_are_answered() -> None:
    """Each would take an expression that goes back without need longer than the sun has left."""
    texts = ["x:" + "{a}x" * 120, "x:" + "{a}" * 160, "x:{+a}/" + "{b}/" * 120, "x:{+a}/" + "{b}x" * 100,
             "x:{a}" + "{/b*}" * 90, "x:{a}" + "{/b}" * 90, "x:{a}" + "{?b}{&c}" * 40, "x:{a}x{+b}/{c}x"]  # fmt: skip
    for text in texts:
        for unit in ("x", "/", "x/", "/x", "&", "?x", "a"):
            uri = "x:" + unit * (LONGEST // len(unit) - 4)
            start = time.process_time()
            assert not fits(text, uri + "#\n")
            assert time.process_time() - start < 2, (text, unit)


def _template(dice: random.Random) -> tuple[list[str], dict[str, Value]]:
    parts, values = [], {}
    texts = ["", "a", "a b", "\u00e9/x?#", "100%", "a,b;c=d&e", "..", "+", "\U0001f600"]
    for _ in range(dice.randrange(1, 5)):
        parts.append(dice.choice(["", "a", "//", "/b/", "?q=1", "%20", "\u00e9", "a b", "~"]) if parts else "x:")
        specs = []
        for _ in range(dice.randrange(1, 4)):
            name = f"v{len(values)}"
            many = [dice.choice(texts) for _ in range(dice.randrange(3))]
            values[name] = dice.choice(
                [None, dice.choice(texts), many, {f"k {at}": one for at, one in enumerate(many)}]
            )
            specs.append(name + dice.choice(["", "", "*", ":2"]))
        parts.append("{" + dice.choice(["", "", *LEVELS]) + ",".join(specs) + "}")
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
