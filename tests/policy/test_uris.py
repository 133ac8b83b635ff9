"""Which URIs a class may read: an allow holds for every spelling, a deny for any."""

from __future__ import annotations

import pickle
import random
import re

import pytest

from fastgw.policy.patterns import Patterns
from fastgw.policy.uris import ANY_URI, LONGEST, UriRules, forms, is_canonical


def rules(allow: list[str] | None = None, deny: tuple[str, ...] = ()) -> UriRules:
    return UriRules(None if allow is None else Patterns(allow), Patterns(deny))


def may(allow: list[str] | None, uri: str, deny: tuple[str, ...] = ()) -> bool:
    return rules(allow, deny).permit(uri, "s", uri)


def listed(allow: list[str] | None, uri: str, deny: tuple[str, ...] = ()) -> bool:
    return rules(allow, deny).permit_listed(uri, "s", uri)


def normal_form(uri: str) -> str | None:
    found = forms(uri)
    return found[-1] if found else None


def test_without_rules_everything_even_nonsense() -> None:
    assert ANY_URI.free
    for uri in ("", "%", "x" * 100_000, "\0"):
        assert ANY_URI.permit(uri, "s", uri)
    assert not rules([]).free
    assert not may([], "help://a")


def test_an_allow_is_tried_on_what_agents_see_and_on_the_servers_own() -> None:
    one = rules(["a+help://*", "s/file:///pub/*"])
    assert one.permit("a+help://x", "t", "help://x")
    assert one.permit("b+file:///pub/x", "s", "file:///pub/x")
    assert not one.permit("b+file:///pub/x", "t", "file:///pub/x")
    assert not one.permit("file:///pub/x", "t", "file:///pub/x")


def test_a_deny_is_tried_on_every_name() -> None:
    for pattern in ("a+file:///x", "file:///x", "s/file:*", "*x"):
        assert not rules(["*"], (pattern,)).permit("a+file:///x", "s", "file:///x")
        assert not rules(None, (pattern,)).permit("a+file:///x", "s", "file:///x")
    assert rules(None, ("t/*", "file:///y")).permit("a+file:///x", "s", "file:///x")


OUT = [
    "file:///pub/../etc/x", "file:///pub/%2e%2e/etc/x", "file:///pub/%2E./etc/x", "file:///pub/..%2fetc/x",
    "file:///pub/%252e%252e/etc/x", "file:///pub/%25252e%25252e/etc/x", "file:///pub/..\\etc/x", "file:///pub/%5c..%5c../etc/x",
    "file:///pub/a//../../etc/x", "file:///pub/./../etc/x", "file:///pub/a/../../etc/x", "file:///pub/x?/../../etc/x",
    "file:///pub/x#/../../etc/x", "file:///pub/x%3F/../../etc/x", "file:///pub/..%00/x", "file:///pub/../../../etc/x",
    "file:///pub/%2e%2e/etc/%252e%252e/pub/x", "file:///pub/" + "%" + "25" * 6 + "2e/x",
]  # fmt: skip


@pytest.mark.parametrize("uri", OUT)
def test_no_spelling_leads_out_of_what_is_allowed(uri: str) -> None:
    assert not may(["file:///pub/*"], uri)
    assert not may(["*"], uri)
    assert not is_canonical(uri)


@pytest.mark.parametrize("uri", [*OUT[:14], "FILE:///etc/x", "file:////etc/x", "file:///%65tc/x", "file://user@/etc/x"])
def test_no_spelling_leads_into_what_is_denied(uri: str) -> None:
    assert not may(["*"], uri, ("file:///etc/*",))
    assert not may(None, uri, ("s/file:///etc/*",))


@pytest.mark.parametrize(
    "uri",
    ["file:/etc/x", "file://localhost/etc/x", "FILE://LocalHost:/etc/x", "file:/pub/../etc/x", "file:/%65tc/x",
     "file://localhost//etc/x", "a+file:/etc/x", "a+file://localhost/etc/x"],
)  # fmt: skip
def test_there_are_three_ways_to_say_that_a_file_has_no_host(uri: str) -> None:
    """RFC 8089, section 2 and appendix B; and a path without a host is to most parsers one with an empty host."""
    own = uri.removeprefix("a+")
    for deny in ("file:///etc/*", "s/file:///etc/*", "file:/etc/*", "s/file:/etc/*", "file://localhost/etc/*"):
        assert not rules(["*"], (deny,)).permit(uri, "s", own), deny
    assert not rules(["s/file:/*"], ("file:///etc/*",)).permit(uri, "s", own)
    assert not may(["*"], "db:/secret/x", ("db:///secret/*",))
    assert may(["*"], "db://localhost/secret/x", ("db:///secret/*",))


@pytest.mark.parametrize("uri", ["file:/pub/x", "file://localhost/pub/x", "db:/x", "HELP://Docs/x"])
def test_a_pattern_that_names_the_server_means_what_it_says(uri: str) -> None:
    assert rules([f"s/{uri}"]).permit_listed(f"a+{uri}", "s", uri)
    assert not rules([f"s/{uri}"]).permit_listed(f"a+{uri}", "t", uri)
    assert not rules(["*"], (f"s/{uri}",)).permit_listed(f"a+{uri}", "s", uri)


@pytest.mark.parametrize("end", ["#", "#x", "%23x", "%2523.md", "?#", "?x", "?x#.md"])
def test_what_hangs_on_a_path_leads_round_no_deny(end: str) -> None:
    for deny in ("*.key", "file:///a/x.key", "s/file:///a/x.key"):
        assert not may(["*"], f"file:///a/x.key{end}", (deny,))
    assert listed(["*"], f"file:///a/x.md{end}", ("*.key",))


def test_a_fragment_does_not_make_another_resource() -> None:
    assert not may(["*.md"], "file:///a/x.key#.md")
    assert not may(["*.md"], "file:///a/x.key%23.md")
    assert not may(["*"], "memo://n#1"), "unless it is listed"
    assert listed(["memo://n#1"], "memo://n#1")
    assert not may(["memo://n#1"], "memo://n")
    assert not listed(["memo://n#1"], "memo://n#2")
    assert not listed(["*"], "memo://n#2", ("memo://n",))
    assert listed(["*"], "memo://n#2", ("memo://n#1",)), "a deny of one fragment is about no other"


def test_no_other_name_leads_round_a_deny() -> None:
    one = rules(["*"], ("a+file:///etc/*", "ui://a/x"))
    assert not one.permit("file:///etc/x", "s", "file:///etc/x", ("a+file:///etc/x",))
    assert not one.permit("a-12345678+file:///etc/x", "s", "file:///etc/x", ("a+file:///etc/x",))
    assert not one.permit("file:///pub/%2e%2e/etc/x", "s", "file:///pub/%2e%2e/etc/x", ("a+file:///pub/%2e%2e/etc/x",))
    assert not one.permit("ui://x", "s", "ui://x", ("ui://a/x",))
    assert one.permit("file:///pub/x", "s", "file:///pub/x", ("a+file:///pub/x",))
    assert not rules(["a+file:*"]).permit("file:///pub/x", "s", "file:///pub/x", ("a+file:///pub/x",)), (
        "of denies alone"
    )


def test_folded_slashes_do_not_hide_a_way_up() -> None:
    assert not may(["*"], "x://h/b////../../etc/x", ("x://h/etc/*",))


def test_an_allow_of_a_servers_own_holds_for_every_spelling_too() -> None:
    one = rules(["s/file:///pub/*"])
    assert one.permit("a+file:///pub/%20x", "s", "file:///pub/%20x")
    assert not one.permit("a+file:///pub/%2e%2e/x", "s", "file:///pub/%2e%2e/x")


@pytest.mark.parametrize(
    "uri",
    ["help://docs/../secret/x", "help://docs/%2e%2e/secret/x", "urn:docs/../secret/x", "help:docs/..\\secret/x"],
)
def test_a_first_segment_where_a_host_would_stand_is_left_by_dots_too(uri: str) -> None:
    scheme = uri.partition("docs")[0]
    assert not may([f"{scheme}docs/*"], uri)
    assert not may(["*"], uri, (f"{scheme}secret/*",))


@pytest.mark.parametrize(
    "uri",
    ["file:///pub/a%20b", "file:///pub/a b", "file:///pub/a+b", "file:///pub/.hidden", "file:///pub/%C3%A9",
     "file:///pub/%c3%a9", "file:///pub/a..b",
     "file:///pub/x?q=%2F", "file:///pub/x?to=https://e//x", "file:///pub/\u00e9"],
)  # fmt: skip
def test_what_stays_inside_is_allowed(uri: str) -> None:
    assert may(["file:///pub/*"], uri)


@pytest.mark.parametrize(
    "uri",
    ["HELP://Docs/a%20b", "https://me@Host:443/x", "proxy://h/https://good.com/x", "urn:x:y", "test://a", "a:b/../c",
     "\u00e9:x", "no scheme", "x://caf%e9"],
)  # fmt: skip
def test_a_pattern_copied_from_a_list_means_what_it_says(uri: str) -> None:
    assert listed([uri], uri)
    assert listed(["*"], uri)
    assert not listed(["*"], uri, (uri,))
    assert not listed(["*"], uri, (normal_form(uri) or "",))


def test_an_encoded_wildcard_in_a_pattern_is_none() -> None:
    assert not may(["file:///%2a"], "file:///x")
    assert listed(["file:///%2a", "file:///?"], "file:///%2a")
    assert may(None, "file:///x", ("file:///%2a",))


def test_letters_that_only_look_alike_are_other_letters() -> None:
    assert not may(["help://a"], "help://\u0430")
    assert may(None, "help://\uff41", ("help://a",))
    # But not in a host that somebody connects to.
    for host in ("\uff41.example", "%EF%BD%81.example", "a\u3002example", "\u24d0.example", "a\u00ad.example"):
        for scheme in ("http", "https", "ws", "wss"):
            assert not may(None, f"{scheme}://{host}/x", (f"{scheme}://a.example/*",))
            assert not may((f"{scheme}://a.example/*", "*"), f"{scheme}://{host}/x")
    assert may(None, "https://xn--80ak6aa92e.example/\uff41", ("https://a.example/*",))


def test_what_is_encoded_or_long_beyond_measure_is_not_permitted() -> None:
    assert normal_form("x:" + "%25" * 10) is not None
    assert normal_form("x:%" + "25" * 9 + "2e") is None
    assert normal_form("x:" + "a" * LONGEST) is None
    for uri in ("x:%" + "25" * 9 + "2e", "x:" + "a" * LONGEST, "x:a%00b"):
        assert not may(["*"], uri)
        assert not listed(["*"], uri)
        assert not listed(None, uri, ("y:*",))


@pytest.mark.parametrize("unit", ["../", "%2e%2e/", "%25", "//", "\\", "a/", "@", ":", "?#", "\u00e9", "%"])
def test_long_nonsense_is_answered(unit: str) -> None:
    uri = "x://" + unit * (LONGEST // len(unit) - 4)
    assert not may(["y*"], uri)
    assert not may(["*a*b*c*d*"], uri + "!")


@pytest.mark.parametrize(
    "uri",
    ["HELP://a", "help://me@a", "help://me:you@a/x", "http://e:80/",
     "https://e:443/x", "x:/a", "x://a//b", "x:////a", "x:a//b",
     "x:a\\b", "x:a%5Cb", "x:a/./b", "x:./a", "x:../a",
     "x:a/..", "x:a/.", "x:a/..;v=1/b", "x:a/%2E%2E/b", "x:a/.%2e", "x:%2Fa",
     "x:a%2fb", "x:%41", "x:%7E", "x:%2541", "x:100%", "x:%zz",
     "x:a%00", "x:a%0A", "x:a%7F", "x:a%20", "x:a%3Fb", "x:a%23b",
     "x:%C0%AFa", "x:%C0%AE%C0%AE/a", "x:%E0%80%AFa", "x:%FF", "x:a#b",
     "x:a?b#c", "x:a?b=..%2F..%2Fc", "x:a?b=%2541", "x:a?b=\\", "x://%61/b",
     "file://localhost/x", "file://LOCALHOST:/x", "a+file://localhost/x", "no scheme",
     "+x:a", "", "\u00e9:x", "x://a:/b"],
)  # fmt: skip
def test_what_is_not_canonical_is_refused_whatever_is_allowed(uri: str) -> None:
    assert not is_canonical(uri)
    assert not may(["*"], uri)
    assert not may([uri], uri)
    assert not may(None, uri, ("nothing:",))


@pytest.mark.parametrize(
    "uri",
    ["help://Intro", "x:a", "urn:a:b", "file:///a b/\u00e9",
     "db://h:5432/x", "ui://p/main.html", "x:a?q=1&r=%2F%23%20b", "x:a%40b",
     "x:a%3Ab", "x://a%20b", "x:a/", "x:a/...", "x:.hidden", "https://e/a?b=http://c//d", "data:,hello",
     "x:%F0%9F%98%80"],
)  # fmt: skip
def test_what_clients_send_and_templates_expand_to_is_canonical(uri: str) -> None:
    assert is_canonical(uri)
    assert may([uri], uri)
    assert not may(["*"], uri, (uri,))


def test_two_canonical_spellings_of_one_resource_are_treated_alike() -> None:
    """What is canonical has one normal form, which decides as it does itself."""
    dice = random.Random(2)
    parts = ["a", "b", "/", "//", ".", "..", ":", "%", "%2e", "%2F", "%20", "A", "?", "#", "@", "\\", "x:", "x://", ";"]
    for _ in range(20_000):
        text = "".join(dice.choice(parts) for _ in range(dice.randrange(1, 8)))
        if is_canonical(text):
            normal = normal_form(text)
            assert normal is not None
            assert not may(["*"], text, (normal,))
            assert not {"..", "."} & set(re.split("[/:]", text.partition("?")[0]))
            assert "//" not in re.sub(r"^[a-z][a-z0-9+.\-]*://", "", text.partition("?")[0])


def test_pickled_and_compared_by_its_patterns() -> None:
    one = rules(["help://*"], ("x",))
    copy = pickle.loads(pickle.dumps(one))
    assert copy == one
    assert hash(copy) == hash(one)
    assert copy.permit("help://a", "s", "help://a")
