"""How much work a JSON Schema can make: counted before anything is validated, so that no schema can stall a worker.

The validator follows references wherever they lead, so thirty lines can ask for a billion evaluations, and a thousand
links before `unevaluatedProperties` overflow its stack. One unit here is about 25 ns (jsonschema-rs 0.60 on one core).
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from urllib.parse import unquote

DEEPEST = 64
"""Levels of nesting of a value, and links of references or combinations that look at one value."""
MOST_SCHEMAS = 5_000
MOST_UNROLLED = 2_000
"""Subschemas below an `unevaluated...`: these are written out by the validator, once for each way that leads there."""
MOST_STATES = 100_000
"""Of all patterns together: what compiling them costs."""
BUDGET = 4_000_000
"""Units for one value: at most a tenth of a second or two."""

_SAME = ("not", "if", "then", "else", "allOf", "anyOf", "oneOf")
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_INSIDE = ("contains", "propertyNames", "unevaluatedItems", "unevaluatedProperties")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_COUNTED = re.compile(r"\{\s*(\d{1,6})?\s*,?\s*(\d{1,6})?\s*\}")

Schema = dict[str, Any]


class UnusableSchema(ValueError):
    """A schema that nothing can be validated against; the message says why, in plain words."""


class _Place(NamedTuple):
    """One subschema: its own units for a value, and for a byte of text; those that look at the `same` value; of those
    that look inside, `groups` of which at most one looks at any one value; how many look at one value, along the
    longest chain of `links` and over all `ways`.
    """

    own: tuple[float, float]
    same: list[int]
    groups: list[list[int]]
    links: int
    ways: int


def effort(root: object) -> tuple[list[float], list[float]]:
    """The most work, for each value and for each byte of text, that values at each depth can make; depths beyond the
    last make no more than those before.

    Raises:
        UnusableSchema: beyond the bounds; a reference to anything outside the schema, or to nothing; one that leads
            back to itself without looking inside a value.
    """
    if not isinstance(root, dict):
        return [1.0], [0.0]
    reader = _Reader(root)
    while reader.waiting:
        reader.visit(reader.waiting.pop(), frozenset())
    if reader.unrolled > MOST_UNROLLED:
        raise UnusableSchema("too much lies under unevaluatedItems or unevaluatedProperties")
    if sum(place.own[1] for place in reader.places.values()) * 8 > MOST_STATES:
        raise UnusableSchema("its patterns are too large")
    return _by_depth(reader.places, id(root), 0), _by_depth(reader.places, id(root), 1)


class _Reader:
    """The subschemas that can be reached; whoever looks at the same value as another stands after it."""

    def __init__(self, root: Schema) -> None:
        self.root = root
        self.id = "id" if "draft-04" in str(root.get("$schema")) else "$id"
        self.places: dict[int, _Place] = {}
        self.waiting = [root]
        self.unrolled = 0

    def visit(self, node: Schema, above: frozenset[int]) -> int:
        """Enter all that look at the same value as `node`, then `node`; leave those that look inside in `waiting`."""
        key = id(node)
        if key in self.places:
            return key
        if key in above:
            raise UnusableSchema("it refers to itself without end")
        if len(self.places) > MOST_SCHEMAS:
            raise UnusableSchema("it is too large")
        self._refuse_base(node)
        same = [found for word in _SAME for found in _each(node.get(word))]
        same += [*_named(node.get("dependentSchemas")), *_named(node.get("dependencies"))]
        same += _each([self._resolved(node[word]) for word in _REFERENCES if isinstance(node.get(word), str)])
        below = [self.visit(one, above | {key}) for one in same] if len(above) < DEEPEST else []
        links = 1 + max((self.places[one].links for one in below), default=0)
        if links > DEEPEST or len(above) >= DEEPEST:
            raise UnusableSchema(f"more than {DEEPEST} links on one value")
        ways = 1 + sum(self.places[one].ways for one in below)
        self.unrolled += ways if "unevaluatedItems" in node or "unevaluatedProperties" in node else 0
        groups = _groups(node)
        self.waiting.extend(one for group in groups for one in group)
        self.places[key] = _Place(_own(node), below, [[id(one) for one in group] for group in groups], links, ways)
        return key

    def _resolved(self, reference: str) -> Any:
        if not reference.startswith("#"):
            raise UnusableSchema("it refers to a schema outside itself")
        pointer = unquote(reference[1:])
        found: Any = self.root
        if pointer and not pointer.startswith("/"):
            raise UnusableSchema("it refers by an anchor, which is not followed")
        try:
            for step in pointer.split("/")[1:]:
                name = step.replace("~1", "/").replace("~0", "~")
                found = found[int(name) if isinstance(found, list) and name.isdecimal() else name]
                self._refuse_base(found)
        except (LookupError, TypeError):
            raise UnusableSchema("it refers to a part that it does not have") from None
        return found

    def _refuse_base(self, found: Any) -> None:
        """An inner schema with an id is another base for references, and not followed."""
        if found is not self.root and isinstance(found, dict) and isinstance(found.get(self.id), str):
            raise UnusableSchema("it has a schema with an id of its own inside")


def _by_depth(places: dict[int, _Place], root: int, which: int) -> list[float]:
    """Units at the root's depth, at the next one, and so on until nothing changes any more, or all is lost."""
    found: list[float] = []
    last: dict[int, float] = {}
    while len(found) <= DEEPEST and (not found or found[-1] <= BUDGET):
        now: dict[int, float] = {}
        for key, place in places.items():  # those that look at the same value stand before
            inside = sum([max([last[one] for one in group]) for group in place.groups]) if found else place.own[which]
            now[key] = inside + sum([now[one] for one in place.same])
        if now == last:
            break
        found.append(now[root])
        last = now
    return found


def _each(value: Any) -> list[Schema]:
    """The schemas of a keyword that holds one or a list of them."""
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, dict)]


def _named(value: Any) -> list[Schema]:
    return _each(list(value.values())) if isinstance(value, dict) else []


def _groups(node: Schema) -> list[list[Schema]]:
    groups = [
        [*_named(node.get("properties")), *_each(node.get("additionalProperties"))],
        [found for word in ("prefixItems", "items", "additionalItems") for found in _each(node.get(word))],
        *([one] for one in _named(node.get("patternProperties"))),
        *(_each(node.get(word)) for word in _INSIDE),
    ]
    return [group for group in groups if group]


def _own(node: Schema) -> tuple[float, float]:
    """Members of an `enum` that are no text are compared one by one; numbers are divided exactly, whatever their
    exponents; lists whose items must be unique are hashed; a byte passes eight states of a pattern in a unit.
    """
    tried = node.get("patternProperties")
    patterns = [node.get("pattern"), *(tried if isinstance(tried, dict) else ())]
    listed = node.get("enum")
    choices = [*(listed if isinstance(listed, list) else ()), *([node["const"]] if "const" in node else ())]
    units = len(patterns) + sum(8.0 if _is_short(one) else 100.0 for one in choices if not isinstance(one, str))
    units += 100.0 * sum(isinstance(node.get(word), int) and not _is_short(node[word]) for word in _BOUNDS)
    if "multipleOf" in node:
        units += 1000.0 if isinstance(node["multipleOf"], float) else 80.0
    needed = node.get("required")
    units += len(needed) / 8 if isinstance(needed, list) else 0.0
    hashed = 3.0 if node.get("uniqueItems") is True else 0.0
    return units, hashed + sum(_states(one) for one in patterns if isinstance(one, str)) / 8


def _is_short(value: Any) -> bool:
    return isinstance(value, int) and abs(value) < 2**63


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
    return min(states * times, 10_000.0)
