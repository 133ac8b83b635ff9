"""Whose a URI is, and how agents see it."""

from __future__ import annotations

import pickle
import random
import re

import pytest

from fastgw.catalog.uris import MOST_ROUTED, Owned, ServerUris, Uris
from fastgw.policy.patterns import Patterns
from fastgw.policy.uris import LONGEST

MODES = ("none", "on_collision", "always")


def server_uris(server: str, *uris: str, templates: tuple[str, ...] = (), only: Patterns | None = None) -> ServerUris:
    return ServerUris(server, server, uris, templates, only)


def owner(uris: Uris, uri: str) -> tuple[str, str] | None:
    found = uris.owner(uri)
    return None if found is None else (found.server, found.uri)


TWO = (server_uris("a", "file:///x", "file:///a"), server_uris("b", "file:///x", "file:///b"))


def test_none_rewrites_nothing_and_the_first_keeps_a_uri() -> None:
    found = Uris("none", TWO)
    assert set(found.tables.resources) == {("a", "file:///x"), ("a", "file:///a"), ("b", "file:///b")}
    assert [str(one) for one in found.tables.notices] == ["b/file:///x: hidden: its URI is taken, and naming is none"]
    assert found.tables.notices[0].moves
    assert owner(found, "file:///x") == ("a", "file:///x")
    assert owner(found, "b+file:///x") is None
    assert found.exposed("b", "file:///x") == "file:///x"
    assert not found.rewrites("a")


def test_on_collision_moves_what_two_list_and_nothing_else() -> None:
    found = Uris("on_collision", TWO)
    assert found.tables.resources == {
        ("a", "file:///x"): "a+file:///x", ("a", "file:///a"): "file:///a",
        ("b", "file:///x"): "b+file:///x", ("b", "file:///b"): "file:///b",
    }  # fmt: skip
    assert [str(one) for one in found.tables.notices] == [
        "a/file:///x: is called a+file:///x here", "b/file:///x: is called b+file:///x here",
    ]  # fmt: skip
    assert all(one.moves for one in found.tables.notices)
    assert owner(found, "file:///x") is None
    assert owner(found, "b+file:///x") == ("b", "file:///x")


def test_what_was_moved_leads_nowhere_by_its_old_name_not_even_by_a_template() -> None:
    uris = Uris("on_collision", (server_uris("a", "help://x", templates=("help://{p}",)), server_uris("b", "help://x")))
    assert owner(uris, "help://y") == ("a", "help://y")
    assert owner(uris, "help://x") is None
    assert uris.exposed("a", "help://x") == "a+help://x"


def test_always_moves_everything_but_web_addresses() -> None:
    found = Uris(
        "always", (server_uris("a", "x:1", "ui://p", "https://e/1", "HTTP://e"), server_uris("b", "https://e/1"))
    )
    assert list(found.tables.resources.values()) == ["a+x:1", "ui://a/p", "https://e/1", "HTTP://e"]
    assert owner(found, "x:1") is None
    assert owner(found, "ui://a/p") == ("a", "ui://p")
    assert owner(found, "https://e/1") == ("a", "https://e/1")
    assert (
        str(found.tables.notices[0]) == "b/https://e/1: hidden: its URI is taken, and web addresses are never renamed"
    )
    assert found.exposed("b", "https://e/2") == "https://e/2"


def test_an_alias_leads_to_its_server_whatever_is_listed() -> None:
    uris = Uris("on_collision", TWO)
    assert owner(uris, "b+new:thing") == ("b", "new:thing")
    assert owner(uris, "ui://b/page") == ("b", "ui://page")
    assert owner(uris, "UI://b/page") == ("b", "UI://page")
    for uri in ("b+", "ui://b/", "ui://b", "c+x:1", "+x:1", "B+x:1"):
        assert owner(uris, uri) is None


def test_a_link_that_would_not_lead_back_is_shown_with_its_alias() -> None:
    uris = Uris("on_collision", (server_uris("a", "x:1", templates=("help://{page}",)), server_uris("b", "y:1")))
    assert uris.exposed("a", "help://intro") == "help://intro"
    assert uris.exposed("b", "help://intro") == "b+help://intro"
    assert uris.exposed("b", "x:1") == "b+x:1"
    assert uris.exposed("b", "ui://p") == "ui://b/p"
    assert uris.exposed("nobody", "x:1") == "x:1"
    assert uris.exposed("b", "a\nb") == "a\nb"


def test_templates_route_in_order_and_only_with_a_scheme_of_their_own() -> None:
    shelves = (
        server_uris("a", templates=("{+any}", "{scheme}://x", "help://{page}")),
        server_uris("b", "help://intro", templates=("help://{+path}", "t://{x}", "help://{name}.txt")),
        server_uris("c", templates=("t://{y}",)),
    )
    found = Uris("on_collision", shelves)
    assert found.tables.templates == {
        ("a", "{+any}"): "a+{+any}", ("a", "{scheme}://x"): "a+{scheme}://x", ("a", "help://{page}"): "help://{page}",
        ("b", "help://{+path}"): "b+help://{+path}", ("b", "t://{x}"): "b+t://{x}", ("c", "t://{y}"): "c+t://{y}",
        ("b", "help://{name}.txt"): "b+help://{name}.txt",
    }  # fmt: skip
    assert owner(found, "help://intro") == ("b", "help://intro")
    assert owner(found, "help://other") == ("a", "help://other")
    assert owner(found, "help://a/b") is None
    assert owner(Uris("none", shelves), "help://a/b") == ("b", "help://a/b")
    assert owner(Uris("none", shelves), "help://other") == ("a", "help://other")
    assert owner(found, "t://1") is None
    assert owner(found, "c+t://1") == ("c", "t://1")
    assert owner(found, "q:anything") is None
    assert owner(found, "a+q:anything") == ("a", "q:anything")


@pytest.mark.parametrize("mode", MODES)
def test_the_text_of_a_template_leads_to_its_server(mode: str) -> None:
    texts = ("s://q{?a,b}", "f://{+path}{?at}", "p:{/x*}", "t://{x}")
    found = Uris(mode, (server_uris("a", templates=texts), server_uris("b", templates=("t://{x}", "o:{/p}"))))
    assert len(found.tables.templates) == (5 if mode == "none" else 6)
    for own, shown in found.tables.templates.items():
        assert owner(found, shown) == own
        assert found.exposed(*own) == shown


def test_without_aliases_a_template_for_everything_is_hidden() -> None:
    found = Uris(
        "none", (server_uris("a", templates=("{+any}", "t://{x}")), server_uris("b", templates=("t://{y}", "bad{")))
    )
    assert found.tables.templates == {("a", "t://{x}"): "t://{x}"}
    assert sorted(str(one) for one in found.tables.notices) == [
        "a/{+any}: hidden: it leads nowhere without an alias",
        "b/bad{: hidden: it leads nowhere without an alias",
        "b/t://{y}: hidden: its URI is taken, and naming is none",
    ]


def test_the_only_server_with_resources_gets_the_rest() -> None:
    one = (server_uris("a", "x:1", templates=("{+any}",)),)
    for mode in ("none", "on_collision"):
        found = Uris(mode, one)
        assert found.tables.templates == {("a", "{+any}"): "{+any}"}
        assert owner(found, "q:new") == ("a", "q:new")
        assert found.exposed("a", "q:new") == "q:new"
    assert owner(Uris("always", one), "q:new") is None
    assert Uris("always", one).exposed("a", "q:new") == "a+q:new"
    assert owner(Uris("always", one), "https://e") == ("a", "https://e")


def test_what_is_no_uri_is_nobodys() -> None:
    found = Uris("on_collision", (server_uris("a", "", "x:\n", "x:" + "y" * LONGEST, "x:" + "y" * (LONGEST - 2)),))
    assert [len(uri) for _, uri in found.tables.resources] == [LONGEST]
    assert len(found.tables.notices) == 3
    assert all(len(str(one)) < 200 for one in found.tables.notices)
    for uri in ("", "x:\x7f", "x:" + "y" * LONGEST, "a+x:" + "y" * LONGEST, "a+\x00"):
        assert owner(found, uri) is None
    longest = "x:" + "z" * (LONGEST - 2)
    assert owner(found, "a+" + longest) == ("a", longest)


def test_a_servers_filter_holds_for_what_it_does_not_list_too() -> None:
    only = Patterns(["file:///pub/*", "file:///{+path}"])
    shelves = (
        server_uris("a", "file:///pub/1", "file:///etc/1", templates=("file:///{+path}",), only=only),
        server_uris("b", "y:1"),
    )
    found = Uris("on_collision", shelves)
    assert set(found.tables.resources) == {("a", "file:///pub/1"), ("b", "y:1")}
    assert owner(found, "file:///pub/2") == ("a", "file:///pub/2")
    for uri in ("file:///etc/1", "a+file:///etc/1", "file:///pub/../etc/1", "a+file:///pub/%2e%2e/etc/1"):
        assert owner(found, uri) is None
    alone = Uris("on_collision", shelves[:1])
    assert owner(alone, "file:///pub/2") == ("a", "file:///pub/2")
    assert owner(alone, "file:///etc/2") is None


def test_what_a_servers_filter_leaves_out_collides_with_nothing() -> None:
    found = Uris("on_collision", (server_uris("a", "x:1", only=Patterns(["y:*"])), server_uris("b", "x:1")))
    assert found.tables.resources == {("b", "x:1"): "x:1"}


def test_an_endpoints_filter_is_tried_on_what_agents_see_and_on_the_servers_own() -> None:
    only = Patterns(["file:///a*", "b/*", "help://*"])
    shelves = (
        server_uris("a", "file:///a", "file:///c", templates=("help://{x}",)),
        server_uris("b", "z:1", templates=("t://{x}",)),
    )
    found = Uris("on_collision", shelves, only)
    assert {own for own in found.tables.resources if found.listed(*own)} == {("a", "file:///a"), ("b", "z:1")}
    assert {own for own in found.tables.templates if found.listed(*own)} == {("a", "help://{x}"), ("b", "t://{x}")}
    assert owner(found, "help://1") == ("a", "help://1")
    assert owner(found, "t://1") == ("b", "t://1")
    assert owner(found, "b+q:1") == ("b", "q:1")
    for uri in ("file:///c", "a+file:///a", "a+q:1", "file:///a/../c"):
        assert owner(found, uri) is None


def test_a_listed_uri_that_looks_like_an_alias_is_shown_with_its_own_and_steals_none() -> None:
    found = Uris("on_collision", (server_uris("a", "b+file:///x", "file:///x"), server_uris("b", "file:///x")))
    assert found.tables.resources == {
        ("a", "b+file:///x"): "a+b+file:///x", ("a", "file:///x"): "a+file:///x", ("b", "file:///x"): "b+file:///x",
    }  # fmt: skip
    for own, shown in found.tables.resources.items():
        assert owner(found, shown) == own


def test_a_template_that_expands_into_an_alias_is_shown_with_its_own() -> None:
    texts = ("b+file:///{x}", "ui://a/{x}", "ui://pages/{x}")
    found = Uris("on_collision", (server_uris("a", templates=texts), server_uris("b")))
    assert [found.tables.templates["a", text] for text in texts] == [
        "a+b+file:///{x}",
        "ui://a/a/{x}",
        "ui://pages/{x}",
    ]
    assert owner(found, "ui://a/a/1") == ("a", "ui://a/1")


def test_aliases_are_written_as_a_scheme_can_be_and_tell_servers_apart_in_any_order() -> None:
    pairs = [("s1", "Docs_A"), ("s2", "docs-a"), ("s3", "9"), ("s4", "x_y"), ("s5", "X-y"), ("s6", "s-9")]
    servers = [ServerUris(server, alias, ("x:1",)) for server, alias in pairs]
    found, back = Uris("always", servers), Uris("always", servers[::-1])
    shown = [found.exposed(server, "x:1") for server, _ in pairs]
    assert shown == [back.exposed(server, "x:1") for server, _ in pairs]
    assert (shown[1], shown[2]) == ("docs-a+x:1", "s9+x:1")
    assert [owner(found, uri) for uri in shown] == [(server, "x:1") for server, _ in pairs]
    assert all(re.fullmatch(r"[a-z][a-z0-9-]*\+x:1", uri) for uri in shown)


@pytest.mark.parametrize("text", ["t://{x}{.kind}", "t://{+x}.md", "t://{x}{#at}", "{scheme}://x", "t://{", "t:{/x}/y"])
def test_a_template_that_is_not_simple_leads_by_its_alias_alone(text: str) -> None:
    two = (server_uris("a", templates=(text,)), server_uris("b"))
    assert Uris("on_collision", two).tables.templates == {("a", text): f"a+{text}"}
    assert owner(Uris("on_collision", two), "a+t://1.md") == ("a", "t://1.md")
    assert owner(Uris("on_collision", two), "t://1.md") is None
    assert Uris("none", two).tables.templates == {}
    assert "leads nowhere without an alias" in Uris("none", two).tables.notices[0].text


def test_more_templates_than_are_tried_are_shown_with_their_alias() -> None:
    texts = tuple(f"t://{at}/{{x}}" for at in range(MOST_ROUTED + 1))
    found = Uris("on_collision", (server_uris("a", templates=texts), server_uris("b")))
    assert [text for text in texts if found.tables.templates["a", text] != text] == [texts[-1]]
    assert owner(found, f"t://{MOST_ROUTED - 1}/x") == ("a", f"t://{MOST_ROUTED - 1}/x")
    assert owner(found, f"t://{MOST_ROUTED}/x") is None
    assert all(text == shown for (_, text), shown in Uris("on_collision", found.servers[:1]).tables.templates.items())
    assert found.exposed("a", f"t://{MOST_ROUTED}/x") == f"a+t://{MOST_ROUTED}/x"


def test_pickled_small_and_compared_by_what_was_written() -> None:
    uris = Uris("on_collision", TWO)
    text = pickle.dumps(uris)
    copy = pickle.loads(text)
    assert copy == uris
    assert len(text) < 500
    assert copy.owner("a+file:///x") == Owned("a", "file:///x")
    assert copy.rewrites("b")
    assert not copy.rewrites("c")


@pytest.mark.parametrize("mode", MODES)
def test_whatever_is_shown_leads_back(mode: str) -> None:
    dice = random.Random(13)
    parts = ["x:1", "x:2", "b+x:1", "a+b+x:1", "ui://a/p", "ui://b/p", "ui://p", "https://e", "a+ui://p", "help://q",
             "plain", "ui://", "+", "a+", "ui://a", "B_b+x:1"]  # fmt: skip
    templates = [
        "{+x}",
        "help://{x}",
        "help://{y}",
        "x:{n}",
        "b+x:{n}",
        "ui://{x}/p",
        "ui://a/{p}",
        "https://{e}",
        "x:2",
        "{",
    ]
    for _ in range(400):
        shelves = [
            ServerUris(name, alias, tuple(dice.sample(parts, 5)), tuple(dice.sample(templates, 4)))
            for name, alias in zip("abc", dice.sample(["a", "b", "B_b", "ui", "b-b"], 3), strict=True)
        ]
        found = Uris(mode, shelves[: dice.randrange(1, 4)])
        assert len(set(found.tables.resources.values())) == len(found.tables.resources)
        for own, shown in found.tables.resources.items():
            assert owner(found, shown) == own
            assert found.exposed(*own) == shown
        for server in {server for server, _ in found.tables.resources}:
            for uri in parts:
                shown = found.exposed(server, uri)
                stays = mode == "none" or uri.startswith("https:")
                assert shown == uri if stays else owner(found, shown) == (server, uri)


@pytest.mark.parametrize("mode", ["none", "on_collision"])
@pytest.mark.parametrize(
    "uri", [" file:///etc/x", "file:///etc/x ", "file:///etc/x\u00a0", "a+ file:///etc/x", " a+file:///x"]
)
def test_no_space_hides_where_a_uri_begins_or_ends(mode: str, uri: str) -> None:
    alone = Uris(mode, [server_uris("a", templates=("file:///{+x}",))])
    assert (owner(alone, uri) is None) == (mode == "on_collision" or not uri.startswith("a+"))
    assert owner(alone, "file:///my file") == ("a", "file:///my file")
