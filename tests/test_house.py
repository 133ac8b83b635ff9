"""The house rules that a linter does not know: floors, cycles, lengths, names.

Everything is read from the syntax trees, so a rule holds for code that no test imports.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CODE = ROOT / "fastgw"
FLOORS = [
    {"cli"},
    {"processes"},
    {"admin"},
    {"gateway"},
    {"upstream"},
    {"auth", "credentials", "limits", "usage", "telemetry"},
    {"snapshot"},
    {"config"},
    {"catalog", "policy"},
    {"protocol"},
    {"errors"},
]
LEVEL = {name: height for height, floor in enumerate(reversed(FLOORS)) for name in floor}
NEIGHBOURS = {("catalog", "policy")}  # the only imports between packages of one floor
OUTSIDE = {"demo"}  # stands beside the gateway: imports none of it, is imported by none of it
ROOTS = {"__main__"}  # may import anything
PURE = {"catalog", "policy", "protocol", "errors"}
IMPURE = {"asyncio", "logging", "random", "secrets", "time", "socket", "threading", "subprocess"}
BANNED_NAMES = {"utils", "util", "common", "helpers", "helper", "base", "manager", "managers", "core", "misc"}
FUNCTION_LINES, FILE_LINES, DECORATED = 60, 600, (ast.FunctionDef, ast.AsyncFunctionDef)
SHORTEST_FILE = 40
UNFINISHED = re.compile(r"#\s*(TODO|FIXME|XXX|HACK)\b")

SOURCES = sorted(CODE.rglob("*.py"))
TEXTS = [*SOURCES, *sorted(file for file in (ROOT / "tests").rglob("*.py") if file != Path(__file__))]


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def module(file: Path) -> str:
    """`fastgw/protocol/names.py` is `fastgw.protocol.names`, a package is its own name."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(file): file for file in SOURCES}


def package(name: str) -> str:
    """`fastgw.protocol.names` lies in `protocol`, `fastgw.errors` in `errors`."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports(file: Path) -> Iterator[tuple[str, int]]:
    """Modules of ours that a file imports anywhere in it, with the line."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names if alias.name.split(".")[0] == "fastgw")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "fastgw":
            for alias in node.names:
                deeper = f"{node.module}.{alias.name}"
                yield (deeper if deeper in MODULES else str(node.module), node.lineno)


def allowed(importer: str, imported: str) -> bool:
    """Whether a module of package `importer` may import one of package `imported`."""
    if importer == imported or importer in ROOTS or imported == "":
        return True
    if importer in OUTSIDE or imported in OUTSIDE:
        return False
    below = LEVEL[imported] < LEVEL[importer]
    return below or (importer, imported) in NEIGHBOURS


def test_no_class_name_stands_twice() -> None:
    found: dict[str, list[str]] = {}
    for name, file in MODULES.items():
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(name)
    assert {name: places for name, places in found.items() if len(places) > 1} == {}


def test_no_file_is_a_crumb() -> None:
    """What has fewer lines belongs to a neighbour, unless it is a package's face."""
    lines = {file: file.read_text(encoding="utf-8").count("\n") for file in SOURCES if not file.name.startswith("__")}
    assert [str(file.relative_to(ROOT)) for file, count in lines.items() if count < SHORTEST_FILE] == []


def test_every_package_has_a_floor() -> None:
    found = {package(name) for name in MODULES} - {""}
    assert found <= set(LEVEL) | OUTSIDE | ROOTS


def test_imports_go_down() -> None:
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {imported}"
        for name, file in MODULES.items()
        for imported, line in imports(file)
        if not allowed(package(name), package(imported))
    ]
    assert wrong == []


def test_the_law_of_the_floors_itself() -> None:
    assert allowed("cli", "protocol")
    assert allowed("catalog", "policy")
    assert not allowed("policy", "catalog")
    assert not allowed("protocol", "config")
    assert not allowed("limits", "usage")
    assert not allowed("cli", "demo")
    assert not allowed("demo", "protocol")


def test_no_cycles() -> None:
    graph = {name: {imported for imported, _ in imports(file)} for name, file in MODULES.items()}
    assert cycle(graph) is None


def test_a_cycle_is_found() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


def cycle(graph: dict[str, set[str]]) -> list[str] | None:
    """A path that returns to its beginning, or None."""
    finished: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str] | None:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in finished:
            return None
        for following in sorted(graph.get(name, ())):
            if found := walk(following, [*path, name]):
                return found
        finished.add(name)
        return None

    return next((found for name in sorted(graph) if (found := walk(name, []))), None)


def test_the_lower_floors_wait_for_nothing() -> None:
    """No await, no clock, no dice, no log in what only decides."""
    wrong = []
    for name, file in MODULES.items():
        if package(name) in PURE:
            wrong += [f"{file.relative_to(ROOT)}:{line} {what}" for what, line in waits(file)]
    assert wrong == []


def waits(file: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith | ast.AsyncFunctionDef):
            yield type(node).__name__, node.lineno
        elif isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names if alias.name.split(".")[0] in IMPURE)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in IMPURE:
            yield str(node.module), node.lineno


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_it_fits_on_a_screen_and_says_what_it_is(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").count("\n")
    assert lines <= FILE_LINES
    long = [
        f"{node.name} has {(node.end_lineno or 0) - node.lineno + 1} lines"
        for node in ast.walk(tree(file))
        if isinstance(node, DECORATED) and (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES
    ]
    assert long == []
    assert not lines or ast.get_docstring(tree(file)), "no module docstring"


def test_files_are_nouns_of_the_field() -> None:
    assert [str(file) for file in SOURCES if {file.stem, file.parent.name} & BANNED_NAMES] == []


def test_nothing_is_left_for_later() -> None:
    wrong = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in TEXTS
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    assert wrong == []


def test_locked_lists_have_hashes_and_no_address() -> None:
    for file in sorted((ROOT / "requirements").glob("*.txt")):
        text = file.read_text(encoding="utf-8")
        entries = re.findall(r"(?m)^[a-zA-Z0-9].*(?:\n    .*)*", text)
        assert entries, file.name
        assert [entry for entry in entries if "--hash=sha256:" not in entry] == [], file.name
        assert re.findall(r"://|--(?:extra-)?index-url|--find-links|-e |file:", text) == [], file.name
