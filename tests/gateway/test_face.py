"""How each kind of agent hears one and the same fault."""

from __future__ import annotations

import json

import pytest

from fastgw.faults import Fault, Kind
from fastgw.gateway.lift import legacy, modern, rest
from fastgw.gateway.lift.face import Face
from fastgw.mcp import names

FACES: list[tuple[Face, int, int]] = [
    (modern.FACE, -32602, 400),
    (rest.FACE, -32602, 404),
    *((legacy.LegacyFace(version), -32002, 200) for version in names.LEGACY_VERSIONS),
]


@pytest.mark.parametrize(("face", "code", "status"), FACES)
def test_an_unknown_resource(face: Face, code: int, status: int) -> None:
    fault = Fault(Kind.UNKNOWN_RESOURCE, data={"uri": "x:y"})
    assert (face.code(fault), face.status(fault)) == (code, status)
    told = json.loads(face.refusal(fault, b'"7"', "req_1"))
    if face is rest.FACE:
        about = {"requestId": "req_1", "mayHaveRun": False, "uri": "x:y"}
        assert told == {"error": "Resource not found", "code": code, **about}
    else:
        assert (told["id"], told["error"]["code"], told["error"]["data"]["uri"]) == ("7", code, "x:y")


@pytest.mark.parametrize(
    ("face", "missing", "other"),
    [(modern.FACE, 400, 200), (legacy.LegacyFace("2025-11-25"), 200, 200), (rest.FACE, 502, 502)],
)
def test_a_server_s_own_error(face: Face, missing: int, other: int) -> None:
    assert (face.failed(names.MISSING_CAPABILITY), face.failed(-32050)) == (missing, other)
    error = b'{"code": -32050, "message": "no", "data":[1.10]}'
    told = face.failure(b"7", error, "req_1")
    if face is rest.FACE:
        assert told == b'{"error":"no","code":-32050,"data":[1.10],"requestId":"req_1","mayHaveRun":true}'
    else:
        assert told == b'{"jsonrpc":"2.0","id":7,"error":' + error + b"}"
