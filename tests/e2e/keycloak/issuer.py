"""Keycloak as a process of its own, and realms of it: each is an issuer with clients, people, keys and a log of events.

    keycloak = Keycloak(home, folder); keycloak.start()
    realm = keycloak.realm("acme"); realm.client("console", publicClient=True, ...)
    realm.token("console", user="alice")

Knows: Keycloak's admin API, and what a stock one takes as settings. Refuses to know: fastgw.
"""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx2

from tests.e2e.ports import free_port

ADMIN = "admin"
BOOTS_WITHIN = 180.0
"""Seconds: half a minute where the machine has nothing else to do."""
LOOK_EVERY = 0.2
HEAP = "-Xms64m -Xmx512m"


@dataclass
class Keycloak:
    """One on a free port of this machine, its database in `folder`: it may be stopped and started again."""

    home: Path
    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @cached_property
    def http(self) -> httpx2.Client:
        return httpx2.Client(timeout=60, trust_env=False)

    def start(self) -> None:
        """Return as soon as it answers."""
        options = ["--optimized", "--http-enabled=true", "--http-host=127.0.0.1", f"--http-port={self.port}"]
        options += ["--hostname-strict=false", "--cache=local"]
        options.append(f"--db-url=jdbc:h2:file:{self.folder / 'database'};NON_KEYWORDS=VALUE;DB_CLOSE_ON_EXIT=FALSE")
        user = {"KC_BOOTSTRAP_ADMIN_USERNAME": ADMIN, "KC_BOOTSTRAP_ADMIN_PASSWORD": ADMIN}
        around = {**os.environ, **user, "JAVA_OPTS_KC_HEAP": HEAP}
        with (self.folder / "keycloak.log").open("ab") as log:
            order = [str(self.home / "bin" / "kc.sh"), "start", *options]
            self.process = subprocess.Popen(order, env=around, stdout=log, stderr=log, start_new_session=True)
        until = time.monotonic() + BOOTS_WITHIN
        while not self._answers():
            assert self.process.poll() is None and time.monotonic() < until, (self.folder / "keycloak.log").read_text()
            time.sleep(LOOK_EVERY)

    def _answers(self) -> bool:
        with suppress(httpx2.TransportError):
            return self.http.get(f"{self.root}/realms/master").status_code == 200
        return False

    def stop(self) -> None:
        """Have it end; what it knows is in its database then."""
        if self.process is not None:
            os.killpg(self.process.pid, 15)
            self.process.wait(60)

    def ask(self, verb: str, path: str, content: Any = None) -> Any:
        """What the admin API answers; the id of what it has made, where it has made something."""
        form = {"grant_type": "password", "client_id": "admin-cli", "username": ADMIN, "password": ADMIN}
        login = self.http.post(f"{self.root}/realms/master/protocol/openid-connect/token", data=form).json()
        headers = {"authorization": f"Bearer {login['access_token']}"}
        answer = self.http.request(verb, f"{self.root}/admin/realms{path}", json=content, headers=headers)
        assert answer.is_success, (verb, path, answer.text)
        if answer.status_code == 201 and "location" in answer.headers:
            return answer.headers["location"].rpartition("/")[2]
        return answer.json() if answer.content else None

    def realm(self, name: str, **more: Any) -> Realm:
        """A new realm, its tokens good for five minutes, its events kept."""
        usual = {"realm": name, "enabled": True, "accessTokenLifespan": 300, "eventsEnabled": True}
        self.ask("POST", "", {**usual, **more})
        return Realm(self, name)


@dataclass
class Realm:
    """One issuer. Ids of what was made here are known by name."""

    keycloak: Keycloak
    name: str
    ids: dict[str, str] = field(default_factory=dict)

    @property
    def issuer(self) -> str:
        return f"{self.keycloak.root}/realms/{self.name}"

    @property
    def token_url(self) -> str:
        return f"{self.issuer}/protocol/openid-connect/token"

    def ask(self, verb: str, path: str, content: Any = None) -> Any:
        """As `Keycloak.ask`, in this realm."""
        return self.keycloak.ask(verb, f"/{self.name}{path}", content)

    def user(self, name: str, *roles: str) -> None:
        """Somebody who logs in by his name as the password, with these roles of the realm."""
        about = {"email": f"{name}@example.com", "emailVerified": True, "firstName": name, "lastName": name}
        password = {"type": "password", "value": name, "temporary": False}
        self.ids[name] = self.ask(
            "POST", "/users", {"username": name, "enabled": True, "credentials": [password], **about}
        )
        for role in roles:
            if role not in self.ids:
                self.ask("POST", "/roles", {"name": role})
                self.ids[role] = self.ask("GET", f"/roles/{role}")["id"]
            self.ask("POST", f"/users/{self.ids[name]}/role-mappings/realm", [{"id": self.ids[role], "name": role}])

    def client(self, name: str, **more: Any) -> None:
        """A client; `attributes` are settings that have no member of their own."""
        self.ids[name] = self.ask("POST", "/clients", {"clientId": name, "standardFlowEnabled": False, **more})

    def set_attributes(self, client: str, attributes: dict[str, str]) -> None:
        """Further settings of a client, over those that it has."""
        entry = self.ask("GET", f"/clients/{self.ids[client]}")
        entry["attributes"] |= attributes
        self.ask("PUT", f"/clients/{self.ids[client]}", entry)

    def scope(self, name: str, kind: str, **more: Any) -> None:
        """A scope that every client made later has: `default` for all its tokens, `optional` where it is asked for."""
        about = {"name": name, "protocol": "openid-connect", "attributes": {"include.in.token.scope": "true"}}
        self.ids[name] = self.ask("POST", "/client-scopes", {**about, **more})
        self.ask("PUT", f"/default-{kind}-client-scopes/{self.ids[name]}")

    def audience(self, scope: str, **included: str) -> None:
        """Have tokens with a scope say for whom they are: a `client`, or any `custom` text."""
        [(kind, value)] = included.items()
        where = dict.fromkeys(("access.token.claim", "introspection.token.claim", "lightweight.claim"), "true")
        config = {f"included.{kind}.audience": value, **where}
        mapper = {"name": f"for {value}"[:60], "protocol": "openid-connect", "config": config}
        mapper["protocolMapper"] = "oidc-audience-mapper"
        self.ask("POST", f"/client-scopes/{self.ids[scope]}/protocol-mappers/models", mapper)

    def show_roles(self, scope: str, *roles: str) -> None:
        """Have tokens with a scope name these roles of the user, whatever else their client may see."""
        named = [{"id": self.ids[role], "name": role} for role in roles]
        self.ask("POST", f"/client-scopes/{self.ids[scope]}/scope-mappings/realm", named)

    def granted(self, client: str, secret: str | None = None, **form: str) -> dict[str, Any]:
        """What the token endpoint answers."""
        asked = {"client_id": client, **({"client_secret": secret} if secret else {}), **form}
        found: dict[str, Any] = self.keycloak.http.post(self.token_url, data=asked).json()
        return found

    def token(self, client: str, user: str, **form: str) -> str:
        """An access token of somebody who has told the client his password."""
        found = self.granted(client, grant_type="password", username=user, password=user, **form)
        assert "access_token" in found, found
        return str(found["access_token"])

    def jwks(self) -> dict[str, Any]:
        found: dict[str, Any] = self.keycloak.http.get(f"{self.issuer}/protocol/openid-connect/certs").json()
        return found

    def sign_by(self, algorithm: str = "RS256", **more: str) -> str:
        """A new key, by which tokens are signed from now on; the id of its entry, for `retire`."""
        provider = "rsa-generated" if algorithm.startswith("RS") else "ecdsa-generated"
        size = {"keySize": ["2048"], "algorithm": [algorithm]} if provider.startswith("rsa") else {}
        if provider.startswith("ecdsa"):
            size = {"ecdsaEllipticCurveKey": ["P-256"]}
        priority = str(100 + len(self.keys()))
        config = {"priority": [priority], "enabled": ["true"], "active": ["true"], **size}
        about = {"name": f"key {priority}", "providerId": provider, "providerType": "org.keycloak.keys.KeyProvider"}
        return str(self.ask("POST", "/components", {**about, "config": config}))

    def keys(self, algorithm: str = "RS256") -> list[str]:
        """Ids of the entries whose keys are published, the one that signs first."""
        found = [key for key in self.ask("GET", "/keys")["keys"] if key.get("algorithm") == algorithm]
        found.sort(key=lambda key: -key["providerPriority"])
        return [key["providerId"] for key in found if key["status"] != "DISABLED"]

    def retire(self, key: str, *, disable: bool) -> None:
        """Sign by this one no more; `disable`: nor publish it."""
        entry = self.ask("GET", f"/components/{key}")
        entry["config"] |= {"active": ["false"], "enabled": ["false" if disable else "true"]}
        self.ask("PUT", f"/components/{key}", entry)

    def new_secret(self, client: str) -> str:
        """Another secret of a client: the one before is none from now on."""
        return str(self.ask("POST", f"/clients/{self.ids[client]}/client-secret")["value"])

    def events(self, kind: str, client: str) -> list[dict[str, Any]]:
        """What a client has done, as the realm has written it down: CLIENT_LOGIN, TOKEN_EXCHANGE, LOGIN ..."""
        found: list[dict[str, Any]] = self.ask("GET", f"/events?type={kind}&client={client}&max=1000")
        return found
