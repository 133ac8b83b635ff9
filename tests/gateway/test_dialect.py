"""How each kind of agent hears one and the same fault."""

from __future__ import annotations

import json

import pytest

from fastgw.errors import Fault, Kind
from fastgw.gateway.dialects import legacy, modern, rest
from fastgw.gateway.dialects.dialect import Dialect
from fastgw.protocol import names

DIALECTS: list[tuple[Dialect, int, int]] = [
    (modern.DIALECT, -32602, 400),
    (rest.DIALECT, -32602, 404),
    *((legacy.LegacyDialect(version), -32002, 200) for version in names.LEGACY_VERSIONS),
]


@pytest.mark.parametrize(("dialect", "code", "status"), DIALECTS)
def test_an_unknown_resource(dialect: Dialect, code: int, status: int) -> None:
    fault = Fault(Kind.UNKNOWN_RESOURCE, data={"uri": "x:y"})
    assert (dialect.code(fault), dialect.status(fault)) == (code, status)
    told = json.loads(dialect.refusal(fault, b'"7"', "req_1"))
    if dialect is rest.DIALECT:
        about = {"requestId": "req_1", "mayHaveRun": False, "uri": "x:y"}
        assert told == {"error": "Resource not found", "code": code, **about}
    else:
        assert (told["id"], told["error"]["code"], told["error"]["data"]["uri"]) == ("7", code, "x:y")


@pytest.mark.parametrize(
    ("dialect", "missing", "other"),
    [(modern.DIALECT, 400, 200), (legacy.LegacyDialect("2025-11-25"), 200, 200), (rest.DIALECT, 502, 502)],
)
def test_a_server_s_own_error(dialect: Dialect, missing: int, other: int) -> None:
    assert (dialect.error_status(names.MISSING_CAPABILITY), dialect.error_status(-32050)) == (
        missing,
        other,
    )
    error = b'{"code": -32050, "message": "no", "data":[1.10]}'
    told = dialect.server_error(b"7", error, "req_1")
    if dialect is rest.DIALECT:
        assert told == b'{"error":"no","code":-32050,"data":[1.10],"requestId":"req_1","mayHaveRun":true}'
    else:
        assert told == b'{"jsonrpc":"2.0","id":7,"error":' + error + b"}"
