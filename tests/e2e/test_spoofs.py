"""Some hundred of the requests of `tests/gateway/spoofs.py` over HTTP, at two workers, before a server of either era:
framed, decoded and normalised by a real HTTP server first.
"""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise
from pathlib import Path

from tests.e2e.gateway import fingerprint
from tests.e2e.http import LEGACY, Asked, Reply, exchange, modern, open_session, send_raw
from tests.e2e.library import Library, done, libraries, offered, said, text
from tests.gateway.spoofs import CLOSED, KEY, OFFERED, OLDEST, OPEN, RULES, Spoof, answer_of, spoofs

GENERATED = 400
SEED = 7
AGENTS = {
    "tester": {"key": fingerprint(KEY), "claims": {"team": "test"}},
    "staff": {"key": fingerprint("fgw_test_staff"), "claims": {"team": "staff"}},
}
LISTS = {"tools/call": "tools/list", "prompts/get": "prompts/list", "resources/read": "resources/list"}


def library(
    era: str, tools: tuple[str, ...], prompts: tuple[str, ...] = (), resources: tuple[str, ...] = ()
) -> Library:
    """A server that has these, and reads every other URI too."""
    return Library(
        era,
        dict.fromkeys(tools, done),
        prompts=dict.fromkeys(prompts, said()),
        resources={uri: text(uri) for uri in resources},
        unlisted=text,
    )


def fits_http(asked: Asked) -> bool:
    """Whether a client of HTTP can send it: no control characters in a header."""
    return all(value.isprintable() or "\t" in value for _, value in asked.headers)


def told(reply: Reply) -> object:
    return answer_of(reply.status, reply.headers, reply.body)


def in_pieces(asked: Asked, url: str, dice: random.Random) -> bytes:
    """The same in chunks, cut anywhere, with extensions and a trailer: framing of HTTP/1.1 that changes nothing."""
    head = asked.having("Transfer-Encoding", "chunked").on_wire(url).partition(b"\r\n\r\n")[0]
    cuts = sorted({0, len(asked.body), *(dice.randrange(1, len(asked.body)) for _ in range(5))})
    pieces = [asked.body[at:to] for at, to in pairwise(cuts)]
    chunks = b"".join(b"%x;name=open-tool-a\r\n%b\r\n" % (len(one), one) for one in pieces)
    return head + b"\r\n\r\n" + chunks + b"0\r\nMcp-Name: open-tool-a\r\n\r\n"


def test_no_server_hears_of_a_spoof_over_http(tmp_path: Path) -> None:
    boxes = {"alpha": library("modern", **OFFERED["alpha"]), "beta": library("legacy", **OFFERED["beta"])}

    async def story() -> None:
        async with libraries(tmp_path, boxes, agents=AGENTS, failed_credentials="off", **RULES) as gateway:
            for method, name in OPEN.items():
                await offered(gateway.url, LISTS[method], [name])
            await offered(gateway.url, "tools/list", ["alpha__both-1", "owned-tool1"], "fgw_test_staff")
            opened = [await open_session(gateway.url, key=KEY, version=version) for version in (LEGACY, OLDEST)]
            sent = [one for one in spoofs(GENERATED, SEED, (opened[0], opened[1])) if fits_http(one.asked)]
            assert len(sent) > 0.9 * GENERATED
            workers = set()
            for spoof in sent:
                reply = await exchange(gateway.root + spoof.path, spoof.asked)
                twin = await exchange(gateway.root + spoof.twin_path, spoof.twin)
                assert told(reply) == told(twin), spoof
                assert b'"result"' not in reply.body, spoof
                workers.add(str(reply.header("x-request-id"))[:-6])
            await chunked(gateway.url, [one for one in sent if one.path == "/mcp" and one.asked.body])
            heard = [one for box in boxes.values() for one in (*box.ledger, *box.heard)]
            assert heard == [], "no server was asked for anything"
            assert len(workers - {"None"[:-6]}) >= 2
            assert "Traceback" not in gateway.log()
            for method, name in OPEN.items():
                asked = modern(method, {"name": name, "uri": name}, key=KEY).having("Mcp-Name", name)
                assert (await exchange(gateway.url, asked)).status == 200
            # The same request of somebody who may is heard of: that nobody heard of others says something.
            for name in CLOSED["tools/call"][:1] + CLOSED["tools/call"][3:]:
                asked = modern("tools/call", {"name": name}, key="fgw_test_staff")
                assert "result" in (await exchange(gateway.url, asked)).json(), name

    asyncio.run(story())


async def chunked(url: str, sent: list[Spoof]) -> None:
    dice = random.Random(SEED)
    for spoof in sent[:60]:
        answer = await send_raw(url, in_pieces(spoof.asked, url, dice))
        assert b'"result"' not in answer, spoof
        assert answer.startswith(b"HTTP/1.1 "), spoof
