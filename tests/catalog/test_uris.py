"""Whose a URI is, and how agents see it."""

from __future__ import annotations

import pickle
import random

import pytest

from fastgw.catalog.aliases import Aliases
from fastgw.catalog.uris import Owned, ServerUris, Uris, assign_uris
from fastgw.policy.patterns import Patterns
from fastgw.policy.uris import LONGEST

MODES = ("none", "on_collision", "always")


def shelf(server: str, *uris: str, templates: tuple[str, ...] = (), only: Patterns | None = None) -> ServerUris:
    return ServerUris(server, server, uris, templates, only)


def owner(uris: Uris, uri: str) -> tuple[str, str] | None:
    found = uris.owner(uri)
    return None if found is None else (found.server, found.uri)


TWO = (shelf("a", "file:///x", "file:///a"), shelf("b", "file:///x", "file:///b"))


def test_none_rewrites_nothing_and_the_first_keeps_a_uri() -> None:
    found = assign_uris("none", TWO)
    assert set(found.resources) == {("a", "file:///x"), ("a", "file:///a"), ("b", "file:///b")}
    assert [str(one) for one in found.notices] == ["b/file:///x: hidden: its URI is taken, and naming is none"]
    assert found.notices[0].moves
    assert owner(found.uris, "file:///x") == ("a", "file:///x")
    assert owner(found.uris, "b+file:///x") is None
    assert found.uris.exposed("b", "file:///x") == "file:///x"
    assert not found.uris.rewrites("a")


def test_on_collision_moves_what_two_list_and_nothing_else() -> None:
    found = assign_uris("on_collision", TWO)
    assert found.resources == {
        ("a", "file:///x"): "a+file:///x", ("a", "file:///a"): "file:///a",
        ("b", "file:///x"): "b+file:///x", ("b", "file:///b"): "file:///b",
    }  # fmt: skip
    assert [str(one) for one in found.notices] == [
        "a/file:///x: is called a+file:///x here", "b/file:///x: is called b+file:///x here",
    ]  # fmt: skip
    assert all(one.moves for one in found.notices)
    assert owner(found.uris, "file:///x") is None
    assert owner(found.uris, "b+file:///x") == ("b", "file:///x")


def test_what_was_moved_leads_nowhere_by_its_old_name_not_even_by_a_template() -> None:
    uris = Uris("on_collision", (shelf("a", "help://x", templates=("help://{p}",)), shelf("b", "help://x")))
    assert owner(uris, "help://y") == ("a", "help://y")
    assert owner(uris, "help://x") is None
    assert uris.exposed("a", "help://x") == "a+help://x"


def test_always_moves_everything_but_web_addresses() -> None:
    found = assign_uris("always", (shelf("a", "x:1", "ui://p", "https://e/1", "HTTP://e"), shelf("b", "https://e/1")))
    assert list(found.resources.values()) == ["https://e/1", "HTTP://e", "a+x:1", "ui://a/p"]
    assert owner(found.uris, "x:1") is None
    assert owner(found.uris, "ui://a/p") == ("a", "ui://p")
    assert owner(found.uris, "https://e/1") == ("a", "https://e/1")
    assert str(found.notices[0]) == "b/https://e/1: hidden: its URI is taken, and web addresses are never renamed"
    assert found.uris.exposed("b", "https://e/2") == "https://e/2"


def test_an_alias_leads_to_its_server_whatever_is_listed() -> None:
    uris = Uris("on_collision", TWO)
    assert owner(uris, "b+new:thing") == ("b", "new:thing")
    assert owner(uris, "ui://b/page") == ("b", "ui://page")
    assert owner(uris, "UI://b/page") == ("b", "UI://page")
    for uri in ("b+", "ui://b/", "ui://b", "c+x:1", "+x:1", "B+x:1"):
        assert owner(uris, uri) is None


def test_a_link_that_would_not_lead_back_is_shown_with_its_alias() -> None:
    uris = Uris("on_collision", (shelf("a", "x:1", templates=("help://{page}",)), shelf("b", "y:1")))
    assert uris.exposed("a", "help://intro") == "help://intro"
    assert uris.exposed("b", "help://intro") == "b+help://intro"
    assert uris.exposed("b", "x:1") == "b+x:1"
    assert uris.exposed("b", "ui://p") == "ui://b/p"
    assert uris.exposed("nobody", "x:1") == "x:1"
    assert uris.exposed("b", "a\nb") == "a\nb"


def test_templates_route_in_order_and_only_with_a_scheme_of_their_own() -> None:
    shelves = (
        shelf("a", templates=("{+any}", "{scheme}://x", "help://{page}")),
        shelf("b", "help://intro", templates=("help://{+path}", "t://{x}", "help://{name}.txt")),
        shelf("c", templates=("t://{y}",)),
    )
    found = assign_uris("on_collision", shelves)
    assert found.templates == {
        ("a", "{+any}"): "a+{+any}", ("a", "{scheme}://x"): "a+{scheme}://x", ("a", "help://{page}"): "help://{page}",
        ("b", "help://{+path}"): "b+help://{+path}", ("b", "t://{x}"): "b+t://{x}", ("c", "t://{y}"): "c+t://{y}",
        ("b", "help://{name}.txt"): "b+help://{name}.txt",
    }  # fmt: skip
    assert owner(found.uris, "help://intro") == ("b", "help://intro")
    assert owner(found.uris, "help://other") == ("a", "help://other")
    assert owner(found.uris, "help://a/b") is None
    assert owner(Uris("none", shelves), "help://a/b") == ("b", "help://a/b")
    assert owner(Uris("none", shelves), "help://other") == ("a", "help://other")
    assert owner(found.uris, "t://1") is None
    assert owner(found.uris, "c+t://1") == ("c", "t://1")
    assert owner(found.uris, "q:anything") is None
    assert owner(found.uris, "a+q:anything") == ("a", "q:anything")


@pytest.mark.parametrize("mode", MODES)
def test_the_text_of_a_template_leads_to_its_server(mode: str) -> None:
    texts = ("s://q{?a,b}", "f://{+path}{#at}", "p:{/x*}", "t://{x}")
    found = assign_uris(mode, (shelf("a", templates=texts), shelf("b", templates=("t://{x}", "o:{;p}"))))
    assert len(found.templates) == (5 if mode == "none" else 6)
    for own, shown in found.templates.items():
        assert owner(found.uris, shown) == own
        assert found.uris.exposed(*own) == shown


def test_without_aliases_a_template_for_everything_is_hidden() -> None:
    found = assign_uris(
        "none", (shelf("a", templates=("{+any}", "t://{x}")), shelf("b", templates=("t://{y}", "bad{")))
    )
    assert found.templates == {("a", "t://{x}"): "t://{x}"}
    assert sorted(str(one) for one in found.notices) == [
        "a/{+any}: hidden: it leads nowhere without an alias",
        "b/bad{: fits no URI: it has a brace without its partner",
        "b/bad{: hidden: it leads nowhere without an alias",
        "b/t://{y}: hidden: its URI is taken, and naming is none",
    ]


def test_the_only_server_with_resources_gets_the_rest() -> None:
    one = (shelf("a", "x:1", templates=("{+any}",)),)
    for mode in ("none", "on_collision"):
        found = assign_uris(mode, one)
        assert found.templates == {("a", "{+any}"): "{+any}"}
        assert owner(found.uris, "q:new") == ("a", "q:new")
        assert found.uris.exposed("a", "q:new") == "q:new"
    assert owner(Uris("always", one), "q:new") is None
    assert Uris("always", one).exposed("a", "q:new") == "a+q:new"
    assert owner(Uris("always", one), "https://e") == ("a", "https://e")


def test_a_listed_uri_that_looks_like_anothers_alias_keeps_its_name_and_steals_none() -> None:
    shelves = (shelf("a", "b+file:///x", "file:///x"), shelf("b", "file:///x"))
    found = assign_uris("on_collision", shelves)
    assert owner(found.uris, "b+file:///x") == ("a", "b+file:///x")
    shown = found.resources["b", "file:///x"]
    assert shown != "b+file:///x"
    assert owner(found.uris, shown) == ("b", "file:///x")
    # A second alias is nobody's to list.
    again = assign_uris("on_collision", (shelf("a", "b+file:///x", shown, "file:///x"), shelf("b", "file:///x")))
    assert again.resources["b", "file:///x"] == shown
    assert owner(again.uris, shown) == ("b", "file:///x")
    assert owner(again.uris, again.resources["a", shown]) == ("a", shown)


def test_a_template_that_expands_into_an_alias_is_shown_with_its_own() -> None:
    texts = ("b+file:///{x}", "ui://a/{x}", "ui://{host}/x", "ui://pages/{x}")
    found = assign_uris("on_collision", (shelf("a", templates=texts), shelf("b")))
    assert [found.templates["a", text] for text in texts] == [
        "a+b+file:///{x}", "ui://a/a/{x}", "ui://a/{host}/x", "ui://pages/{x}",
    ]  # fmt: skip
    assert owner(found.uris, "ui://a/a/1") == ("a", "ui://a/1")


def test_aliases_are_written_as_a_scheme_can_be() -> None:
    aliases = Aliases([("s1", "Docs_A"), ("s2", "docs-a"), ("s3", "9"), ("s4", "x+y"), ("s5", "\u00e9"), ("s6", "X y")])
    forms = {server: aliases.form(server, "x:1") for server in ("s1", "s2", "s3", "s4", "s5", "s6")}
    assert forms["s2"] == "docs-a+x:1"
    assert forms["s3"] == "s9+x:1"
    assert len(set(forms.values())) == 6
    for server, form in forms.items():
        assert form.count("+") == 1
        assert aliases.read(form) == (server, "x:1")
        assert aliases.read(aliases.second_form(server, "ui://p")) == (server, "ui://p")


def test_aliases_alike_in_a_scheme_do_not_depend_on_order() -> None:
    pairs = [("s1", "docs_a"), ("s2", "docs+a")]
    there, back = Aliases(pairs), Aliases(pairs[::-1])
    for server, _ in pairs:
        assert there.form(server, "x:1") == back.form(server, "x:1") != "docs-a+x:1"


def test_what_is_no_uri_is_nobodys() -> None:
    found = assign_uris("on_collision", (shelf("a", "", "x:\n", "x:" + "y" * LONGEST, "x:" + "y" * (LONGEST - 2)),))
    assert [len(uri) for _, uri in found.resources] == [LONGEST]
    assert len(found.notices) == 3
    assert all(len(str(one)) < 200 for one in found.notices)
    for uri in ("", "x:\x7f", "x:" + "y" * LONGEST, "a+x:" + "y" * LONGEST, "a+\x00"):
        assert owner(found.uris, uri) is None
    longest = "x:" + "z" * (LONGEST - 2)
    assert owner(found.uris, "a+" + longest) == ("a", longest)


def test_a_servers_filter_holds_for_what_it_does_not_list_too() -> None:
    only = Patterns(["file:///pub/*", "file:///{+path}"])
    shelves = (
        shelf("a", "file:///pub/1", "file:///etc/1", templates=("file:///{+path}",), only=only),
        shelf("b", "y:1"),
    )
    found = assign_uris("on_collision", shelves)
    assert set(found.resources) == {("a", "file:///pub/1"), ("b", "y:1")}
    assert owner(found.uris, "file:///pub/2") == ("a", "file:///pub/2")
    for uri in ("file:///etc/1", "a+file:///etc/1", "file:///pub/../etc/1", "a+file:///pub/%2e%2e/etc/1"):
        assert owner(found.uris, uri) is None
    alone = Uris("on_collision", shelves[:1])
    assert owner(alone, "file:///pub/2") == ("a", "file:///pub/2")
    assert owner(alone, "file:///etc/2") is None


def test_what_a_servers_filter_leaves_out_collides_with_nothing() -> None:
    found = assign_uris("on_collision", (shelf("a", "x:1", only=Patterns(["y:*"])), shelf("b", "x:1")))
    assert found.resources == {("b", "x:1"): "x:1"}


def test_an_endpoints_filter_is_tried_on_what_agents_see_and_on_the_servers_own() -> None:
    only = Patterns(["file:///a*", "b/*", "help://*"])
    shelves = (
        shelf("a", "file:///a", "file:///c", templates=("help://{x}",)),
        shelf("b", "z:1", templates=("t://{x}",)),
    )
    found = assign_uris("on_collision", shelves, only)
    assert set(found.resources) == {("a", "file:///a"), ("b", "z:1")}
    assert set(found.templates) == {("a", "help://{x}"), ("b", "t://{x}")}
    assert owner(found.uris, "help://1") == ("a", "help://1")
    assert owner(found.uris, "t://1") == ("b", "t://1")
    assert owner(found.uris, "b+q:1") == ("b", "q:1")
    for uri in ("file:///c", "a+file:///a", "a+q:1", "file:///a/../c"):
        assert owner(found.uris, uri) is None


def test_pickled_small_and_compared_by_what_was_written() -> None:
    uris = assign_uris("on_collision", TWO).uris
    text = pickle.dumps(uris)
    copy = pickle.loads(text)
    assert copy == uris
    assert len(text) < 500
    assert copy.owner("a+file:///x") == Owned("a", "file:///x")
    assert copy.rewrites("b")
    assert not copy.rewrites("c")


def test_more_templates_than_a_stranger_may_try_lead_nowhere() -> None:
    texts = tuple(f"t://{at}/{'x' * 1000}{{x}}" for at in range(100))
    found = assign_uris("on_collision", (shelf("a", templates=texts), shelf("b")))
    assert len(found.templates) == 100
    assert found.templates["a", texts[0]] == texts[0]
    assert found.templates["a", texts[99]] == f"a+{texts[99]}"
    assert sum("fits no URI" in one.text for one in found.notices) > 30


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
        found = assign_uris(mode, shelves[: dice.randrange(1, 4)])
        assert len(set(found.resources.values())) == len(found.resources)
        for own, shown in found.resources.items():
            assert owner(found.uris, shown) == own
            assert found.uris.exposed(*own) == shown
        for server in {server for server, _ in found.resources}:
            for uri in parts:
                shown = found.uris.exposed(server, uri)
                stays = mode == "none" or uri.startswith("https:")
                assert shown == uri if stays else owner(found.uris, shown) == (server, uri)


def test_the_uris_of_one_result_cost_so_much_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    found = assign_uris("on_collision", (shelf("a", "q:listed", templates=("q:{x}", "q:{x}/{y}")), shelf("b")))
    monkeypatch.setattr("fastgw.catalog.uris.MOST_EFFORT", 12)
    expose = found.uris.exposing("a")
    assert [expose(uri) for uri in ("q:1", "q:2", "q:3", "q:listed", "r:1", "https://e/1")] == [
        "q:1", "q:2", "a+q:3", "q:listed", "a+r:1", "https://e/1",
    ]  # fmt: skip
    assert owner(found.uris, "a+q:3") == ("a", "q:3")
    assert found.uris.exposing("a")("q:3") == "q:3", "each result has its own"
    monkeypatch.setattr("fastgw.catalog.uris.MOST_EFFORT", 8)
    assert found.uris.exposing("a")(f"q:{'1' * 5000}").startswith("a+"), "a long one costs more"


@pytest.mark.parametrize("mode", ["none", "on_collision"])
@pytest.mark.parametrize(
    "uri", [" file:///etc/x", "file:///etc/x ", "file:///etc/x\u00a0", "a+ file:///etc/x", " a+file:///x"]
)
def test_no_space_hides_where_a_uri_begins_or_ends(mode: str, uri: str) -> None:
    alone = assign_uris(mode, [shelf("a", templates=("file:///{+x}",))]).uris
    assert (owner(alone, uri) is None) == (mode == "on_collision" or not uri.startswith("a+"))
    assert owner(alone, "file:///my file") == ("a", "file:///my file")


def test_templates_beyond_what_can_be_compared_are_shown_with_their_alias(monkeypatch: pytest.MonkeyPatch) -> None:
    shelves = [shelf(name, templates=(f"q:{name}/{{x}}", f"q:{name}/{{x}}/y")) for name in "abc"]
    free = assign_uris("on_collision", shelves)
    assert all(shown == text for (_, text), shown in free.templates.items())
    monkeypatch.setattr("fastgw.catalog.uri_layout.MOST_COMPARED", 4)
    found = assign_uris("on_collision", shelves)
    assert {own: shown for own, shown in found.templates.items() if shown != own[1]} == {
        ("c", "q:c/{x}"): "c+q:c/{x}", ("c", "q:c/{x}/y"): "c+q:c/{x}/y",
    }  # fmt: skip
    assert owner(found.uris, "c+q:c/1") == ("c", "q:c/1")
    assert found.uris.exposed("c", "q:c/1") == "c+q:c/1"
