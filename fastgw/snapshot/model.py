"""The compiled configuration and catalogue: built by the controller, pickled to the workers, never changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from zlib import crc32

import orjson

from fastgw.catalog.elements import DIALECTS
from fastgw.catalog.route import Arm, Route
from fastgw.catalog.uris import Uris
from fastgw.policy.authorise import Decision
from fastgw.policy.bucket import BucketRate
from fastgw.policy.limits import Limit
from fastgw.policy.match import AgentTraits, Match, Principal, Traits
from fastgw.policy.networks import NO_NETWORKS, Networks
from fastgw.policy.quotas import Quota
from fastgw.policy.shadow import ShadowRules, ShadowVerdict
from fastgw.policy.uris import ANY_URI, UriRules
from fastgw.snapshot.issuers import HeaderIdentity, Issuer

PAGE = 1000
"""Items on one page. The order of lists is the configuration's: first the entries of `tools:` that have a `to` or
`route`, as they are written, then the servers, as they are written, each with what it lists in its own order.
"""


@dataclass(frozen=True, slots=True)
class Address:
    """One address of a server.

    Args:
        key: identity of the instance: survives reloads, names what is learned of it: `server|url`.
        era: `Era.value` it speaks as far as is known, `both` where it speaks either; None while it never answered.
        version: the revision to speak to it, the modern one where it speaks both; empty while unknown.
        shown: the URL as operators may see it: as written in the file, references not filled in, without its query.
        share: part of the calls that it gets, above 0 to 1; 0.0: an even part of what is left.
    """

    key: str
    server: str
    url: str
    era: str | None
    version: str
    shown: str = ""
    share: float = 0.0


BOTH_ERAS: Final = "both"
"""`Address.era` of a server that speaks either era: each agent gets its own."""


@dataclass(frozen=True, slots=True)
class ServerCredential:
    """One of the credentials of a server.

    Args:
        tag: tells it from the server's others, on every worker and over reloads; empty for one that is for everyone.
        match: whose calls it is for; None: everyone's.
        lines: all header lines of requests that show it but for a token, each ended by CRLF; a secret, never logged.
        grant: which token it takes, for the controller; empty where none.
        exchanges: that token is one for the agent's user, in exchange for the one that the agent has brought.
    """

    tag: str
    match: Match | None
    lines: bytes = field(repr=False)
    grant: str = ""
    exchanges: bool = False


@dataclass(frozen=True, slots=True)
class Backend:
    """One server of the configuration, as the path of a call needs it.

    Args:
        headers: static header lines incl. the credential, each ended by CRLF; a secret, never logged. Where there are
            several `credentials`, with the one that the gateway itself shows.
        credentials: in order, of which a call shows the first that matches; empty where all show that of `headers`.
        tls: (ca, cert, key) paths, each None where not given.
        shared_session: one upstream session for all identities, the gateway's own included.
        maintenance: text for agents while the server must not be called; None otherwise.
        logs: it declares `logging`, so that its sessions may be told a level.
        start_timeout: seconds that it has for each answer to the controller: `initialize`, a whole list.
        host: value of `Host`, where it is not the URL's.
        server_name: the name its certificate must carry, where that is not the URL's host.
        tls_contents: tells apart what the files of `tls` held: connections are made anew where that has changed.
        backup: servers with the same tools, tried in this order when it cannot take a call.
        breaker: failures in a row that open an instance's breaker, and for how many seconds.
        max_in_flight: calls at the same time, over all workers; None: any number. `queue`: how many more may wait.
        forwards: headers of agents that are handed on: lower-case name, and as the lines begin (`X-Tenant: `).
    """

    name: str
    instances: tuple[Address, ...]
    headers: bytes = field(repr=False)
    tls: tuple[str | None, str | None, str | None]
    shared_session: bool
    session_idle: float
    max_sessions: int
    maintenance: str | None
    logs: bool = False
    start_timeout: float = 60.0
    host: str | None = None
    server_name: str | None = None
    tls_contents: str = ""
    backup: tuple[str, ...] = ()
    breaker: tuple[int, float] = (5, 30.0)
    max_in_flight: int | None = None
    queue: int = 0
    forwards: tuple[tuple[bytes, bytes], ...] = ()
    credentials: tuple[ServerCredential, ...] = ()


@dataclass(frozen=True, slots=True)
class Grant(Decision):
    """One tool as one class of principals may use it: the arms whose static part holds for it, and the policies that
    still look at the arguments.
    """

    route: Route
    arms: tuple[Arm, ...]


ListEntry = tuple[bytes, ...]
"""One item as it stands in lists: its JSON text for each of `DIALECTS`."""
Item = tuple[str, Grant | None, ListEntry]
"""What an agent has of a tool, prompt, resource or template: its name or URI, how it may be called (None of what is
read), how it is listed.
"""


def entry(key_json: bytes, tails: Sequence[bytes], member: str = "name") -> ListEntry:
    """An item under its exposed key (JSON text); `member` is what the key is called: `name`, `uri` or `uriTemplate`."""
    head = b'{"%b":%b' % (member.encode(), key_json)
    made: dict[int, bytes] = {}
    # Equal tails are one object, and so are the texts made of them.
    return tuple([made.get(id(tail)) or made.setdefault(id(tail), head + tail) for tail in tails])


def granted(items: Iterable[Item]) -> dict[str, Grant]:
    """By name, of what is called."""
    return {name: grant for name, grant, _ in items if grant is not None}


def fingerprint(names: Iterable[str]) -> int:
    """Of the names of a list, in their order: which list a cursor continues."""
    return crc32("\n".join(names).encode())


@dataclass(frozen=True, slots=True)
class Listing:
    """One list; `fingerprint` (of the names in order) says which one a cursor continues."""

    entries: tuple[ListEntry, ...] = ()
    fingerprint: int = 0

    @property
    def starts(self) -> range:
        """Where its pages begin: at least one, which may be empty."""
        return range(0, max(1, len(self.entries)), PAGE)

    def page(self, start: int, dialect: str) -> bytes:
        """The JSON array of the page that begins there: `[{...},{...}]`."""
        at = DIALECTS.index(dialect)
        return b"[%b]" % b",".join([entry[at] for entry in self.entries[start : start + PAGE]])

    def __bool__(self) -> bool:
        return bool(self.entries)


EMPTY_LISTING = Listing()


@dataclass(frozen=True, slots=True, eq=False)
class VisibleSection:
    """What one class of agents has of a section of a list, in its order.

    Args:
        items: those of `whole` are the same objects.
        whole: what there is of it for whom no policy looks at it more closely, the same object for all classes.
        servers: whose all that is.
        shadow: what policies in shadow would change.
    """

    items: tuple[Item, ...]
    whole: tuple[Item, ...]
    servers: frozenset[str]
    shadow: Mapping[str, ShadowVerdict] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class View:
    """What one class of principals sees on one endpoint; a method that `lists` does not have lists nothing.

    Args:
        grants: of tools, by exposed name.
        sections: by list method, what all of it is put together of, in the controller alone: the codec knows them again
            after a change.
        shadow: what policies in shadow would change; None where they would change nothing.
    """

    grants: dict[str, Grant] = field(default_factory=dict)
    prompts: dict[str, Grant] = field(default_factory=dict)
    uri_rules: UriRules = ANY_URI
    lists: dict[str, Listing] = field(default_factory=dict)
    sections: dict[str, tuple[VisibleSection, ...]] = field(default_factory=dict, compare=False, repr=False)
    shadow: ShadowRules | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path agents connect to.

    Args:
        view_of: agent name to index in `views`, for every agent of the configuration and for `anonymous`.
        anonymous: nobody needs a credential (`auth: none`).
        fresh_until: CLOCK_MONOTONIC seconds until which the lists are known to be fresh (minimum over servers);
            0.0 where a server gives no hint.
        guides: for each view, what its agents read as `instructions` in discover and initialize: with the texts of the
            servers they have something of. None where only the operator says something.
        readers: for each server that declares resources, the arm that its reads take: deadlines, and no target yet.
        origins: allowed `Origin` values in lower case where this endpoint has its own; None: those of the snapshot.
        server_timing: answers say how long each step took.
        resources: its URLs as agents type them, one for each `public_url`.
        issuers: names of those whose access tokens are a way in.
        proxies: names of identities by whose header proxies name agents here.
        view_of_class: for whoever is known by claims alone, by what policies and routes see of these (`traits`): index
            in `views`. A class that nobody of has come yet is missing.
    """

    path: str
    routes: dict[str, Route]
    views: tuple[View, ...]
    view_of: dict[str, int]
    anonymous: bool
    fresh_until: float
    servers: tuple[str, ...]
    instructions: str
    uris: Uris = field(default_factory=Uris)
    readers: dict[str, Arm] = field(default_factory=dict)
    completes: frozenset[str] = frozenset()
    origins: frozenset[str] | None = None
    guides: tuple[str, ...] = ()
    server_timing: bool = False
    resources: tuple[str, ...] = ()
    issuers: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()
    traits: Traits | None = None
    view_of_class: dict[AgentTraits, int] = field(default_factory=dict)

    def view_for(self, principal: Principal) -> View | None:
        """What this agent has here; None where its credential is no way in, or its class is not known yet.

        Every agent of the configuration has its view from the compile on, whoever is known by claims alone from when
        the first of its class comes: ask here, not `view_of`.
        """
        place = self._place(principal)
        return None if place is None else self.views[place]

    def _place(self, principal: Principal) -> int | None:
        ways = self.proxies if principal.scopes is None else self.issuers
        if self.traits is not None and principal.credential in ways:
            return self.view_of_class.get(self.traits.of(principal))
        return self.view_of.get(principal.agent)

    def guide(self, principal: Principal) -> str:
        """`instructions` for an agent that has a view; empty for none."""
        place = self._place(principal) if self.guides else None
        return self.instructions if place is None else self.guides[place]


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One API key: whose it is and until when (Unix seconds; None for ever)."""

    principal: Principal
    expires: float | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All a worker needs to serve.

    Args:
        generation: counts up with every compile of one controller; workers keep the highest.
        keys: SHA-256 hex digest of an API key to its entry.
        hosts: allowed `Host` values in lower case, without and with port; empty allows any.
        origins: allowed `Origin` values in lower case.
        max_body, max_reply: bytes.
        seal_keys: master secrets, first seals, all open; a secret, never logged.
        server_name, server_version: of our own `serverInfo`; `server_info` is both as JSON text.
        currency: of prices; labels: claims carried in usage events; gateway: which fastgw this is.
        user_key: a secret by which usage events hash persons' names; None: they name them.
        body_deadline: seconds an agent has to send its body.
        longest: seconds after which every call that took this snapshot is over.
        failed_credentials: wrong credentials that one address may show; None: any number.
        forwarded: lower-case names of all headers of agents that some server gets.
        personal: servers whose requests differ by who asks, beyond the session.
        sample: of 2**64 traces that begin here, how many are recorded; None: nothing is recorded.
        issuers, header_identities: by name.
        trusted_proxies: whose `X-Forwarded-For` counts.
    """

    generation: int
    endpoints: dict[str, Endpoint]
    backends: dict[str, Backend]
    keys: dict[str, KeyEntry]
    hosts: frozenset[bytes]
    origins: frozenset[str]
    max_body: int
    max_reply: int
    seal_keys: tuple[bytes, ...] = field(repr=False)
    server_name: str
    server_version: str
    gateway: str
    currency: str = "USD"
    labels: tuple[str, ...] = ()
    user_key: bytes | None = field(default=None, repr=False)
    body_deadline: float = 30.0
    longest: float = 0.0
    limits: tuple[Limit, ...] = ()
    quotas: tuple[Quota, ...] = ()
    failed_credentials: BucketRate | None = None
    sample: int | None = None
    issuers: dict[str, Issuer] = field(default_factory=dict)
    header_identities: dict[str, HeaderIdentity] = field(default_factory=dict)
    trusted_proxies: Networks = NO_NETWORKS
    server_info: bytes = field(init=False)
    forwarded: frozenset[bytes] = field(init=False)
    personal: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        every = self.backends.values()
        object.__setattr__(self, "forwarded", frozenset([name for one in every for name, _ in one.forwards]))
        object.__setattr__(self, "personal", frozenset([one.name for one in every if one.forwards or one.credentials]))
        text = orjson.dumps({"name": self.server_name, "version": self.server_version})
        object.__setattr__(self, "server_info", text)

    def freshened(self, until: Mapping[str, float]) -> Snapshot:
        """The same, fresh as long as the catalogues of the servers are: server name to CLOCK_MONOTONIC seconds."""
        endpoints = {
            path: replace(endpoint, fresh_until=fresh_until(endpoint.servers, until))
            for path, endpoint in self.endpoints.items()
        }
        return replace(self, endpoints=endpoints)


def fresh_until(servers: Iterable[str], until: Mapping[str, float]) -> float:
    """`Endpoint.fresh_until` of an endpoint with these servers: as long as the least patient one vouches for."""
    return min((until.get(server, 0.0) for server in servers), default=0.0)
