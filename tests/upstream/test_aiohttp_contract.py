"""What the lean exchange takes for granted about the installed aiohttp and httptools: an upgrade fails here first."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import aiohttp
import httptools
import pytest
from aiohttp import ClientRequest, ClientSession, ClientTimeout, TCPConnector
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from yarl import URL

from fastgw.upstream.transports.http import HttpConnector, HttpProtocol


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_the_pinned_version_is_installed() -> None:
    assert aiohttp.__version__ == "3.14.5"


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (TCPConnector.connect, ["self", "req", "traces", "timeout"]),
        (TCPConnector._wait_for_available_connection, ["self", "key", "traces"]),
        (TCPConnector._release_waiter, ["self"]),
        (TCPConnector._available_connections, ["self", "key"]),
        (TCPConnector._create_connection, ["self", "req", "traces", "timeout"]),
        (Connection.release, ["self"]),
        (Connection.close, ["self"]),
        (ResponseHandler.__init__, ["self", "loop"]),
        (ResponseHandler.data_received, ["self", "data"]),
        (ResponseHandler.connection_lost, ["self", "exc"]),
        (ResponseHandler.abort, ["self"]),
        (ResponseHandler.is_connected, ["self"]),
    ],
)
def test_what_is_called_or_overridden_has_its_shape(function: Any, names: list[str]) -> None:
    assert parameters(function) == names


def test_the_request_that_serves_as_a_key() -> None:
    assert isinstance(ClientRequest.connection_key, property)
    assert {"loop", "session", "ssl"} <= set(parameters(ClientRequest.__init__))
    assert ConnectionKey._fields[:4] == ("host", "port", "is_ssl", "ssl")
    assert {"total", "connect", "ceil_threshold"} <= set(parameters(ClientTimeout))
    assert isinstance(Connection.transport, property)
    assert isinstance(Connection.protocol, property)


def test_the_connector_makes_and_keeps_our_protocol() -> None:
    async def work() -> None:
        connector = HttpConnector(None, 7)
        assert isinstance(connector._factory(), HttpProtocol)
        assert set(connector._acquired) == set()
        assert dict(connector._conns) == {}
        assert dict(connector._waiters) == {}
        assert connector.limit == 7
        connector.streams(1)
        assert connector.limit == 8
        await connector.close()
        session = ClientSession()
        assert session._retry_connection is True
        await session.close()

    asyncio.run(work())


def test_a_fresh_protocol_may_be_pooled_and_a_lost_one_may_not() -> None:
    async def work() -> None:
        protocol = HttpProtocol(asyncio.get_running_loop(), streams=lambda more: None)
        assert protocol.should_close is False
        assert protocol.transport is None
        assert protocol._loop is asyncio.get_running_loop()
        protocol.connection_lost(None)
        assert protocol.should_close is True

    asyncio.run(work())


def test_our_names_do_not_hide_those_of_aiohttp() -> None:
    async def work() -> None:
        theirs = vars(ResponseHandler(asyncio.get_running_loop())).keys() | set(dir(ResponseHandler))
        ours = (
            vars(HttpProtocol(asyncio.get_running_loop(), streams=lambda more: None)).keys() | vars(HttpProtocol).keys()
        )
        shared = {name for name in ours & theirs if not name.startswith("__")}
        inherited = set(vars(ResponseHandler(asyncio.get_running_loop())))
        assert shared - inherited == {"data_received", "connection_lost"}
        assert not {"exchange", "_connection", "_http", "_lines", "_headed", "_whole", "_keep", "_silent"} & theirs

    asyncio.run(work())


def test_the_parser_tells_keep_alive_at_the_end_of_the_answer() -> None:
    told: list[Any] = []

    class Seen:
        def on_message_begin(self) -> None:
            told.append("begin")

        def on_headers_complete(self) -> None:
            told.append(parser.get_status_code())

        def on_message_complete(self) -> None:
            told.append(parser.should_keep_alive())

    parser = httptools.HttpResponseParser(Seen())
    parser.feed_data(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    parser.feed_data(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    assert told == ["begin", 100, True, "begin", 200, True, "begin", 200, False]
    assert not issubclass(httptools.HttpParserUpgrade, httptools.HttpParserError)


def test_the_host_line_comes_from_the_url() -> None:
    hosts = {
        "http://a:80/x": "a",
        "http://a:8080/": "a:8080",
        "https://[::1]:8443/": "[::1]:8443",
        "http://u:p@a/": "a",
    }
    for url, host in hosts.items():
        assert URL(url).with_user(None).host_port_subcomponent == host
