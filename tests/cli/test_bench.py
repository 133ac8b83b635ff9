"""`fastgw bench` as it is typed: through a gateway and directly, in both eras, and at tools that answer wrongly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fastgw.cli.main import main
from tests.e2e import asking, servers
from tests.e2e.aside import aside
from tests.e2e.gateway import KEY, fingerprint, running_beside
from tests.e2e.ports import free_port
from tests.e2e.servers import Call, Toolbox, serving

Said = pytest.CaptureFixture[str]
QUICK = ("--rate", "40", "--seconds", "1")
NONCE = ("--arguments", '{"text": "{nonce}"}')
SHARES = ["p50", "p90", "p99", "p99.9", "max"]


async def echo(call: Call) -> None:
    await call.text(json.dumps(call.arguments))


async def streamed(call: Call) -> None:
    text = json.dumps(json.dumps(call.arguments))
    await call.send(servers.STREAM)
    await call.send(servers.event(call.envelope(f'{{"content":[{{"type":"text","text":{text}}}]}}'.encode())))
    await call.send(servers.STREAM_END)


async def fail(call: Call) -> None:
    await call.result(b'{"content":[{"type":"text","text":"no luck"}],"isError":true}')


class Stale:
    """Says again and again what it said first, whoever asks."""

    def __init__(self) -> None:
        self.said = ""

    async def __call__(self, call: Call) -> None:
        self.said = self.said or json.dumps(call.arguments)
        await call.text(self.said)


@asynccontextmanager
async def scene(folder: Path) -> Any:
    tools = {"echo": echo, "fail": fail, "streamed": streamed, "stale": Stale()}
    boxes = {era: Toolbox(era, dict(tools)) for era in ("modern", "legacy")}
    async with serving(boxes["modern"]) as new, serving(boxes["legacy"]) as old:
        settings = {
            "servers": {"new": {"url": new.url}, "old": {"url": old.url}},
            "agents": {"tester": {"key": fingerprint(KEY)}},
        }
        async with running_beside(settings, folder) as gateway:
            await asking.listed(gateway, "new__echo", "old__echo")
            yield {"gateway": gateway.url, "modern": new.url, "legacy": old.url}


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with aside() as loop:
        yield loop.enter(scene(tmp_path_factory.mktemp("gateway")))


@pytest.fixture(autouse=True)
def keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTGW_KEY", KEY)


@pytest.mark.parametrize(("server", "words"), [("modern", ()), ("legacy", ("--legacy",))])
def test_what_the_gateway_adds(urls: dict[str, str], capsys: Said, server: str, words: tuple[str, ...]) -> None:
    tool = f"{'new' if server == 'modern' else 'old'}__echo"
    direct = ("--direct", urls[server], "--direct-tool", "echo")
    assert main(["bench", "--url", urls["gateway"], "--tool", tool, *direct, *NONCE, *QUICK, *words]) == 0
    head, *rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert head == ["ms", "calls", "errors", *SHARES]
    assert [row[0] for row in rows] == ["url", "direct", "added"]
    for row in rows[:2]:
        assert 10 < int(row[1]) < 100 and row[2] == "0"
        assert [float(one) for one in row[3:]] == sorted(float(one) for one in row[3:])
    differences = [float(one) - float(other) for one, other in zip(rows[0][3:], rows[1][3:], strict=True)]
    assert [float(one) for one in rows[2][1:]] == pytest.approx(differences, abs=0.002)


def test_figures_as_json_of_a_tool_that_streams(urls: dict[str, str], capsys: Said) -> None:
    assert main(["bench", "--url", urls["modern"], "--tool", "streamed", "--json", *NONCE, *QUICK]) == 0
    found = json.loads(capsys.readouterr().out)["url"]
    assert list(found) == ["calls", "errors", *SHARES, "late"]
    assert found["calls"] > 10 and found["errors"] == 0 and 0 < found["p50"] <= found["max"]


def test_another_calls_content_is_an_error(urls: dict[str, str], capsys: Said) -> None:
    assert main(["bench", "--url", urls["modern"], "--tool", "stale", "--json", *NONCE, *QUICK]) == 1
    shown = capsys.readouterr()
    found = json.loads(shown.out)["url"]
    assert found["calls"] == 0 and found["errors"] > 10
    assert f"url: {found['errors']} times: another call's content" in shown.err


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--tool", "fail"), 3, "fail does not answer: the tool says that it failed"),
        (("--tool", "missing"), 3, "missing does not answer: refused (-32602)"),
        (("--tool", "echo", "--rate", "0"), 2, "--rate must be above 0"),
        (("--tool", "echo", "--url", "ftp://x/"), 2, "the address cannot be used"),
        (("--tool", "echo", "--url", f"http://127.0.0.1:{free_port()}/"), 3, "cannot connect"),
    ],
)
def test_why_there_are_no_figures(
    urls: dict[str, str], capsys: Said, words: tuple[str, ...], status: int, said: str
) -> None:
    assert main(["bench", "--url", urls["modern"], *words]) == status
    shown = capsys.readouterr()
    assert shown.out == "" and said in shown.err


def test_arguments_are_an_object(capsys: Said) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "--tool", "echo", "--arguments", "[]"])
    assert ended.value.code == 2
    assert "--arguments: must be a JSON object" in capsys.readouterr().err


def test_a_key_that_is_none_goes_nowhere(urls: dict[str, str], capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTGW_DIRECT_KEY", "a\r\nX-Other: b")
    assert main(["bench", "--url", urls["modern"], "--tool", "echo", "--direct", urls["modern"]]) == 2
    assert "what FASTGW_DIRECT_KEY holds is no key" in capsys.readouterr().err
