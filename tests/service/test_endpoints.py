"""Each role against each endpoint of every service: it is let in exactly where the table of scopes says so."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from microsfl.services import coordinator_endpoints, replica_endpoints
from microsfl.services.gate import Endpoints
from microsfl.trust.scopes import GRANTS, Role, Scope
from microsfl.trust.tokens import Audience
from tests.service.federated import MEMBERS, ROLES, Server, Site, bearer, federated, servers, status_of

FILLED = {
    "run": "demo", "id": "nobody", "name:path": "style.css", "version": "newest", "round": "0", "client": "client",
}  # fmt: skip
NO_JSON = b"["  # wrong for whoever is let in
REFUSED = (401, 403)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with federated(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(scope="module")
def replicas(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    with servers(site, tmp_path_factory.mktemp("servers")) as both:
        yield both


def admitted(url: str, endpoints: Endpoints, token: str | None) -> set[tuple[str, str]]:
    """The endpoints that let this token in."""
    found = set()
    for method, path in endpoints:
        filled = re.sub(r"\{([\w:]+)\}", lambda one: FILLED[one[1]], path)
        body = NO_JSON if method == "POST" else None
        if status_of(url + filled, method, {} if token is None else bearer(token), body) not in REFUSED:
            found.add((method, path))
    return found


def allowed(endpoints: Endpoints, role: Role | None) -> set[tuple[str, str]]:
    scopes = {Scope.PUBLIC, *(GRANTS[role] if role else ())}
    return {endpoint for endpoint, wanted in endpoints.items() if scopes & {*wanted}}


@pytest.mark.parametrize("role", [None, *ROLES])
def test_the_coordinator_lets_in_whom_its_table_names(site: Site, role: Role | None) -> None:
    token = None if role is None else site.token(role.value)
    endpoints = coordinator_endpoints.ENDPOINTS
    assert admitted(site.url, endpoints, token) == allowed(endpoints, role)


@pytest.mark.parametrize("role", [None, *ROLES])
def test_servers_let_in_whom_their_tables_name(site: Site, replicas: tuple[Server, Server], role: Role | None) -> None:
    of_servers = (Audience.BODY, replica_endpoints.BODY), (Audience.CLIENT_SIDE, replica_endpoints.CLIENT_SIDE)
    for server, (audience, table) in zip(replicas, of_servers, strict=True):
        if role in (Role.SPLIT_SERVER, Role.FED_SERVER):
            assert site.ask_token(role.value, audience)[0] == 403
            continue
        token = None if role is None else site.token(role.value, audience)
        assert admitted(server.url, table, token) == allowed(table, role)


def test_what_only_some_may_do(site: Site) -> None:
    """The promises themselves, not what the table makes of them."""
    asked = {
        "/api/invitations": {"operator"},
        "/api/login-links": {"operator"},
        "/api/identities/nobody/revoke": {"operator"},
        "/api/runs": {"operator"},
        "/api/runs/demo/stop": {"operator"},
        "/api/participants": {"operator", "client", "split-server", "fed-server"},
        "/api/tasks/poll": {"operator", "client"},
    }
    for path, who in asked.items():
        found = {
            name for name in MEMBERS if status_of(site.url + path, "POST", bearer(site.token(name)), NO_JSON) != 403
        }
        assert found == who, path
    assert GRANTS[Role.VIEWER] == {Scope.READ}
    assert GRANTS[Role.LINK] == {Scope.DOWNLOAD}


def test_a_token_opens_one_kind_of_service(site: Site, replicas: tuple[Server, Server]) -> None:
    """What a split server sees of a client opens neither the fed server nor the coordinator."""
    split, fed = replicas
    places = {
        Audience.COORDINATOR: f"{site.url}/api/runs/demo",
        Audience.BODY: f"{split.url}/v1/runs/demo",
        Audience.CLIENT_SIDE: f"{fed.url}/v1/runs/demo",
    }
    for audience in Audience:
        token = site.token("client", audience)
        opened = {one for one, url in places.items() if status_of(url, "GET", bearer(token)) != 401}
        assert opened == {audience}
