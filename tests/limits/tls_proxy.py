"""TLS before a server that has none: a proxy with a CA of its own and a certificate for 127.0.0.1 and localhost.

    with TlsProxy(server.port) as proxy:
        client = redis.Redis.from_url(proxy.url, ssl_ca_certs=str(proxy.ca))

Knows how a CA and its certificate are made so that the strictest of clients accepts them, and that both are gone with
the proxy. Refuses to know what is said; how answers go back is ruled as in `slow_proxy`.
"""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.limits.slow_proxy import SlowProxy

NAMES = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
LASTS = datetime.timedelta(hours=1)
SIGNS = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


class TlsProxy(SlowProxy):
    """`ca` is the file of the CA to trust."""

    SCHEME = "rediss"

    def __init__(self, port: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="vk-tls-")
        folder = Path(self._folder.name)
        self.ca = folder / "ca.pem"
        super().__init__(port, context=_context(self.ca, folder / "server.pem"))

    def close(self) -> None:
        """Close the listener and every connection, end the thread, remove the certificates."""
        super().close()
        self._folder.cleanup()


def _context(ca: Path, server: Path) -> ssl.SSLContext:
    """A server's context; both files are written here, the server's with its key."""
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = _begun("a test's CA", authority, authority)
    root = root.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).add_extension(SIGNS, True)
    ca.write_bytes(_signed(root, authority))
    leaf = _begun("a test's server", key, authority).add_extension(x509.SubjectAlternativeName(NAMES), critical=False)
    server.write_bytes(_signed(leaf, authority) + _private(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server)
    return context


def _begun(
    name: str, key: ec.EllipticCurvePrivateKey, authority: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
    return (
        x509.CertificateBuilder(_name("a test's CA"), _name(name), key.public_key(), x509.random_serial_number())
        .not_valid_before(now - LASTS)
        .not_valid_after(now + LASTS)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(issuer, critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _signed(certificate: x509.CertificateBuilder, authority: ec.EllipticCurvePrivateKey) -> bytes:
    return certificate.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())
