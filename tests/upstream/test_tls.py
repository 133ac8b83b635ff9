"""TLS towards servers: own CA, client certificates, one context per set of files."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fastgw.errors import Fault, Kind
from fastgw.upstream.transports.http import tls_context
from tests.upstream.raw_server import Peer, ok, post, raw_server, run, slots, wire_to


class Authority:
    """A CA that lives as long as its test."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.path = str(folder / f"{name}.pem")
        Path(self.path).write_bytes(self._signed(self.subject, self.key, x509.BasicConstraints(True, None)))

    def issue(self, name: str, hours: float = 1.0, curve: type[ec.EllipticCurve] = ec.SECP256R1) -> tuple[str, str]:
        """Paths of a certificate for 127.0.0.1 that is good for so many hours, and of its key."""
        key = ec.generate_private_key(curve())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        cert, private = self.folder / f"{self.name}-{name}.pem", self.folder / f"{self.name}-{name}.key"
        cert.write_bytes(self._signed(subject, key, x509.BasicConstraints(False, None), hours))
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return str(cert), str(private)

    def _signed(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        constraints: x509.BasicConstraints,
        hours: float = 1.0,
    ) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder(self.subject, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=hours))
            .add_extension(constraints, True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


async def echo(peer: Peer) -> None:
    while got := await peer.request():
        await peer.say(ok(got[1]))


def server_side(authority: Authority, *, clients: Authority | None = None, hours: float = 1.0) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server", hours))
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients.path)
    return context


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours"), "ours")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("foreign"), "foreign")


loops = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


@loops
def test_a_server_of_our_ca_is_trusted_and_its_connection_pooled(loop: str, ours: Authority) -> None:
    async def work() -> None:
        async with raw_server(echo, server_side(ours)) as server:
            async with wire_to(server, tls=(ours.path, None, None)) as transport:
                for body in (b"a", b"b" * 90_000):
                    assert (await post(transport, body)).body == body
                assert slots(transport) == 0
            assert len(server.peers) == 1

    run(loop, work())


@loops
@pytest.mark.parametrize("trusting", ["foreign", "system"])
def test_a_server_of_another_ca_is_no_server(loop: str, trusting: str, ours: Authority, foreign: Authority) -> None:
    async def work() -> None:
        ca = foreign.path if trusting == "foreign" else None
        async with raw_server(echo, server_side(ours)) as server:
            async with wire_to(server, tls=(ca, None, None)) as transport:
                with pytest.raises(Fault) as caught:
                    await post(transport)
                assert (caught.value.kind, caught.value.sent) == (Kind.NO_SERVER, False)
                assert slots(transport) == 0
            assert not server.peers

    run(loop, work())


@loops
def test_a_client_certificate_is_shown(loop: str, ours: Authority) -> None:
    async def work() -> None:
        files = (ours.path, *ours.issue("client"))
        async with (
            raw_server(echo, server_side(ours, clients=ours)) as server,
            wire_to(server, tls=files) as w,
        ):
            assert (await post(w, b"a")).body == b"a"

    run(loop, work())


@loops
def test_a_missing_or_foreign_client_certificate_fails(loop: str, ours: Authority, foreign: Authority) -> None:
    async def work() -> None:
        async with raw_server(echo, server_side(ours, clients=ours)) as server:
            for cert in ((None, None), foreign.issue("client")):
                async with wire_to(server, tls=(ours.path, *cert)) as transport:
                    with pytest.raises(Fault) as caught:
                        await post(transport)
                    # TLS 1.3 lets the client send before the server has judged its certificate.
                    assert caught.value.kind in (Kind.NO_SERVER, Kind.LOST)
                    assert caught.value.sent is (caught.value.kind is Kind.LOST)
                    assert slots(transport) == 0

    run(loop, work())


def test_a_context_is_built_once_until_the_next_load(ours: Authority) -> None:
    cert, key = ours.issue("twice")
    first = tls_context(ours.path, cert, key)
    assert tls_context(ours.path, cert, key) is first
    assert tls_context(ours.path, None, None) is not first
    tls_context.cache_clear()
    assert tls_context(ours.path, cert, key) is not first
    assert first.verify_mode is ssl.CERT_REQUIRED
    assert first.check_hostname


def test_unusable_files_are_named(ours: Authority, tmp_path: Path) -> None:
    cert, _ = ours.issue("one")
    _, other = ours.issue("two")
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    for files, named in [
        ((str(tmp_path / "none.pem"), None, None), "none.pem"),
        ((str(junk), None, None), "junk.pem"),
        ((None, cert, other), "two.key"),
        ((None, str(junk), None), "junk.pem"),
    ]:
        with pytest.raises(ValueError, match=named):
            tls_context(*files)
