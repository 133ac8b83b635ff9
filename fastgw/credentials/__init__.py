"""Our credentials towards servers, as header lines; which of several is whose."""

from __future__ import annotations

from base64 import b64encode
from hashlib import blake2b

from fastgw.config.rules import match_of
from fastgw.config.schema.servers import CredentialSettings, OAuthSettings, ServerSettings
from fastgw.snapshot.model import ServerCredential


def header_lines(credential: CredentialSettings) -> bytes:
    """The header lines of a static credential, each ended by CRLF; none for one that is not static (oauth).

    Values that do not fit on a line were refused when the configuration was read. Bearer as in RFC 6750, section 2.1;
    basic as in RFC 7617 with UTF-8.
    """
    if credential.bearer is not None:
        return b"Authorization: Bearer " + credential.bearer.encode("latin-1") + b"\r\n"
    if credential.basic is not None:
        pair = f"{credential.basic.username}:{credential.basic.password}"
        return b"Authorization: Basic " + b64encode(pair.encode()) + b"\r\n"
    lines = (f"{name}: {value}\r\n" for name, value in (credential.header or {}).items())
    return "".join(lines).encode("latin-1")


def own_credential(server: ServerSettings) -> CredentialSettings | None:
    """What the gateway itself shows a server, for lists and checks: what everyone may, else the first."""
    everyones = [one for one in server.credential if one.match is None]
    return next(iter((*everyones, *server.credential)), None)


def choices_of(server: ServerSettings) -> tuple[ServerCredential, ...]:
    """The credentials of a server of which each call takes the first that matches; none where all show the same."""
    first = server.credential[:1]
    is_for_all = all(one.match is None for one in first)
    if is_for_all and all(one.oauth is None for one in first):
        return ()
    return tuple([_choice(one, is_only=is_for_all) for one in (first if is_for_all else server.credential)])


def grant_of(oauth: OAuthSettings) -> str:
    """Tells apart what tokens are good for: whose account it is, and where. Secrets and keys may change meanwhile."""
    account = oauth.model_dump_json(exclude={"client_secret", "private_key", "key_id", "client_auth"})
    return blake2b(account.encode(), digest_size=6).hexdigest()


def _choice(credential: CredentialSettings, *, is_only: bool) -> ServerCredential:
    match, lines, oauth = match_of(credential.match, None), header_lines(credential), credential.oauth
    # By what is shown: in another place of the list, or for others, it is still the same account there.
    if oauth is None:
        return ServerCredential(blake2b(lines, digest_size=6).hexdigest(), match, lines)
    grant, exchanges = grant_of(oauth), oauth.grant == "token_exchange"
    return ServerCredential("" if is_only and not exchanges else grant, match, b"", grant, exchanges)
