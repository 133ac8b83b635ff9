"""What clients of OAuth find their way by: metadata of protected resources (RFC 9728), and challenges (RFC 6750).

All addresses are made of `public_url`; `Host` only chooses between several of these.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import orjson

from fastgw.errors import Fault, Kind
from fastgw.gateway.context import RequestContext
from fastgw.snapshot.model import Endpoint, Snapshot

WELL_KNOWN = "/.well-known/oauth-protected-resource"
ANY_PAGE = [(b"access-control-allow-origin", b"*")]
_PREFLIGHT = [
    (b"access-control-allow-methods", b"GET, HEAD"),
    (b"access-control-allow-headers", b"*"),
    (b"access-control-max-age", b"600"),
]
_KEPT = (b"cache-control", b"public, max-age=300")

Answer = tuple[int, list[tuple[bytes, bytes]], bytes]


def described(endpoints: Mapping[str, Endpoint], path: str) -> Endpoint | None:
    """The endpoint whose metadata is at `path`; None where there is none. The form without a path is that of the only
    endpoint that takes access tokens.
    """
    if not path.startswith(WELL_KNOWN):
        return None
    own = path.removeprefix(WELL_KNOWN).rstrip("/")
    if not own:
        taking = [endpoint for endpoint in endpoints.values() if endpoint.issuers]
        return taking[0] if len(taking) == 1 else None
    found = endpoints.get(own)
    return found if found is not None and found.issuers else None


def answer(context: RequestContext, verb: str) -> Answer:
    """The metadata of the request's endpoint: status, headers, body. Raises a Fault, BAD_VERB."""
    if verb == "OPTIONS":
        return 204, _PREFLIGHT, b""
    if verb not in ("GET", "HEAD"):
        raise Fault(Kind.BAD_VERB, headers=((b"allow", b"GET, HEAD, OPTIONS"),))
    return 200, [_KEPT], metadata(context.snapshot, context.endpoint, resource(context))


def metadata(snapshot: Snapshot, endpoint: Endpoint, own: str) -> bytes:
    """The document (RFC 9728, section 2). Scopes of tools are asked for where they are needed, so none are listed; of
    those to log in with there may be none, and then they are left out (section 3.2).
    """
    issuers = [snapshot.issuers[name] for name in endpoint.issuers]
    found: dict[str, Any] = {
        "resource": own,
        "authorization_servers": [issuer.url for issuer in issuers],
        "bearer_methods_supported": ["header"],
    }
    if scopes := dict.fromkeys(scope for issuer in issuers for scope in issuer.scopes):
        found["scopes_supported"] = list(scopes)
    return orjson.dumps(found)


def resource(context: RequestContext) -> str:
    """The URL of the request's endpoint, as this agent types it as far as that is one of ours."""
    host = context.headers.get(b"host", b"").decode("latin-1").lower()
    urls = context.endpoint.resources
    return next((url for url in urls if urlsplit(url).netloc.lower() == host), urls[0])


def challenge(context: RequestContext, *parameters: tuple[str, str]) -> tuple[bytes, bytes]:
    """`WWW-Authenticate` (RFC 6750, section 3), with `resource_metadata` where the endpoint takes access tokens."""
    said = list(parameters)
    if context.endpoint.issuers:
        url = resource(context)
        root = url.removesuffix(context.endpoint.path)
        said.append(("resource_metadata", f"{root}{WELL_KNOWN}{context.endpoint.path}"))
    text = ", ".join(f'{name}="{value}"' for name, value in said)
    return b"www-authenticate", f"Bearer {text}".rstrip().encode()


def with_challenge(context: RequestContext, fault: Fault) -> Fault:
    """The same refusal; where a credential is what is wrong, it says how to get one."""
    if fault.kind in (Kind.UNAUTHENTICATED, Kind.WRONG_CREDENTIAL) and context.endpoint.issuers:
        sent = any(b"invalid_token" in value for _, value in fault.headers)
        fault.headers = (challenge(context, *([("error", "invalid_token")] if sent else [])),)
    return fault


def insufficient_scope(context: RequestContext, needed: Iterable[str]) -> Fault:
    """The refusal of a call for which an access token lacks scopes; it names all that the call needs."""
    scopes = " ".join(needed)
    found = challenge(context, ("error", "insufficient_scope"), ("scope", scopes))
    return Fault(Kind.INSUFFICIENT_SCOPE, f"The access token needs these scopes: {scopes}", headers=(found,))
