"""Requests that would have done what their agent may not use, a tool, a prompt or a resource, if they deceived anybody.

for spoof in spoofs(10_000, seed=7, sessions=("one of 2025-11-25", "one of 2025-03-26")):
    spoof.asked, spoof.path           # what the agent sends
    spoof.twin, spoof.twin_path       # the same about a name that nobody has: it must be answered alike

Knows: how a request names things, and the ways in which two readers of it could differ. Refuses to know: gateways.
"""

from __future__ import annotations

import gzip
import json
import random
import unicodedata
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.e2e.http import NAMED, Asked, in_base64, legacy, modern

KEY = "fgw_test_everything"
OPEN = {"tools/call": "open-tool-a", "prompts/get": "open-talk-a", "resources/read": "docs://open/page"}
"""What the agent may use, by method."""
CLOSED = {
    "tools/call": ("denied-tool1", "hidden-tool1", "routed-tool1", "staff-tool-1", "alpha__both-1", "owned-tool1"),
    "prompts/get": ("denied-talk1", "staff-talk-1"),
    "resources/read": ("docs://secret/page", "vault://keys/one"),
}
"""What is there, and not for it."""
OFFERED: dict[str, dict[str, tuple[str, ...]]] = {
    "alpha": {
        "tools": ("open-tool-a", "denied-tool1", "hidden-tool1", "routed-tool1", "staff-tool-1", "both-1"),
        "prompts": ("open-talk-a", "denied-talk1", "staff-talk-1"),
        "resources": ("docs://open/page", "docs://secret/page", "vault://keys/one"),
    },
    "beta": {"tools": ("owned-tool1", "both-1")},
}
"""What the servers have."""
RULES: dict[str, Any] = {
    "tools": {"hidden-tool1": {"hidden": True}, "front": {"to": "alpha/routed-tool1"}},
    "policies": [
        {
            "name": "testers",
            "match": {"claims": {"team": "test"}},
            "allow": ["open-*", "denied-*", "hidden-*", "routed-*", "owned-*", "*both-1", "front",
                      "prompt:open-*", "prompt:denied-*", "resource:docs://open/*"],
            "deny": ["denied-tool1", "both-1", "beta/owned-tool1", "prompt:denied-talk1", "resource:docs://secret/*"],
        },
        {"name": "staff", "match": {"claims": {"team": "staff"}}, "allow": ["*", "prompt:*", "resource:*"]},
    ],
    "endpoints": {"/mcp": {}, "/mcp/ops": {}},
}  # fmt: skip
"""Settings by which the agent has `OPEN`, and not `CLOSED`."""
OLDEST = "2025-03-26"
Dice = random.Random
JSON_TYPE = "application/json"


@dataclass(frozen=True)
class Spoof:
    """One request, and its twin; `kind` says which idea it comes from."""

    kind: str
    path: str
    asked: Asked
    twin_path: str
    twin: Asked

    @property
    def wire(self) -> tuple[Any, ...]:
        """What makes it another one."""
        return self.path, self.asked.verb, tuple(self.asked.headers), self.asked.body


def nobodys(name: str) -> str:
    """A name that nobody has, of the same letters in other places."""
    scheme, found, rest = name.rpartition("://")
    letters = [letter for letter in rest if letter.isalpha()]
    turned = "".join(letters.pop() if letter.isalpha() else letter for letter in rest)
    assert turned != rest
    return f"{scheme}{found}{turned}"


def spoofs(count: int, seed: int, sessions: tuple[str, str]) -> Iterator[Spoof]:
    """So many different ones. `sessions`: of the agent, one of 2025-11-25 and one of 2025-03-26."""
    seen: set[Any] = set()
    number = 0
    while len(seen) < count:
        number += 1
        dice = Dice(f"{seed} {number}")
        make = dice.choice(MAKERS)
        method = "tools/call" if make in TOOLS_ALONE else dice.choice(("tools/call",) * 4 + tuple(OPEN)[1:])
        name, state = dice.choice(CLOSED[method]), dice.getstate()
        path, asked = make(dice, method, name, sessions)
        dice.setstate(state)
        twin_path, twin = make(dice, method, nobodys(name), sessions)
        spoof = Spoof(make.__name__.strip("_"), path, asked, twin_path, twin)
        if spoof.wire not in seen:
            seen.add(spoof.wire)
            yield spoof


# -- other names for the same thing ---------------------------------------------------------------------------------

FULLWIDTH = {chr(code): chr(code + 0xFEE0) for code in range(0x21, 0x7F)}
LIKE = {
    "a": "\u0430\u0251\u03b1", "c": "\u0441\u03f2", "d": "\u0501\u217e", "e": "\u0435\u212f", "h": "\u04bb",
    "i": "\u0456\u0131\u2170", "l": "\u04cf\u217c", "n": "\u0578", "o": "\u043e\u03bf\u0585", "p": "\u0440\u03c1",
    "r": "\u0433", "s": "\u0455\u017f", "t": "\u0442", "u": "\u057d\u03c5", "v": "\u0475\u03bd", "w": "\u051d",
    "y": "\u0443", "-": "\u2010\u2011\u2013\u2212\u00ad", "1": "\u0661", "/": "\u2044\u2215",
}  # fmt: skip
UNSEEN = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u180e\u034f\u202a\u202e"
UNSEEN += "\u2066\u2069\u200e\u200f\u061c\ufe0f\u0300\u0301\u0327\u20dd"
EDGES = (
    " ", "\t", "\n", "\r\n", "\0", "\u00a0", "\u3000", "\u2028", ".", "..", "/", "\\", ";", ";v=1", "%00", "%20",
    "%0a", "#", "?", "?x", "&", ",", "'", '"', "\\u0000", "\x7f", "\x1b[0m", "\x08", "*", "()", "{}", "[]", "@", ":",
    "=", "~", "|", "`id`",
)  # fmt: skip
PREFIXES = (
    "alpha/", "alpha__", "ALPHA__", "Alpha/", "beta__", "beta/", "alpha//", "alpha\\", "alpha.", "alpha:", "alpha_",
    "alpha___", "alpha__alpha__", "/alpha/", "./", "../", "../../", "/", "//", "tools/", "tool:", "prompt:",
    "resource:", "mcp/", "/mcp/tools/", "http://127.0.0.1/mcp/tools/", "open-tool-a/../", "open-tool-a,",
    "open-tool-a;", "open-tool-a\0", "open-tool-a\n", "open-tool-a|", "open-tool-a ", "front/", "*/", "%2e%2e/",
)  # fmt: skip


def another(dice: Dice, name: str) -> str:
    """The name as some reader might take it for the same."""
    for _ in range(dice.choice((1, 1, 1, 2, 2, 3))):
        # Dice of its own for each step: what else is decided must not depend on the letters of the name.
        name = dice.choice(WAYS)(Dice(dice.getrandbits(64)), name)
    return name if name not in OPEN.values() else f"{name} "


def _cased(dice: Dice, name: str) -> str:
    dice = Dice(dice.getrandbits(64))
    found = "".join(dice.choice((letter.upper(), letter)) for letter in name)
    return found if found != name else name.upper()


def _like(dice: Dice, name: str) -> str:
    at = dice.randrange(len(name))
    return name[:at] + dice.choice((*LIKE.get(name[at], ""), FULLWIDTH.get(name[at], "\u00e9"))) + name[at + 1 :]


def _typed(dice: Dice, name: str) -> str:
    at = dice.randrange(len(name))
    return name[:at] + dice.choice("1lI|0O5S_-/\\") + name[at + 1 :]


def _wide(dice: Dice, name: str) -> str:
    return "".join(FULLWIDTH.get(letter, letter) if dice.random() < 0.8 else letter for letter in name) + "\u200b"


def _unseen(dice: Dice, name: str) -> str:
    at = dice.randint(0, len(name))
    return name[:at] + "".join(dice.choices(UNSEEN, k=dice.randint(1, 3))) + name[at:]


def _accented(dice: Dice, name: str) -> str:
    at = dice.randrange(len(name))
    form = dice.choice(("NFC", "NFD", "NFKC", "NFKD"))
    return unicodedata.normalize(form, name[: at + 1] + dice.choice("\u0301\u0308\u0328\u0323") + name[at + 1 :])


def _edged(dice: Dice, name: str) -> str:
    return dice.choice(EDGES) + name if dice.random() < 0.4 else name + dice.choice(EDGES)


def _prefixed(dice: Dice, name: str) -> str:
    return dice.choice(PREFIXES) + name


def _percent(dice: Dice, name: str) -> str:
    form = dice.choice(
        ("%{:02x}", "%{:02X}", "%25{:02x}", "&#{};", "&#x{:x};", "\\u{:04x}", "\\x{:02x}", "%u{:04x}", "+{:x}-")
    )
    at = dice.randrange(len(name))
    return name[:at] + form.format(ord(name[at])) + name[at + 1 :]


def _long(dice: Dice, name: str) -> str:
    """Longer names than 64 letters are shortened with a hash where they are ours; not where they are an agent's."""
    filler = dice.choice(("x", "_", " ", "\u200b", "/", "-"))
    size = dice.choice((64 - len(name), 65 - len(name), 128, 129, 300, 5000))
    return name + filler * max(1, size) + dice.choice(("", f"_{dice.getrandbits(32):08x}"))


def _coded(dice: Dice, name: str) -> str:
    text = b64encode(name.encode("utf-8", "surrogatepass")).decode()
    return dice.choice(
        (text, f"=?base64?{text}?=", f"=?utf-8?b?{text}?=", f"base64:{text}", name.encode().hex(), f"xn--{name}")
    )


def _backwards(dice: Dice, name: str) -> str:
    return f"{dice.choice(chr(0x202E) + chr(0x2067))}{name[::-1]}{dice.choice(('', chr(0x202C)))}"


WAYS = (_cased, _like, _typed, _wide, _unseen, _accented, _edged, _prefixed, _percent, _long, _coded, _backwards)
URI_WAYS = (
    "docs:secret/page", "docs:/secret/page", "docs:///secret/page", "DOCS://secret/page", "docs://SECRET/page",
    "docs://secret/./page", "docs://open/../secret/page", "docs://open/%2e%2e/secret/page",
    "docs://open/..%2fsecret/page", "docs://secret//page", "docs://secret/page/", "docs://secret/page?",
    "docs://secret/page#", "docs://secret/page#x", "docs://u@secret/page", "docs://secret:80/page",
    "docs://secret:/page", "docs://secret./page", "docs://secret/p%61ge", "docs://secret/%70age",
    "docs://secret\\page", "docs://open/page/../../secret/page", "alpha+docs://secret/page",
    "alpha/docs://secret/page", "resource:docs://secret/page", "docs://open@secret/page", " docs://secret/page",
)  # fmt: skip


# -- how a body says it ---------------------------------------------------------------------------------------------


def quoted(dice: Dice, name: str) -> str:
    """A JSON string; some of its letters escaped, which changes nothing for who reads JSON."""
    dice = Dice(dice.getrandbits(64))
    if dice.random() < 0.5:
        return json.dumps(name, ensure_ascii=dice.random() < 0.5)
    form = dice.choice(("\\u{:04x}", "\\u{:04X}"))
    text = "".join(
        form.format(ord(one)) if ord(one) < 0x10000 and dice.random() < 0.3 else json.dumps(one)[1:-1] for one in name
    )
    return f'"{text}"'


def _usual(dice: Dice, method: str, name: str, sessions: tuple[str, str], *, is_modern: bool | None = None) -> Asked:
    """The request about a name in either era, honest but for what it asks for."""
    more: dict[str, Any] = {"arguments": {}} if method == "tools/call" else {}
    params = {NAMED[method]: name, **more}
    if dice.random() < 0.5 if is_modern is None else is_modern:
        return modern(method, params, key=KEY, id=dice.randint(1, 99)).having("Mcp-Name", shown(dice, name))
    return legacy(method, params, key=KEY, id=dice.randint(1, 99), session=sessions[0])


def shown(dice: Dice, name: str) -> str:
    """A name as a header says it."""
    is_bare = dice.random() < 0.6
    is_plain = name.isascii() and name.isprintable() and name == name.strip() and not name.startswith("=?")
    return name if is_bare and is_plain else in_base64(name)


def _said(asked: Asked, name: str, text: str) -> Asked:
    """The same with this JSON text in place of the name."""
    whole = json.dumps(name).encode()
    assert asked.body.count(whole) >= 1
    return Asked(asked.body.replace(whole, text.encode("utf-8", "surrogatepass"), 1), asked.headers, asked.verb)


def plain(dice: Dice, method: str, name: str, sessions: tuple[str, str]) -> tuple[str, Asked]:
    """The name itself, in JSON of some form."""
    return "/mcp", _said(_usual(dice, method, name, sessions), name, quoted(dice, name))


def renamed(dice: Dice, method: str, name: str, sessions: tuple[str, str]) -> tuple[str, Asked]:
    """Another name for it."""
    if method == "resources/read" and dice.random() < 0.4:
        own = dice.choice(URI_WAYS)
        name = own.replace("secret/page", name.rpartition("//")[2]) if "secret/page" in own else name + own[-2:]
    else:
        name = another(dice, name)
    return "/mcp", _said(_usual(dice, method, name, sessions), name, quoted(dice, name))


KEYS = ("{}", "{}", "{}", "\\u{first:04x}{rest}", "{title}", "{upper}", "{odd}")


def _key(dice: Dice, key: str) -> str:
    odd = "".join(dice.choice((letter, letter.upper())) for letter in key)
    form = dice.choice(KEYS)
    return form.format(key, first=ord(key[0]), rest=key[1:], title=key.title(), upper=key.upper(), odd=odd)


def twice(dice: Dice, method: str, name: str, sessions: tuple[str, str]) -> tuple[str, Asked]:
    """The member that names it two or three times, spelled in several ways, in any order."""
    member, free = NAMED[method], OPEN[method]
    values = [free, name, *([dice.choice((free, name))] if dice.random() < 0.3 else [])]
    dice.shuffle(values)
    keys = [_key(dice, member) for _ in values]
    keys[0] = member if keys[0] not in (member, f"\\u{ord(member[0]):04x}{member[1:]}") else keys[0]
    text = ",".join(f'"{key}":{quoted(dice, value)}' for key, value in zip(keys, values, strict=True))
    asked = _usual(dice, method, free, sessions)
    whole = f'"{member}": {json.dumps(free)}'.encode()
    asked = Asked(asked.body.replace(whole, text.encode()), asked.headers)
    return "/mcp", asked.having("Mcp-Name", shown(dice, dice.choice((free, name)))) if _is_modern(asked) else asked


def _is_modern(asked: Asked) -> bool:
    return any(header == "Mcp-Method" for header, _ in asked.headers)


def whole_twice(dice: Dice, method: str, name: str, sessions: tuple[str, str]) -> tuple[str, Asked]:
    """`params`, `method` or `id` two times, in any spelling and order."""
    free = _usual(dice, method, OPEN[method], sessions)
    member = dice.choice(("params", "params", "method"))
    first = free.body if dice.random() < 0.5 else free.body.replace(json.dumps(OPEN[method]).encode(), b'""')
    kept = json.loads(first)
    other = (
        {**kept["params"], NAMED[method]: name} if member == "params" else dice.choice((method, "ping", "tools/list"))
    )
    spelled = _key(dice, member) if dice.random() < 0.8 else member.replace("s", "\u017f", 1)
    if member == "method":
        kept["params"][NAMED[method]] = name
    more = f'"{spelled}": {json.dumps(other)}'
    text = json.dumps(kept)
    text = f"{{{more}, {text[1:]}" if dice.random() < 0.5 else f"{text[:-1]}, {more}}}"
    asked = Asked(text.encode(), free.headers)
    return "/mcp", asked.having("Mcp-Name", shown(dice, name)) if _is_modern(asked) and dice.random() < 0.5 else asked


def lying(dice: Dice, method: str, name: str, sessions: tuple[str, str]) -> tuple[str, Asked]:
    """Headers that say another name or method than the body; either of them may be the one that is not allowed."""
    free = OPEN[method]
    body, header = dice.choice(((name, free), (free, name)))
    asked = _usual(dice, method, body, sessions, is_modern=True)
    text = b64encode(header.encode()).decode()
    forms = (
        header, in_base64(header),
        f"=?BASE64?{text}?=", f"=?base64?{text}", f"=?base64?{text}?= ;", f"=?base64?{text}=?=",
        f"{header},{body}",
        f"{body},{header}", f"{body}; {header}", f"=?base64?{text}?=,{body}",
        f"=?base64?{b64encode((header + chr(0) + body).encode()).decode()}?=", f"=?base64?{text[:3]} {text[3:]}?=",
        f"{header}\t{body}", _cased(dice, header), another(dice, header).encode().decode("latin-1"),
    )  # fmt: skip
    said = "".join(letter for letter in dice.choice(forms) if letter not in "\r\n\0")
    if said.strip() == body:
        said = header
    way = dice.randrange(6)
    if way == 0:
        lines = [("Mcp-Name", said), ("Mcp-Name", body)]
        dice.shuffle(lines)
        return "/mcp", Asked(asked.body, [*asked.without("Mcp-Name").headers, *lines])
    if way == 1:
        spelled = dice.choice(("mcp-name", "MCP-NAME", "mCP-nAME"))
        return "/mcp", Asked(asked.body, [*asked.without("Mcp-Name").headers, (spelled, said)])
    if way == 2:
        other = dice.choice(
            (
                "tools/list",
                "prompts/get",
                "ping",
                method.upper(),
                f"{method},{method}",
                f"{method}/",
                "",
                in_base64(method),
            )
        )
        return "/mcp", _usual(dice, method, name, sessions, is_modern=True).having(
            "Mcp-Method", other if other != method else "tools/list"
        )
    if way == 3:
        asked = _usual(dice, method, name, sessions, is_modern=True)
        return "/mcp", Asked(asked.body, [*asked.headers, ("Mcp-Method", dice.choice((method, "tools/list")))])
    if way == 4:  # of another revision, whose headers decide nothing
        old = _usual(dice, method, name, sessions, is_modern=False)
        return "/mcp", old.having("Mcp-Name", said if header == free else free).having(
            "Mcp-Method", dice.choice((method, "ping"))
        )
    return "/mcp", asked.having("Mcp-Name", said)


def other_method(dice: Dice, method: str, name: str, sessions: tuple[str, str]) -> tuple[str, Asked]:
    """A method that some reader might take for the one that is meant; or another kind of thing by that name."""
    if dice.random() < 0.4:
        own = dice.choice([one for one in NAMED if one != method])
        params: dict[str, Any] = {NAMED[own]: name}
    elif dice.random() < 0.3:
        own, kind = "completion/complete", dice.choice(("ref/prompt", "ref/resource"))
        params = {"ref": {"type": kind, "name": name, "uri": name}, "argument": {"name": "a", "value": ""}}
    else:
        own = another(dice, method)
        params = {NAMED[method]: name}
    if own in NAMED and params.get(NAMED[own]) in OPEN.values():
        params[NAMED[own]] = name
    if dice.random() < 0.5:
        asked = modern("tools/call", {**params, "name": name}, key=KEY)
        body = asked.body.replace(b'"tools/call"', json.dumps(own).encode())
        return "/mcp", Asked(body, asked.having("Mcp-Method", shown(dice, own)).headers)
    return "/mcp", legacy(own, params, key=KEY, session=sessions[0])


def encoded(dice: Dice, method: str, name: str, sessions: tuple[str, str]) -> tuple[str, Asked]:
    """A body in another encoding than it should have, or with something before or behind it."""
    asked = _usual(dice, method, name if dice.random() < 0.6 else another(dice, name), sessions)
    body, more = asked.body, []
    way = dice.randrange(9)
    if way == 0:
        body = dice.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"\x1e", b")]}',\n", b"\x0b", b"//x\n")) + body
    elif way == 1:
        body = body.decode().encode(dice.choice(("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7", "cp037")))
    elif way == 2:
        body = dice.choice((gzip.compress(body, mtime=0), zlib.compress(body)))
        more = [("Content-Encoding", dice.choice(("gzip", "deflate", "br", "identity", "gzip, gzip", "x-gzip")))]
    elif way == 3:
        more = [("Content-Encoding", dice.choice(("gzip", "deflate", "br", "identity", "zstd")))]
    elif way == 4:
        body += dice.choice((b"\0", body, b"\n" + body, b"]", b",", b"//", b"\x1a", b"\xff"))
    elif way == 5:
        asked = asked.having("Content-Type", dice.choice((
            "application/json; charset=utf-16", "application/json;charset=utf-7", "text/json",
            "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json, text/plain",
            "application/jsonrpc", "application/json; x=\"{\"",
        )))  # fmt: skip
    elif way == 6:
        body = f"name={name}&method={method}&params[name]={name}".encode()
        asked = asked.having("Content-Type", dice.choice(("application/x-www-form-urlencoded", JSON_TYPE)))
    elif way == 7:
        body = dice.choice(
            (b"[%b]", b"[[%b]]", b'{"0":%b}', b'"%b"', b"[%b,", b"[%b]]", b'{"jsonrpc":"2.0","batch":[%b]}')
        ).replace(b"%b", body)
    else:
        body = body.replace(
            b'"jsonrpc": "2.0"',
            dice.choice((b'"jsonrpc": 2.0', b'"jsonrpc": "2.0", "jsonrpc": "1.0"', b'"jsonrpc": "2.00"')),
        )
    return "/mcp", Asked(body, [*asked.headers, *more])


def batched(dice: Dice, method: str, name: str, sessions: tuple[str, str]) -> tuple[str, Asked]:
    """Several at once, in a session of the one revision that has batches."""
    usual = [json.loads(_usual(dice, method, name, sessions, is_modern=False).body) for _ in range(dice.randint(1, 4))]
    items = [
        {**one, "id": at, "params": {**one["params"], NAMED[method]: another(dice, name) if at % 2 else name}}
        for at, one in enumerate(usual)
    ]
    like = legacy("ping", key=KEY, session=sessions[1], version=OLDEST)
    return "/mcp", Asked(json.dumps(items, ensure_ascii=dice.random() < 0.5).encode(), like.headers)


def unanswered(dice: Dice, method: str, name: str, sessions: tuple[str, str]) -> tuple[str, Asked]:
    """A notification, or an answer that nobody has asked for, that says it."""
    asked = _usual(dice, method, name if dice.random() < 0.5 else another(dice, name), sessions)
    message = json.loads(asked.body)
    del message["id"]
    if dice.random() < 0.3:
        message = {"jsonrpc": "2.0", "id": dice.randint(1, 99), "result": {"method": method, **message["params"]}}
    return "/mcp", Asked(json.dumps(message).encode(), asked.headers)


# -- how a path says it ---------------------------------------------------------------------------------------------

PATHS = (
    "/mcp/tools/{}/invoke", "/mcp/tools/{}/invoke", "/mcp/tools/{}/invoke", "/mcp/tools//{}/invoke",
    "/mcp//tools/{}/invoke", "//mcp/tools/{}/invoke", "/mcp/tools/{}/invoke/", "/mcp/tools/{}/Invoke",
    "/mcp/TOOLS/{}/invoke", "/MCP/tools/{}/invoke", "/mcp/tools/open-tool-a/../{}/invoke",
    "/mcp/tools/open-tool-a%2f..%2f{}/invoke", "/mcp/tools/open-tool-a/invoke/../../{}/invoke",
    "/mcp/tools/./{}/invoke", "/mcp/tools/%2e/{}/invoke", "/mcp/x/../tools/{}/invoke",
    "/mcp/%2e%2e/mcp/tools/{}/invoke", "/mcp;x/tools/{}/invoke", "/mcp/tools;x/{}/invoke", "/mcp/tools/{};x/invoke",
    "/mcp/tools/{}/invoke;x", "/mcp/tools/{}%2finvoke", "/mcp%2ftools%2f{}%2finvoke", "/mcp/tools%2f{}/invoke",
    "/mcp/tools/alpha/{}/invoke", "/mcp/tools/alpha%2F{}/invoke", "/mcp/tools/alpha__{}/invoke",
    "/mcp/ops/../tools/{}/invoke", "/mcp/ops/tools/../../tools/{}/invoke", "/mcp/tools/{}/invoke?name=open-tool-a",
    "/mcp/tools/{}%00/invoke", "/mcp/tools/{}%20/invoke", "/mcp/tools/%20{}/invoke", "/mcp/tools/{}./invoke",
    "/mcp/tools/{}%ff/invoke", "/mcp/tools/%c0%af{}/invoke", "/mcp/tools/{}%/invoke", "/mcp/tools/%{}/invoke",
    "/mcp/tools/{}%e2%80%8b/invoke", "/mcp/tools/{}+/invoke", "/mcp/tools/{}\\invoke", "/mcp\\tools\\{}\\invoke",
    "/mcp/%74ools/{}/%69nvoke", "/%6dcp/tools/{}/invoke",
)  # fmt: skip


BARE = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~"


def by_path(dice: Dice, method: str, name: str, sessions: tuple[str, str]) -> tuple[str, Asked]:
    """Over plain HTTP."""
    if dice.random() < 0.4:
        name = another(dice, name)[:300]
    form = dice.choice(("%{:02x}", "%{:02X}", "%{:02x}", "%25{:02x}", "%25{:02X}"))
    chance, own = dice.choice((0.0, 0.2, 0.5, 1.0)), Dice(dice.getrandbits(64))
    text = "".join(chr(one) if one in BARE and own.random() >= chance else form.format(one) for one in name.encode())
    headers = [("Authorization", f"Bearer {KEY}"), ("Accept", JSON_TYPE), ("Content-Type", JSON_TYPE)]
    verb = dice.choice(("POST",) * 8 + ("GET", "PUT"))
    if dice.random() < 0.2:
        headers.append(dice.choice((
            ("Mcp-Name", "open-tool-a"), ("X-HTTP-Method-Override", "POST"),
            ("X-Original-URL", "/mcp/tools/open-tool-a/invoke"), ("X-Rewrite-URL", "/mcp/tools/open-tool-a/invoke"),
            ("Mcp-Method", "tools/call"), ("X-Forwarded-Prefix", "/mcp"),
        )))  # fmt: skip
    body = dice.choice((b"{}", b'{"name":"open-tool-a"}', b'{"tool":"open-tool-a","arguments":{}}'))
    return dice.choice(PATHS).replace("{}", text), Asked(body if verb == "POST" else b"", headers, verb)


Maker = Callable[[Dice, str, str, tuple[str, str]], tuple[str, Asked]]
MAKERS: tuple[Maker, ...] = (
    plain, renamed, renamed, renamed, twice, twice, whole_twice, lying, lying, other_method, encoded, batched,
    unanswered, by_path, by_path,
)  # fmt: skip
TOOLS_ALONE: tuple[Maker, ...] = (by_path,)


# -- how it is answered ---------------------------------------------------------------------------------------------

OWN = ("x-request-id", "date", "content-length")


def answer_of(status: int, headers: list[tuple[str, str]], body: bytes) -> Any:
    """All of an answer, less what is each one's own: its id, and the name as it came."""
    kept = sorted((name, value) for name, value in headers if name not in OWN)
    try:
        return status, kept, _bare(json.loads(body))
    except ValueError:
        return status, kept, body


def _bare(found: Any) -> Any:
    if isinstance(found, list):
        return [_bare(one) for one in found]
    if not isinstance(found, dict):
        return found
    own = {"requestId": "", "name": "", "uri": ""}
    bare = {key: own[key] if key in own else _bare(value) for key, value in found.items()}
    words = {key: bare[key].partition(": ")[0] for key in ("message", "error") if isinstance(bare.get(key), str)}
    return {**bare, **words}
