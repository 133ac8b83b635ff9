"""YAML text as a tree of entries: the core schema of YAML 1.2 with anchors and merge keys."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.reader import Reader

from fastgw.config.tree import ConfigError, ConfigProblem, Number, Position, Scalar, YamlEntry

DEEPEST = 64
"""Levels of nesting; our own form needs 8."""
HEAVIEST = 100_000
"""Values in one file with aliases written out: what an alias bomb runs into."""

CORE = "tag:yaml.org,2002:"
SCALARS: dict[str, tuple[re.Pattern[str], Callable[[str], Scalar]]] = {
    f"{CORE}null": (re.compile(r"~|null|Null|NULL|"), lambda _: None),
    f"{CORE}bool": (re.compile(r"true|True|TRUE|false|False|FALSE"), lambda text: text.lower() == "true"),
    f"{CORE}int": (re.compile(r"[-+]?(0|[1-9][0-9]{0,17})"), int),
    f"{CORE}float": (re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), Number),
    f"{CORE}merge": (re.compile("<<"), str),
    f"{CORE}str": (re.compile(".*", re.DOTALL), str),
}
"""By tag: what a plain scalar of it looks like, and its value; the first that fits."""

# The parser of libyaml is fast; its composer would overflow the stack where nesting is deep.
_BASES: tuple[Any, ...] = (Composer, yaml.CSafeLoader) if yaml.__with_libyaml__ else (yaml.SafeLoader,)


class YamlLoader(*_BASES):  # type: ignore[misc]
    """PyYAML's loader, which knows scalars of YAML 1.1 (`no` is False), with those of YAML 1.2."""

    def __init__(self, text: str) -> None:
        _BASES[-1].__init__(self, text)
        self.anchors: dict[str, yaml.Node] = {}

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        """The tag of a node that has none."""
        if kind is yaml.ScalarNode and implicit[0]:
            return next(tag for tag, (pattern, _) in SCALARS.items() if pattern.fullmatch(value))
        return str(super().resolve(kind, value, implicit))


def compose(text: str, file: str) -> YamlEntry:
    """The one document of `text`, a whole file without a byte order mark.

    Raises:
        ConfigError: no YAML, no or more than one document, a duplicate key, nesting or aliases beyond the bounds.
    """
    top = Position(file, 1, 1)
    if found := Reader.NON_PRINTABLE.search(text):
        before = text[: found.start()]
        place = Position(file, before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise ConfigError(ConfigProblem(place, f"character U+{ord(found[0]):04X} is not allowed"))
    try:
        node = YamlLoader(text).get_single_node()
        root = _Entries(file).entry(node) if node is not None else None
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_syntax(error, text, file)) from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ConfigError(ConfigProblem(top, "is not YAML, or nested too deep")) from None
    if root is None or root.content is None:
        raise ConfigError(ConfigProblem(top, "the file is empty"))
    return root


def _syntax(error: yaml.MarkedYAMLError, text: str, file: str) -> ConfigProblem:
    mark = error.problem_mark or error.context_mark
    if mark and mark.index >= len(text.rstrip()):
        mark = error.context_mark or mark  # what the end of the file finds open is shown where it was opened
    place = Position(file, mark.line + 1, mark.column + 1) if mark else Position(file, 1, 1)
    if "".join(text.split("\n")[place.line - 1 : place.line]).lstrip(" ").startswith("\t"):
        return ConfigProblem(place, "a tab cannot indent: use spaces")
    return ConfigProblem(place, "not YAML: " + ", ".join(filter(None, (error.context, error.problem))))


@dataclass(slots=True)
class _Entries:
    """Makes the entries of a file from PyYAML's nodes; `left` is how many more there may be."""

    file: str
    left: int = HEAVIEST

    def entry(self, node: yaml.Node, key: Position | None = None, depth: int = 0) -> YamlEntry:
        self.left -= 1
        if self.left < 0:
            raise self._refused(node, f"more than {HEAVIEST} values, aliases written out")
        if depth > DEEPEST:
            raise self._refused(node, f"nested more than {DEEPEST} levels deep")
        if isinstance(node, yaml.ScalarNode) and node.tag in SCALARS:
            pattern, value = SCALARS[node.tag]
            if pattern.fullmatch(node.value):
                return YamlEntry(self._place(node), value(node.value), key, node.value)
        elif isinstance(node, yaml.SequenceNode) and node.tag == f"{CORE}seq":
            return YamlEntry(self._place(node), [self.entry(one, None, depth + 1) for one in node.value], key)
        elif isinstance(node, yaml.MappingNode) and node.tag == f"{CORE}map":
            pairs = self._pairs(node).items()
            content = {name: self.entry(one, self._place(where), depth + 1) for name, (where, one) in pairs}
            return YamlEntry(self._place(node), content, key)
        raise self._refused(node, f"the tag {node.tag} is not supported")

    def _pairs(self, node: yaml.MappingNode) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Key and value by name; what `<<` names stands behind the map's own, of several maps the first wins."""
        own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            if key.tag == f"{CORE}merge":
                for one in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if not isinstance(one, yaml.MappingNode):
                        raise self._refused(key, "<< takes a map or a list of maps")
                    merged = self._pairs(one) | merged
            elif not isinstance(key, yaml.ScalarNode):
                raise self._refused(key, "a key must be text")
            elif key.value in own:
                first = self._place(own[key.value][0])
                raise self._refused(key, f'"{key.value}" stands twice; first at {first}')
            else:
                own[key.value] = (key, value)
        return merged | own

    def _place(self, node: yaml.Node) -> Position:
        return Position(self.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def _refused(self, node: yaml.Node, message: str) -> ConfigError:
        return ConfigError(ConfigProblem(self._place(node), message))
