"""Agents with access tokens: what a worker knows of issuers' keys, and what it asks of the controller for the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NamedTuple

import orjson

from fastgw.auth.jwks import KeySet
from fastgw.auth.tokens import KeyMissing, TokenRefused, check_form, judge, principal_of, read_jwt, verified_claims
from fastgw.errors import Fault, Kind
from fastgw.policy.match import Principal
from fastgw.snapshot.issuers import Issuer, canonical
from fastgw.snapshot.model import Endpoint, Snapshot
from fastgw.telemetry.counters import Counters
from fastgw.upstream.controller import ControllerPort

MOST = 20_000
"""Verified tokens that are remembered; of one more, all are forgotten and verified anew."""
ASK_WITHIN = 15.0
"""Seconds for an answer of the controller, which asks the issuer."""
_NO_KEYS = KeySet(b'{"keys":[]}')
_INVALID = ((b"www-authenticate", b'Bearer error="invalid_token"'),)


class VerifiedToken(NamedTuple):
    """Who showed a token, until when (Unix seconds), and what of the configuration that was found by. `subject` says
    whose it is, whatever claim names the agent: issuer and `sub`, or where it has none the hash of the token.
    """

    principal: Principal
    until: float
    issuer: Issuer
    resources: tuple[str, ...]
    subject: str

    def holds(self, snapshot: Snapshot, endpoint: Endpoint, now: float) -> bool:
        """Whether it would be found again: a snapshot may have come since, with another list of a server, or without
        the issuer.
        """
        name = self.issuer.name
        same = name in endpoint.issuers and snapshot.issuers[name] == self.issuer
        return same and now < self.until and endpoint.resources == self.resources


class TokenAgents:
    """Who shows an access token."""

    def __init__(self, controller: ControllerPort, counters: Counters) -> None:
        self._controller = controller
        self._counters = counters
        self.keys: dict[str, KeySet] = {}
        """By issuer; another dictionary whenever they are told anew."""
        self._verified: dict[tuple[str, bytes], VerifiedToken] = {}

    def learn(self, documents: Mapping[str, bytes]) -> bool:
        """Go by these key sets from now on, by issuer; whether a key is gone that was known."""
        before, self.keys = self.keys, {url: KeySet(document) for url, document in documents.items()}
        gone = any(url not in self.keys or not keys.numbers <= self.keys[url].numbers for url, keys in before.items())
        if gone:
            self.forget()
        return gone

    def forget(self) -> None:
        """Verify every token anew."""
        self._verified.clear()

    async def identify(self, token: bytes, snapshot: Snapshot, endpoint: Endpoint, now: float) -> VerifiedToken:
        """Who shows this token at an endpoint.

        Whoever is known by `gateway.known_agents` is not asked about here; those are forgotten with each snapshot.

        Raises:
            Fault: WRONG_CREDENTIAL; UNAUTHENTICATED where it is one of an issuer's whose time is over, which is no
                guess; FULL where its issuer cannot be asked now.
        """
        try:
            check_form(token)
            key = endpoint.path, sha256(token).digest()
            known = self._verified.get(key)
            if known is None or not known.holds(snapshot, endpoint, now):
                known = await self._verify(token, snapshot, endpoint, now)
                if len(self._verified) >= MOST:
                    self.forget()
                self._verified[key] = known
            return known
        except TokenRefused as refused:
            self._counters.inc("fastgw_tokens_refused_total", str(refused))
            kind = Kind.UNAUTHENTICATED if refused.stale else Kind.WRONG_CREDENTIAL
            words = f"The access token is not taken: {refused}."
            raise Fault(kind, words, detail=f"token: {refused}", headers=_INVALID) from None

    async def _verify(self, token: bytes, snapshot: Snapshot, endpoint: Endpoint, now: float) -> VerifiedToken:
        issuers = [snapshot.issuers[name] for name in endpoint.issuers]
        audiences = [canonical(url) for url in endpoint.resources]
        read = read_jwt(token)
        issuer = None if read is None else next((one for one in issuers if one.url == read.issuer), None)
        if read is None or (issuer is not None and issuer.introspected == "all"):
            found, claims = await self._introspected(token, issuers if issuer is None else [issuer])
            until = judge({"iss": found.url, **claims}, found, audiences, now)
            until = min(until, float(claims["known_until"]))
            return VerifiedToken(
                principal_of(found, claims), until, found, endpoint.resources, _subject(found, claims, token)
            )
        if issuer is None:
            raise TokenRefused("it is of no issuer that is taken here")
        try:
            claims = verified_claims(read, issuer, self.keys.get(issuer.url, _NO_KEYS))
        except KeyMissing:
            await self._asked(self._controller.look_for_key(issuer.url, read.kid))
            claims = verified_claims(read, issuer, self.keys.get(issuer.url, _NO_KEYS))
        until = judge(claims, issuer, audiences, now)
        return VerifiedToken(
            principal_of(issuer, claims), until, issuer, endpoint.resources, _subject(issuer, claims, token)
        )

    async def _introspected(self, token: bytes, issuers: list[Issuer]) -> tuple[Issuer, dict[str, Any]]:
        """The first issuer that knows a token, and what it says of it. Raises TokenRefused, Fault."""
        asked = [issuer for issuer in issuers if issuer.introspected != "none"]
        for issuer in asked:
            claims = orjson.loads(await self._asked(self._controller.introspect(issuer.url, token)))
            if claims["active"]:
                return issuer, claims
        raise TokenRefused("it is not active" if asked else "it is no JWT")

    async def meet(self, path: str, principal: Principal) -> None:
        """Have a class of agents made that nobody of has come before. Raises Fault: FULL."""
        await self._asked(self._controller.meet(path, principal))

    async def _asked(self, answer: Any) -> Any:
        try:
            async with asyncio.timeout(ASK_WITHIN):
                return await answer
        except (Fault, TimeoutError) as wrong:
            if isinstance(wrong, Fault) and wrong.kind is Kind.FULL:
                raise
            raise Fault(Kind.FULL, "Who calls cannot be found out now", detail=str(wrong), retry_after=1) from None


def _subject(issuer: Issuer, claims: Mapping[str, Any], token: bytes) -> str:
    sub = claims.get("sub")
    return f"{issuer.url}\n{sub if isinstance(sub, str) and sub else sha256(token).hexdigest()}"
