"""The project's pages as readers get them."""

from __future__ import annotations

from fastgw.demo.pages import files, pages


def test_every_file_is_a_page_with_a_title_and_what_it_is_about() -> None:
    assert list(pages()) == [file.stem.lower() for file in files()]
    assert "readme" in pages()
    for page in pages().values():
        assert page.title
        assert page.description
        assert "\n" not in page.description
        assert len(page.description) <= 200


def test_sections_go_by_their_headings() -> None:
    readme = pages()["readme"]
    assert {"fastgw", "two-commands", "what-you-should-see"} <= set(readme.sections)
    assert readme.sections["two-commands"].startswith("# Two commands\n\nOn a machine with Python")


def test_the_sections_of_a_page_are_all_of_it() -> None:
    for page in pages().values():
        lines = {line for section in page.sections.values() for line in section.splitlines()}
        assert {line for line in page.text.splitlines() if not line.startswith("#")} <= lines
