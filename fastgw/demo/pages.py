"""This project's own pages, cut into sections by their Markdown headings, in a full-text index."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from typing_extensions import TypedDict

INDEX = "create virtual table sections using fts5(page, heading, body, tokenize='porter unicode61')"
SEARCH = """select page, heading, snippet(sections, 2, '', '', ' … ', 40) as excerpt from sections
            where sections match ? order by bm25(sections, 1.0, 4.0, 1.0), rowid limit ?"""
DESCRIPTION_LIMIT = 200  # characters


@dataclass(frozen=True, slots=True)
class ProjectPage:
    """One page as readers know it.

    Args:
        key: its file's name without the ending, in small letters: `readme`, `errors`.
        title: its first heading.
        description: its first paragraph, shortened.
        text: all of it, Markdown.
        sections: heading as a key (`two-commands`) -> the section, its heading included.
    """

    key: str
    title: str
    description: str
    text: str
    sections: dict[str, str]


class Found(TypedDict):
    """One section that fits."""

    page: str
    heading: str
    excerpt: str


def files() -> list[Path]:
    """README.md and docs/*.md, in the order of their names."""
    packed = Path(__file__).parent / "pages"  # where an installed package keeps them
    home = packed if packed.is_dir() else Path(__file__).resolve().parent.parent.parent
    return [file for file in (home / "README.md", *sorted((home / "docs").glob("*.md"))) if file.is_file()]


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """Heading and body of each."""
    for part in re.split(r"(?m)^(?=#{1,6} )", text):
        head, _, body = part.partition("\n")
        if part.strip():
            yield head.lstrip("# ").strip(), body.strip()


@cache
def pages() -> dict[str, ProjectPage]:
    """Every page by its key, read once."""
    found = {}
    for file in files():
        key, text = file.stem.lower(), file.read_text(encoding="utf-8")
        sections = list(_sections(text))
        title, first = sections[0] if sections else (key, "")
        description = " ".join(first.split("\n\n")[0].split())[:DESCRIPTION_LIMIT]
        by_heading: dict[str, str] = {}
        for heading, body in sections:
            by_heading.setdefault(re.sub(r"\W+", "-", heading.lower()).strip("-"), f"# {heading}\n\n{body}\n")
        found[key] = ProjectPage(key, title, description, text, by_heading)
    return found


def build(file: Path) -> Path:
    """Write the index afresh and return its path."""
    file.unlink(missing_ok=True)
    with closing(sqlite3.connect(file)) as index, index:
        index.execute(INDEX)
        for page in files():
            rows = [(page.name, *section) for section in _sections(page.read_text(encoding="utf-8"))]
            index.executemany("insert into sections values (?, ?, ?)", rows)
    return file


def search(file: Path, words: str, limit: int) -> list[Found]:
    """The sections with all of the words, the best first; with any of them where none has all."""
    terms = [f'"{term}"' for term in re.findall(r"\w+", words)]
    with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as index:
        for joined in (" AND ".join(terms), " OR ".join(terms)):
            rows = index.execute(SEARCH, (joined, limit)).fetchall() if terms else []
            if rows:
                return [{"page": page, "heading": heading, "excerpt": excerpt} for page, heading, excerpt in rows]
    return []
