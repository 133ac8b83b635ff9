"""How much work a JSON Schema can make: counted before anything is validated, so that no schema can stall a worker.

The validator follows references wherever they lead, so thirty lines can ask for a billion evaluations, and a thousand
links before `unevaluatedProperties` overflow its stack. One unit here is about 25 ns (jsonschema-rs 0.60 on one core).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

DEEPEST = 64
"""Levels of nesting of a value, and links of references or combinations that look at one value."""
MOST_NODES = 5_000
MOST_REFERENCES = 2_000
MOST_UNROLLED = 2_000
"""Subschemas below an `unevaluated...`: these are written out by the validator, once for each way that leads there."""
MOST_STATES = 10_000.0
ALL_STATES = 100_000
"""Of one pattern, and of all together: what compiling them costs."""
ENOUGH = 10_000_000
"""Units for one value: nothing is validated against such a schema at this depth, so deeper ones are not counted."""
ENDLESS = 10.0**12

_SAME_ONE = ("not", "if", "then", "else")
_SAME_MANY = ("allOf", "anyOf", "oneOf")
_SAME_NAMED = ("dependentSchemas", "dependencies")
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_ALWAYS = ("contains", "propertyNames", "unevaluatedItems", "unevaluatedProperties")
_COUNTED = re.compile(r"\{\s*(\d{1,6})?\s*,?\s*(\d{1,6})?\s*\}")
_BYTES = 8
"""One unit takes this many bytes of text past one state of a pattern's machine."""
_INTEGER, _ODD = 8, 100
"""Units for one member of an `enum` that is no text: such members are compared one by one."""
_DIVIDED, _FRACTION = 80, 1_000
"""Units for dividing one number by an integer, and by a fraction: that is done exactly, whatever the exponents."""
_HASHED = 3.0
"""Units for each byte of a list whose items must be unique."""
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")

Node = dict[str, Any]
Work = tuple[float, float]
"""Units for each value, and for each byte of text."""


class TooMuch(ValueError):
    """The schema asks for too much, or for what lies outside it; the message says what."""


@dataclass(slots=True)
class _Place:
    """One subschema: its own work, those that look at the same value, and in groups those that look inside."""

    own: Work
    same: list[Node]
    groups: list[list[Node]]


@dataclass(slots=True)
class _Graph:
    root: Node
    anchors: dict[str, Node] = field(default_factory=dict)
    places: dict[int, _Place] = field(default_factory=dict)
    references: int = 0


def effort(root: object) -> tuple[Work, ...]:
    """The most work that values at each depth can make; depths beyond the last make no more than those before.

    Args:
        root: the schema, decoded.

    Raises:
        TooMuch: beyond the bounds; a reference to anything outside the schema, or to nothing; one that leads back to
            itself without looking inside a value.
    """
    if not isinstance(root, dict):
        return ((1.0, 0.0),)
    graph = _Graph(root)
    _find_anchors(graph)
    ordered = _ordered(graph)
    _check_unrolled(graph, ordered)
    if sum(place.own[1] for place in graph.places.values()) * _BYTES > ALL_STATES:
        raise TooMuch("its patterns are too large")
    return tuple(_by_depth(graph, ordered))


def _find_anchors(graph: _Graph) -> None:
    waiting: list[Any] = [graph.root]
    seen, older = 0, "draft-04" in str(graph.root.get("$schema"))
    while waiting:
        node = waiting.pop()
        seen += 1
        if seen > MOST_NODES * 10:
            raise TooMuch("it is too large")
        if isinstance(node, dict):
            for keyword in ("$anchor", "$dynamicAnchor"):
                if isinstance(node.get(keyword), str):
                    graph.anchors.setdefault(node[keyword], node)
            # Another base for references: what they lead to would have to be found by URI.
            if node is not graph.root and isinstance(node.get("id" if older else "$id"), str):
                raise TooMuch("it has a schema with an id of its own inside")
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def _ordered(graph: _Graph) -> list[Node]:
    """Every subschema that can be reached; whoever looks at the same value as another comes after it."""
    done: dict[int, int] = {}
    ordered: list[Node] = []
    waiting = [graph.root]
    while waiting:
        _finish(graph, waiting.pop(), done, ordered, waiting)
    return ordered


def _finish(graph: _Graph, start: Node, done: dict[int, int], ordered: list[Node], waiting: list[Node]) -> None:
    """Order `start` and all that look at the same value; those that look inside are left in `waiting`."""
    stack: list[tuple[Node, Iterator[Node]]] = []
    open_: set[int] = set()

    def enter(node: Node) -> None:
        if len(graph.places) > MOST_NODES or len(stack) > DEEPEST:
            raise TooMuch("it is too large" if len(stack) <= DEEPEST else f"more than {DEEPEST} links on one value")
        place = graph.places[id(node)] = _place(graph, node)
        open_.add(id(node))
        stack.append((node, iter(place.same)))

    if id(start) not in done:
        enter(start)
    while stack:
        node, rest = stack[-1]
        following = next((one for one in rest if id(one) not in done), None)
        if following is None:
            stack.pop()
            open_.discard(id(node))
            place = graph.places[id(node)]
            links = done[id(node)] = 1 + max((done[id(one)] for one in place.same), default=0)
            if links > DEEPEST:
                raise TooMuch(f"more than {DEEPEST} links on one value")
            ordered.append(node)
            waiting.extend(one for group in place.groups for one in group if id(one) not in done)
        elif id(following) in open_:
            raise TooMuch("it refers to itself without end")
        else:
            enter(following)


def _place(graph: _Graph, node: Node) -> _Place:
    same = [node[word] for word in _SAME_ONE if word in node]
    for word in _SAME_MANY:
        same.extend(_listed(node.get(word)))
    for word in _SAME_NAMED:
        same.extend(_named(node.get(word)))
    same.extend(_resolved(graph, node[word]) for word in _REFERENCES if isinstance(node.get(word), str))
    return _Place(_own(node), _schemas(same), [found for one in _groups(node) if (found := _schemas(one))])


def _groups(node: Node) -> Iterator[list[Any]]:
    """Of each group at most one looks at any one value inside."""
    members = _named(node.get("properties"))
    yield [*members, node.get("additionalProperties")]
    yield from ([one] for one in _named(node.get("patternProperties")))
    yield [
        *_listed(node.get("prefixItems")),
        *_listed(node.get("items")),
        node.get("items"),
        node.get("additionalItems"),
    ]
    yield from ([node[word]] for word in _ALWAYS if word in node)


def _named(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else []


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _schemas(values: list[Any]) -> list[Node]:
    return [value for value in values if isinstance(value, dict)]


def _own(node: Node) -> Work:
    """What the keywords of one subschema cost for one value, and for a byte of text."""
    tried = node.get("patternProperties")
    patterns = [node.get("pattern"), *(tried if isinstance(tried, dict) else ())]
    choices = [*_listed(node.get("enum")), *([node["const"]] if "const" in node else [])]
    others = [one for one in choices if not isinstance(one, str)]
    compared = sum(_INTEGER if isinstance(one, int) and abs(one) < 2**63 else _ODD for one in others)
    per_byte = sum(_states(one) for one in patterns if isinstance(one, str)) / _BYTES
    if node.get("uniqueItems") is True:
        per_byte += _HASHED
    return len(patterns) + compared + _counted(node) + len(_listed(node.get("required"))) / 8, per_byte


def _counted(node: Node) -> int:
    """What the keywords about numbers cost for one number."""
    divisor = node.get("multipleOf")
    long = sum(1 for word in _BOUNDS if isinstance(node.get(word), int) and abs(node[word]) >= 2**63)
    return _ODD * long + (_FRACTION if isinstance(divisor, float) else _DIVIDED if divisor is not None else 0)


def _states(pattern: str) -> float:
    """A guess at the states of a pattern's machine: its length and what is counted, times what counts groups."""
    states, times = len(pattern), 1
    for found in _COUNTED.finditer(pattern):
        count = max(1, int(found[2] or found[1] or 1))
        before = pattern[found.start() - 1 : found.start()]
        if before.isalnum() or before in (".", "]"):
            states += count
        else:
            times *= count
    return min(float(states * times), MOST_STATES)


def _resolved(graph: _Graph, reference: str) -> Any:
    if not reference.startswith("#"):
        raise TooMuch("it refers to a schema outside itself")
    graph.references += 1
    if graph.references > MOST_REFERENCES:
        raise TooMuch(f"more than {MOST_REFERENCES} references")
    pointer = unquote(reference[1:])
    if pointer and not pointer.startswith("/"):
        if pointer not in graph.anchors:
            raise TooMuch("it refers to an anchor that it does not have")
        return graph.anchors[pointer]
    found: Any = graph.root
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and name in found:
            found = found[name]
        elif isinstance(found, list) and name.isascii() and name.isdigit() and int(name) < len(found):
            found = found[int(name)]
        else:
            raise TooMuch("it refers to a part that it does not have")
    return found


def _check_unrolled(graph: _Graph, ordered: list[Node]) -> None:
    """The validator writes out all that an `unevaluated...` has to know of."""
    unrolled: dict[int, float] = {}
    total = 0.0
    for node in ordered:
        ways = 1 + sum(unrolled[id(one)] for one in graph.places[id(node)].same)
        unrolled[id(node)] = min(ways, ENDLESS)
        total += ways if "unevaluatedItems" in node or "unevaluatedProperties" in node else 0
    if total > MOST_UNROLLED:
        raise TooMuch("too much lies under unevaluatedItems or unevaluatedProperties")


def _by_depth(graph: _Graph, ordered: list[Node]) -> Iterator[Work]:
    """The work at the root's depth, at the next one, and so on until nothing changes any more, or all is lost."""
    number = {id(node): at for at, node in enumerate(ordered)}
    rows = [
        _Row([number[id(one)] for one in place.same], [[number[id(one)] for one in group] for group in place.groups])
        for place in (graph.places[id(node)] for node in ordered)
    ]
    root = number[id(graph.root)]
    values = _own_and_same([graph.places[id(node)].own[0] for node in ordered], rows)
    texts = _own_and_same([graph.places[id(node)].own[1] for node in ordered], rows)
    for _ in range(DEEPEST + 1):
        yield values[root], texts[root]
        if values[root] > ENOUGH:
            return
        before = values, texts
        values = _below(values, rows)
        texts = _below(texts, rows) if any(texts) else texts
        if (values, texts) == before:
            return


@dataclass(slots=True)
class _Row:
    """A place, by positions in the order."""

    same: list[int]
    groups: list[list[int]]


def _own_and_same(own: list[float], rows: list[_Row]) -> list[float]:
    """The work of each subschema with all that look at the same value; `own` is filled in place."""
    for at, row in enumerate(rows):
        if row.same:
            own[at] = min(own[at] + sum([own[one] for one in row.same]), ENDLESS)
    return own


def _below(above: list[float], rows: list[_Row]) -> list[float]:
    """The work one level deeper, of each subschema."""
    return _own_and_same([sum([max([above[one] for one in group]) for group in row.groups]) for row in rows], rows)
