"""Files as they are read: references, includes, anchors, scalars, and files that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastgw.config.reader import read_settings
from fastgw.config.schema.settings import Settings
from fastgw.config.tree import ConfigError
from tests.upstream.test_tls import Authority

SERVER = "servers:\n  data: {url: http://127.0.0.1:9002/mcp, credential: {bearer: '${env:TOKEN}'}}\n"


def load(folder: Path, text: str, **environ: str) -> Settings:
    file = folder / "fastgw.yaml"
    file.write_text(text, encoding="utf-8")
    return read_settings(file, environ)


def refused(folder: Path, text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load(folder, text, **environ)
    return [str(one).removeprefix(f"{folder}/") for one in error.value.complaints]


def test_defaults(tmp_path: Path) -> None:
    settings = load(tmp_path, "servers: {}\n")
    assert (settings.listen, settings.admin.listen) == ("127.0.0.1:8080", "127.0.0.1:8081")
    assert settings.public_url == ("http://127.0.0.1:8080",)
    assert (settings.workers, settings.timeout, settings.drain) == (1, 55.0, 30.0)
    assert (settings.max_body, settings.max_reply) == (4 * 2**20, 64 * 2**20)
    assert settings.policies is None
    assert settings.endpoints is None
    assert settings.data == str(tmp_path / "data")


def test_no_policies_and_an_empty_list_differ(tmp_path: Path) -> None:
    assert load(tmp_path, "listen: 127.0.0.1:1\n").policies is None
    assert load(tmp_path, "policies: []\n").policies == ()


@pytest.mark.parametrize(
    ("listen", "public"),
    [
        ("0.0.0.0:9000", "http://localhost:9000"),
        ("'[::]:9000'", "http://localhost:9000"),
        ("'[::1]:9000'", "http://[::1]:9000"),
        ("gateway.example:80", "http://gateway.example:80"),
    ],
)
def test_public_url_follows_listen(tmp_path: Path, listen: str, public: str) -> None:
    assert load(tmp_path, f"listen: {listen}\n").public_url == (public,)


def test_references_are_filled_in_after_reading(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n", encoding="utf-8")
    text = (
        "servers:\n"
        "  a: {url: http://127.0.0.1:1/, credential: {bearer: '${env:TOKEN}'}}\n"
        "  b: {url: 'http://127.0.0.1:${env:PORT}/mcp', credential: {header: {X-Key: 'Key ${file:token}'}}}\n"
        "workers: ${env:WORKERS}\n"
    )
    settings = load(tmp_path, text, TOKEN="a: {b: ]", PORT="2", WORKERS="3")
    assert settings.servers["a"].credential[0].bearer == "a: {b: ]"
    assert settings.servers["b"].credential[0].header == {"X-Key": "Key from-file"}
    assert settings.servers["b"].url[0].url == "http://127.0.0.1:2/mcp"
    assert settings.workers == 3


@pytest.mark.parametrize(
    "value",
    [
        "Bearer ${env:T}",
        "session=${env:T}",
        "connect.sid=${env:T}; theme=${env:T}",
        "${env:T}${file:t}",
        "a=${env:T};${env:T}",
    ],
)
def test_a_word_may_lead_a_secret_in_a_header(tmp_path: Path, value: str) -> None:
    (tmp_path / "t").write_text("2", encoding="utf-8")
    headers = f"credential: {{header: {{X-Key: '{value}'}}}}, headers: {{Cookie: '{value}'}}"
    text = f"servers:\n  a: {{url: http://h/, {headers}}}\n"
    filled = value.replace("${env:T}", "1").replace("${file:t}", "2")
    settings = load(tmp_path, text, T="1")
    assert settings.servers["a"].headers == {"Cookie": filled}
    assert settings.servers["a"].credential[0].header == {"X-Key": filled}


@pytest.mark.parametrize(
    "value", ["k7${env:T}", "${env:T}k", "Bearer k ${env:T}", "k1=${env:T}", " ${env:T}", "$${x}${env:T}"]
)
def test_no_half_of_a_secret_is_written_out(tmp_path: Path, value: str) -> None:
    head = "servers:\n  a: {url: http://h/, "
    told = refused(tmp_path, f"{head}credential: {{header: {{X-Key: '{value}'}}}}}}\n", T="1")
    told += refused(tmp_path, f"{head}headers: {{X-Api-Key: '{value}'}}}}\n", T="1")
    told += refused(tmp_path, f"{head}credential: {{bearer: '{value}'}}}}\n", T="1")
    assert [one.split(" must not")[0] for one in told] == [
        "fastgw.yaml:2:52: a part of a secret",
        "fastgw.yaml:2:44: a part of a secret",
        "fastgw.yaml:2:44: a part of a secret",
    ]


def test_a_bearer_takes_no_word(tmp_path: Path) -> None:
    told = refused(tmp_path, SERVER.replace("${env", "Bearer ${env"), TOKEN="t")
    assert "nothing may stand beside it" in told[0]


def test_filled_in_text_is_not_filled_in_again(tmp_path: Path) -> None:
    settings = load(tmp_path, SERVER, TOKEN="${env:HOME}")
    assert settings.servers["data"].credential[0].bearer == "${env:HOME}"


def test_an_escaped_reference_is_text(tmp_path: Path) -> None:
    settings = load(tmp_path, "servers:\n  a: {url: http://h/, maintenance: 'pay $${env:X}'}\n")
    assert settings.servers["a"].maintenance == "pay ${env:X}"


@pytest.mark.parametrize(
    ("content", "value"), [("x", "x"), ("x\n", "x"), ("x\r\n", "x"), (" x \n", " x "), ("x\n\n", "x\n")]
)
def test_one_line_break_at_the_end_of_a_file_is_dropped(tmp_path: Path, content: str, value: str) -> None:
    (tmp_path / "token").write_bytes(content.encode())
    assert load(tmp_path, "admin: {listen: 127.0.0.1:1, token: '${file:token}'}\n").admin.token == value


def test_a_secret_stays_out_of_every_repr(tmp_path: Path) -> None:
    text = (
        "secret: '${env:S}'\nadmin: {listen: 127.0.0.1:1, token: '${env:S}'}\nservers:\n"
        "  a: {url: http://h/, credential: {bearer: '${env:S}'}, headers: {X-Token: '${env:S}'}}\n"
        "  b: {url: http://h/, credential: {basic: {username: u, password: '${env:S}'}}}\n"
        "  c: {url: http://h/, credential: {header: {X-Key: '${env:S}'}}}\n"
    )
    settings = load(tmp_path, text, S="canary-7319-canary")
    assert "canary-7319" not in repr(settings)
    assert settings.secret == ("canary-7319-canary",)


def test_a_secret_stays_out_of_complaints(tmp_path: Path) -> None:
    told = refused(tmp_path, SERVER + "timeout: ${env:TOKEN}\nlisten: ${env:TOKEN}\n", TOKEN="canary\n7319")
    assert len(told) == 3
    assert "canary" not in "".join(told)


def test_all_complaints_at_once_in_order(tmp_path: Path) -> None:
    text = "worker: 2\ntimeout: 0s\nservers:\n  a: {url: nowhere}\nlisten: ${env:NOT_SET}\n"
    assert refused(tmp_path, text) == [
        'fastgw.yaml:1:1: unknown key "worker" (did you mean "workers"?)',
        "fastgw.yaml:2:10: must be longer than 0",
        "fastgw.yaml:4:12: must begin with http:// or https://",
        "fastgw.yaml:5:9: the environment variable NOT_SET is not set",
    ]


def test_anchors_and_merge_keys(tmp_path: Path) -> None:
    text = (
        "x-mine: &slow {timeout: 90s, era: legacy}\nx-more: &other {era: modern, alias: z}\nservers:\n"
        "  a: {<<: *slow, url: http://h/a}\n"
        "  b: {<<: [*slow, *other], url: http://h/b, timeout: 1s}\n"
    )
    servers = load(tmp_path, text).servers
    assert (servers["a"].timeout, servers["a"].era) == (90.0, "legacy")
    assert (servers["b"].timeout, servers["b"].era, servers["b"].alias) == (1.0, "legacy", "z")


def test_scalars_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    text = (
        "agents:\n  a:\n    key: sha256:" + "0" * 64 + "\n"
        "    claims: {country: no, on: off, version: 1.10, zip: 00501, time: 12:30, flag: True, n: 5, l: [1, true]}\n"
    )
    assert load(tmp_path, text).agents["a"].claims == {
        "country": "no",
        "on": "off",
        "version": "1.10",
        "zip": "00501",
        "time": "12:30",
        "flag": "true",
        "n": "5",
        "l": ("1", "true"),
    }


def test_what_a_tag_says_holds_and_arguments_keep_their_digits(tmp_path: Path) -> None:
    text = "tools:\n  t:\n    fixed: {a: !!str 5, b: 5, c: 123456789012345678901234567890, d: 1.10, e: !!str null}\n"
    fixed = load(tmp_path, text).tools["t"].fixed or {}
    assert (fixed["a"], fixed["b"], fixed["e"]) == ("5", 5, "null")
    assert (str(fixed["c"]), str(fixed["d"])) == ("123456789012345678901234567890", "1.10")


@pytest.mark.parametrize("value", ["!!bool yes", "!!int x", "!!binary aGk=", "!own 5", "!!set {a}"])
def test_other_tags_are_refused(tmp_path: Path, value: str) -> None:
    assert "is not supported" in refused(tmp_path, f"data: {value}\n")[0]


def test_relative_paths_start_at_their_file(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "key").write_text("k", encoding="utf-8")
    cert, key = (Path(path).name for path in Authority(tmp_path, "ca").issue("gateway"))
    (tmp_path / cert).rename(tmp_path / "more" / cert)
    (tmp_path / "more" / "b.yaml").write_text(
        f"tls: {{cert: {cert}, key: ../{key}}}\n"
        "servers:\n  b: {url: https://h/, credential: {bearer: '${file:key}'}}\n",
        encoding="utf-8",
    )
    settings = load(tmp_path, "include: more/*.yaml\ndata: kept\nusage: {sinks: ['file:u.jsonl', stdout]}\n")
    assert settings.data == str(tmp_path / "kept")
    assert settings.tls is not None
    assert (settings.tls.cert, settings.tls.key) == (f"{tmp_path}/more/{cert}", f"{tmp_path}/more/../{key}")
    assert settings.servers["b"].credential[0].bearer == "k"
    assert [sink.url for sink in settings.usage.sinks] == [f"file:{tmp_path}/u.jsonl", "stdout"]


def test_included_maps_and_lists_come_together(tmp_path: Path) -> None:
    (tmp_path / "1.inc").write_text("servers: {b: {url: http://h/b}}\npolicies: [{name: p, allow: [x]}]\n", "utf-8")
    (tmp_path / "2.inc").write_text("servers: {c: {url: http://h/c}}\ntimeout: 3s\n", "utf-8")
    text = "include: ['*.inc']\nservers: {a: {url: http://h/a}}\npolicies: [{name: o, allow: [y]}]\n"
    settings = load(tmp_path, text)
    assert set(settings.servers) == {"a", "b", "c"}
    assert [policy.name for policy in settings.policies or ()] == ["o", "p"]
    assert settings.timeout == 3.0


def test_a_name_in_two_files_is_refused_with_both_places(tmp_path: Path) -> None:
    (tmp_path / "1.inc").write_text("timeout: 1s\nservers:\n  a: {url: http://h/b}\n", "utf-8")
    told = refused(tmp_path, "include: 1.inc\nservers:\n  a: {url: http://h/a}\ntimeout: 2s\n")
    assert told == [
        f'1.inc:1:1: "timeout" stands twice; first at {tmp_path}/fastgw.yaml:4:1',
        f'1.inc:3:3: "a" stands twice; first at {tmp_path}/fastgw.yaml:3:3',
    ]


def test_a_complaint_names_the_included_file(tmp_path: Path) -> None:
    (tmp_path / "1.inc").write_text("servers:\n  b:\n    url: http://h/b\n    tiemout: 1s\n", "utf-8")
    assert refused(tmp_path, "include: 1.inc\n") == ['1.inc:4:5: unknown key "tiemout" (did you mean "timeout"?)']


def test_an_included_file_includes_nothing(tmp_path: Path) -> None:
    (tmp_path / "1.inc").write_text("include: 2.inc\n", "utf-8")
    assert refused(tmp_path, "include: 1.inc\n") == ["1.inc:1:1: include stands in the first file only"]


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml:1:1: cannot be read: No such file"):
        read_settings(tmp_path / "gone.yaml", {})
    with pytest.raises(ConfigError, match=r":1:1: cannot be read: Is a directory"):
        read_settings(tmp_path, {})
    file = tmp_path / "bytes.yaml"
    file.write_bytes("listen: 1\ndata: ä".encode() + b"\xff\n")
    with pytest.raises(ConfigError, match=r"bytes\.yaml:2:8: is not UTF-8"):
        read_settings(file, {})


@pytest.mark.parametrize("text", ["", "\n\n", "# only words\n", "---\n", "~\n"])
def test_an_empty_file(tmp_path: Path, text: str) -> None:
    assert refused(tmp_path, text) == ["fastgw.yaml:1:1: the file is empty"]


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    assert load(tmp_path, "\ufefftimeout: 3s\n").timeout == 3.0


@pytest.mark.parametrize("bomb", ["[" * 100_000, "{" * 100_000, "- " * 100_000, "a: " * 100_000, "'" * 99_999])
def test_depth_is_refused_not_followed(tmp_path: Path, bomb: str) -> None:
    assert len(refused(tmp_path, bomb)) == 1
