"""How one gets in and out again: invitations, credentials, tokens, keys, sessions and links, over real HTTP."""

from __future__ import annotations

import base64
import http.client
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

import jwt
import pytest
import urllib3

from microsfl.admin.folder import rotate_keys
from microsfl.config import SplitServerSettings
from microsfl.services.standing_by import Heartbeat
from microsfl.trust.keys import SESSION_S, TAKEN_OVER_S, Federation
from microsfl.trust.scopes import Role
from microsfl.trust.secret import digest
from microsfl.trust.tokens import LIFE_S, Audience, Caller
from tests.service.control_plane import Json, spec
from tests.service.federated import Admitted, Server, Site, bearer, federated, servers, status_of

DAY_S = 86_400.0


class Clock:
    """The coordinator's, which a test moves on."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def site(tmp_path: Path, clock: Clock) -> Iterator[Site]:
    with federated(tmp_path, clock) as site:
        yield site


@pytest.fixture
def replicas(site: Site, tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    with servers(site, tmp_path) as both:
        yield both


def by_itself(fits: Callable[[], bool], within_s: float) -> None:
    """Ask again and again until it is so."""
    deadline = time.monotonic() + within_s
    while not fits():
        assert time.monotonic() < deadline


# Invitations


def test_of_many_who_enrol_at_once_one_gets_the_credential(site: Site) -> None:
    token = site.invite("clinic")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: site.anybody.send("POST", "/enrolments", {"token": token}), range(8)))
    assert sorted(status for status, _ in answers) == [201] + 7 * [401]
    [given] = [answer for status, answer in answers if status == 201]
    assert site.ask_token("clinic", secret=given["secret"])[0] == 200
    assert site.anybody.refused("POST", "/enrolments", {"token": token})[:2] == (401, "unauthenticated")


def test_an_invitation_ends_and_the_next_one_ends_the_one_before(site: Site, clock: Clock) -> None:
    first = site.invite("clinic", expires_s=DAY_S)
    second = site.invite("clinic", expires_s=DAY_S)
    assert site.anybody.send("POST", "/enrolments", {"token": first})[0] == 401
    clock.ahead = DAY_S + 1
    assert site.anybody.send("POST", "/enrolments", {"token": second})[0] == 401
    third = site.invite("clinic", expires_s=DAY_S)
    clock.ahead = 2 * DAY_S
    assert site.anybody.send("POST", "/enrolments", {"token": third})[0] == 201


def test_an_invitation_gives_what_it_says_and_no_more(site: Site) -> None:
    site.enrol("clinic", acts_as=["ward-a", "ward-b"], runs=["mine"])
    clinic = site.as_("clinic")
    assert clinic.send("POST", "/participants", {"id": "ward-a", "role": "client"})[0] == 200
    assert clinic.refused("POST", "/participants", {"id": "clinic", "role": "client"})[:2] == (403, "forbidden")
    assert clinic.refused("POST", "/participants", {"id": "ward-c", "role": "client"})[:2] == (403, "forbidden")
    assert clinic.refused("POST", "/tasks/poll", {"clients": ["ward-a", "other"]})[:2] == (403, "forbidden")
    server = {"id": "ward-a", "role": "split-server", "address": "http://127.0.0.1:1"}
    assert clinic.refused("POST", "/participants", server)[:2] == (403, "forbidden")
    assert clinic.send("GET", "/runs/mine")[0] == 404
    assert clinic.refused("GET", "/runs/other")[:2] == (403, "forbidden")
    operator = site.as_("operator")
    for wrong in (
        {"id": "fed", "role": "fed-server", "acts_as": ["ward-a"]},
        {"id": "many", "role": "client", "acts_as": ["ward-*"]},
        {"id": "split", "role": "split-server", "acts_as": ["*"]},
        {"id": "split", "role": "split-server", "acts_as": ["a*b"]},
        {"id": "eve", "role": "viewer", "runs": ["mine"]},
        {"id": "clinic", "role": "operator"},
        {"id": "me", "role": "coordinator"},
        {"id": "me", "role": "link"},
        {"id": "me", "role": "client", "expires_s": 0},
    ):
        assert operator.send("POST", "/invitations", wrong)[0] == 422, wrong


def test_replicas_share_an_identity_under_names_that_begin_alike(site: Site) -> None:
    """A cluster names its replicas itself, and starts as many as it likes."""
    site.enrol("split", role="split-server", acts_as=["split-*"])
    replicas = site.as_("split")

    def register(name: str, role: str = "split-server") -> int:
        body = {"id": name, "role": role, "address": "https://10.0.0.1:8100"}
        return replicas.send("POST", "/participants", body)[0]

    assert [register(name) for name in ("split-7d9f8b-x2", "split-7d9f8b-q9")] == [200, 200]
    assert [register(name) for name in ("split", "Split-1", "fed", "asplit-1")] == [403] * 4
    assert register("split-1", "fed-server") == 403
    site.as_("operator").post("/identities/split/revoke")
    assert register("split-7d9f8b-x2") == 401


@pytest.mark.usefixtures("replicas")
def test_a_run_begins_with_those_who_are_invited_to_it(site: Site) -> None:
    """Whoever has no identity of its own is the operator's, who started it on this machine; else an operator's right to
    act as anybody makes nobody invited."""
    operator = site.as_("operator")
    site.enrol("mine", runs=["one"])
    site.enrol("gone")

    def run(name: str, *there: str) -> Json:
        operator.post("/runs", spec(name, clients=1))
        operator.post(f"/runs/{name}/start")
        for participant in there:
            assert operator.send("POST", "/participants", {"id": participant, "role": "client"})[0] == 200
        return operator.get(f"/runs/{name}")

    operator.post("/identities/gone/revoke")
    assert run("other", "mine", "gone")["state"] == "waiting"
    assert run("one")["clients"] == ["mine"]
    assert run("third", "north")["clients"] == ["north"]


def test_the_records_themselves_take_an_invitation_once(site: Site) -> None:
    token = digest(site.invite("clinic"))
    [one] = [one for one in site.records.identities.all() if one.id == "clinic"]
    assert [site.records.identities.enrol(one, token, 1.0) for _ in range(2)] == [True, False]


# Tokens


def test_tokens_are_what_an_oauth_library_expects(site: Site) -> None:
    """As Prometheus asks: id and secret in the header, percent-encoded, the audience in the form."""
    secret = site.secrets["viewer"]
    asked = {"grant_type": "client_credentials", "audience": "body"}

    def answer(form: dict[str, str], user: str) -> urllib3.BaseHTTPResponse:
        headers = {"authorization": f"Basic {user}", "content-type": "application/x-www-form-urlencoded"}
        return urllib3.request("POST", f"{site.url}/api/tokens", body=urlencode(form), headers=headers)

    for user in (f"viewer:{secret}", f"viewer:{quote(secret, safe='')}"):
        given = answer(asked, base64.b64encode(user.encode()).decode())
        assert given.status == 200
        found = given.json()
        assert (found["token_type"], found["expires_in"]) == ("Bearer", LIFE_S)
        assert isinstance(found["expires_in"], int)
        assert given.headers["cache-control"] == "no-store"
        claims = jwt.decode(found["access_token"], options={"verify_signature": False})
        assert (claims["sub"], claims["role"], claims["aud"]) == ("viewer", "viewer", "body")
    right, wrong = (base64.b64encode(f"viewer:{one}".encode()).decode() for one in (secret, "x"))
    assert answer(asked, wrong).status == 401
    assert answer(asked, "!").status == 400
    assert answer({"grant_type": "password"}, right).status == 400
    assert answer({**asked, "audience": "everything"}, right).status == 400


# Secrets


def test_a_rotation_can_be_lost_on_the_way(site: Site) -> None:
    site.enrol("clinic")
    old = site.secrets["clinic"]

    def rotated(secret: str) -> str:
        return str(site.anybody.post("/rotations", {"id": "clinic", "secret": secret})["secret"])

    lost, new = rotated(old), rotated(old)  # nobody got the first answer
    assert site.ask_token("clinic", secret=old)[0] == 200
    assert site.ask_token("clinic", secret=lost)[0] == 401
    assert site.ask_token("clinic", secret=new)[0] == 200  # the first use
    assert site.ask_token("clinic", secret=old)[0] == 401
    assert site.ask_token("clinic", secret=new)[0] == 200


def test_secrets_are_kept_as_hashes_and_changes_survive_a_restart(tmp_path: Path, site: Site) -> None:
    token = site.invite("clinic")
    site.enrol("ward")
    site.as_("operator").post("/identities/viewer/revoke")
    site.anybody.post("/rotations", {"id": "ward", "secret": site.secrets["ward"]})
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("records.db*"))
    for secret in (token, *site.secrets.values()):
        assert secret.encode() not in kept
    found = {one.id: one for one in site.records.identities.all()}
    assert found["viewer"].revoked_at is not None
    assert found["ward"].next_hash is not None


# Revocation


def test_a_revoked_client_is_refused_everywhere_within_a_heartbeat(site: Site, replicas: tuple[Server, Server]) -> None:
    split, fed = replicas
    tokens = {audience: site.token("client", audience) for audience in Audience}
    places = {Audience.BODY: f"{split.url}/v1/runs/demo", Audience.CLIENT_SIDE: f"{fed.url}/v1/runs/demo"}
    for audience, url in places.items():
        assert status_of(url, headers=bearer(tokens[audience])) == 404
    split.beat.start()
    fed.beat.start()
    try:
        site.as_("operator").post("/identities/client/revoke")
        assert status_of(f"{site.url}/api/runs/demo", headers=bearer(tokens[Audience.COORDINATOR])) == 401
        assert site.ask_token("client")[0] == 401
        for audience, url in places.items():
            refused = lambda url=url, token=tokens[audience]: status_of(url, headers=bearer(token)) == 401  # noqa: E731
            by_itself(refused, 30.0)  # it takes a heartbeat, and on a busy machine a while
    finally:
        split.beat.stop()
        fed.beat.stop()
    # Who is invited again gets in again, and an old token does not.
    site.enrol("client")
    split.learn()
    assert status_of(places[Audience.BODY], headers=bearer(site.token("client", Audience.BODY))) == 404
    assert status_of(places[Audience.BODY], headers=bearer(tokens[Audience.BODY])) == 401


@pytest.mark.parametrize("path", ["/api/events", "/api/runs/demo/events"])
@pytest.mark.usefixtures("replicas")
def test_an_open_stream_ends_when_its_session_is_revoked(site: Site, path: str) -> None:
    assert site.as_("operator").send("POST", "/runs", spec())[0] == 201
    viewer = site.session("viewer")
    place = urlsplit(site.url)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=5)
    connection.request("GET", path, headers=viewer.headers)
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.readline()
    site.as_("operator").post("/identities/viewer/revoke")
    began = time.monotonic()
    answer.read()  # until it ends
    assert time.monotonic() - began < 4
    connection.close()
    assert viewer.send("GET", "/session")[0] == 401


@pytest.mark.usefixtures("replicas")
def test_whoever_is_revoked_while_waiting_gets_no_answer(site: Site) -> None:
    operator = site.as_("operator")
    run = operator.post("/runs", spec(clients=1))
    site.as_("client").post("/participants", {"id": "client", "role": "client"})
    place, waiting = urlsplit(site.url), []
    for name, method, path, body in (
        ("client", "POST", "/api/tasks/poll", {"clients": ["client"], "wait_s": 1}),
        ("viewer", "GET", f"/api/runs/demo?after={run['revision'] + 99}&wait_s=1", None),
    ):
        connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=20)
        headers = {**bearer(site.token(name)), "content-type": "application/json"}
        connection.request("GET", "/api/health")  # so that it is open, and what comes next is read before the other
        connection.getresponse().read()
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        operator.post(f"/identities/{name}/revoke")
        waiting.append(connection)
    for connection in waiting:
        answer = connection.getresponse()
        assert answer.status == 401
        assert "was revoked while this request waited" in json.loads(answer.read())["error"]["message"]
        connection.close()


# Names


def test_a_server_has_the_name_that_it_was_invited_as(
    site: Site, replicas: tuple[Server, Server], tmp_path: Path
) -> None:
    site.enrol("gpu-7", "split-server")

    def registered(name: str, id_: str | None = None) -> str:
        """What it says to itself; it is then listed as `gpu-7`, or not."""
        site.credential(name).write(tmp_path / "it.json")
        settings = SplitServerSettings(
            id=id_, coordinator=site.url, credential=str(tmp_path / "it.json"), store_url="memory://"
        )
        beat = Heartbeat(settings, 4711, replicas[0].replica, None)
        return beat._register() or str(beat.me["id"])

    assert registered("gpu-7") == "gpu-7"
    assert replicas[0].replica.stopwatch.server == "gpu-7"
    assert registered("gpu-7", "gpu-7") == "gpu-7"
    assert "'gpu-7' may not act as 'gpu-8'" in registered("gpu-7", "gpu-8")
    assert registered("operator").endswith("-4711")  # who may be anybody has no name of its own
    there = [one["id"] for one in site.as_("operator").get("/participants")["participants"]]
    assert {"gpu-7", "split-server", "fed-server"} < set(there)


# Keys


def test_a_new_key_is_taken_over_while_everything_runs(
    site: Site, replicas: tuple[Server, Server], clock: Clock
) -> None:
    split, _ = replicas
    at_split, session = f"{split.url}/v1/runs/demo", site.session("operator")
    before = site.token("client", Audience.BODY)
    rotate_keys(site.folder)
    # Until every server has heard of it, tokens are signed with a key that all of them know.
    soon = site.token("client", Audience.BODY)
    assert _kid(soon) == _kid(before)
    assert status_of(at_split, headers=bearer(soon)) == 404
    split.learn()
    clock.ahead = TAKEN_OVER_S + 0.1
    after = site.token("client", Audience.BODY)
    assert _kid(after) != _kid(before)
    assert site.as_("client").send("GET", "/runs/demo")[0] == 404  # the coordinator knows it itself
    for token in (before, soon, after):
        assert status_of(at_split, headers=bearer(token)) == 404
    assert session.send("GET", "/session")[0] == 200


def test_all_other_keys_can_be_forgotten_at_once(site: Site, replicas: tuple[Server, Server]) -> None:
    split, _ = replicas
    session, before = site.session("operator"), site.token("client", Audience.BODY)
    rotate_keys(site.folder, at_once=True)
    after = site.token("client", Audience.BODY)
    assert "not signed with a key of this federation" in split.beat._register()  # its own token is none any more
    split.learn()
    assert status_of(f"{split.url}/v1/runs/demo", headers=bearer(before)) == 401
    assert status_of(f"{split.url}/v1/runs/demo", headers=bearer(after)) == 404
    assert session.send("GET", "/session")[0] == 401


def test_keys_are_forgotten_once_nothing_that_they_signed_can_live() -> None:
    old = Federation.new("one", 0.0)
    [first] = old.keys
    soon = old.with_new_key(60.0)
    assert next(iter(soon.keys)) == first
    # It stopped signing some seconds after it was followed, and its last session may live on from then.
    assert first in soon.with_new_key(60.0 + SESSION_S).keys
    assert first not in soon.with_new_key(60.0 + SESSION_S + TAKEN_OVER_S + 1).keys
    assert len(soon.with_new_key(1e9).keys) == 2


# The dashboard's session


def test_a_session_is_a_cookie_for_people_alone(site: Site) -> None:
    answer = urllib3.request("POST", f"{site.url}/api/session", json={"id": "viewer", "secret": site.secrets["viewer"]})
    assert answer.json() == {"id": "viewer", "role": "viewer", "anybody": False}
    attributes = {part.strip().lower() for part in answer.headers["set-cookie"].split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= attributes
    assert answer.headers["cache-control"] == "no-store"
    viewer = site.session("viewer")
    assert viewer.get("/session")["role"] == "viewer"
    assert viewer.send("POST", "/runs/demo/stop")[0] == 403
    for name in ("client", "split-server", "fed-server"):
        log_in = {"id": name, "secret": site.secrets[name]}
        assert site.anybody.refused("POST", "/session", log_in)[:2] == (403, "forbidden")
    for wrong in ({}, {"id": "viewer"}, {"secret": "x"}, {"id": "viewer", "secret": "x", "code": "y"}):
        assert site.anybody.send("POST", "/session", wrong)[0] == 422, wrong


def test_a_page_of_another_site_can_neither_use_nor_make_a_session(site: Site) -> None:
    session = site.session("operator")
    elsewhere = Admitted(site.url, {**session.headers, "origin": "http://evil.example"})
    assert elsewhere.refused("POST", "/identities/viewer/revoke")[:2] == (403, "cross_origin")
    log_in = {"id": "viewer", "secret": site.secrets["viewer"]}
    assert elsewhere.refused("POST", "/session", log_in)[:2] == (403, "cross_origin")


def test_the_code_of_a_link_is_for_one_login_and_ten_minutes(site: Site, clock: Clock) -> None:
    operator = site.as_("operator")

    def code() -> str:
        return str(operator.post("/login-links")["code"])

    once = code()
    session = Admitted(site.url, {"cookie": site.cookie({"code": once})})
    assert session.get("/session")["id"] == "operator"
    assert site.anybody.send("POST", "/session", {"code": once})[0] == 401
    late = code()
    clock.ahead = 601
    assert site.anybody.send("POST", "/session", {"code": late})[0] == 401
    clock.ahead = 0
    site.enrol("second", "operator")
    of_revoked = str(site.as_("second").post("/login-links")["code"])
    operator.post("/identities/second/revoke")
    assert site.anybody.send("POST", "/session", {"code": of_revoked})[0] == 401


# Links to weights


def test_a_link_opens_the_weights_of_one_run_and_nothing_else(site: Site, replicas: tuple[Server, Server]) -> None:
    split, fed = replicas
    operator = site.as_("operator")
    for name in ("demo", "other"):
        assert operator.send("POST", "/runs", spec(name))[0] in (200, 201)
    links = {one["part"]: one["url"] for one in operator.get("/runs/demo/weights")["parts"]}
    assert set(links) == {"body", "client-side"}
    for url in links.values():
        assert status_of(url) == 200
        assert status_of(url.replace("/runs/demo/", "/runs/other/")) == 403
        assert status_of(url.split("?")[0]) == 401
        token = url.partition("?token=")[2]
        base = url.partition("/v1/")[0]
        assert status_of(f"{base}/v1/runs/demo?token={token}") == 401
        assert status_of(f"{base}/metrics?token={token}") == 401
        assert status_of(f"{base}/v1/runs/demo", headers=bearer(token)) == 403
        claims = jwt.decode(token, options={"verify_signature": False})
        assert claims["exp"] - claims["iat"] == 60 < LIFE_S
    assert status_of(links["body"].replace(split.url, fed.url)) == 401
    # Nobody else's token may stand in an address, though it would open the endpoint in a header.
    whole = site.token("operator", Audience.BODY)
    bare = links["body"].split("?")[0]
    assert status_of(bare, headers=bearer(whole)) == 200
    assert status_of(f"{bare}?token={whole}") == 403
    for name in ("viewer", "client"):
        assert site.as_(name).refused("GET", "/runs/demo/weights")[:2] == (403, "forbidden")
    operator.post("/identities/operator/revoke")
    split.learn()
    assert status_of(links["body"]) == 401


def test_tokens_of_another_federation_or_algorithm_are_none(site: Site, replicas: tuple[Server, Server]) -> None:
    split, _ = replicas
    caller = Caller("client", Role.CLIENT, frozenset({"client"}), frozenset({"*"}))
    other = Federation.new("tests")
    [kid] = other.keys
    theirs = other.signer(kid).token(caller, Audience.BODY)
    real = site.token("client", Audience.BODY)
    claims = jwt.decode(real, options={"verify_signature": False})
    none = jwt.encode(claims, None, "none", headers={"kid": _kid(real)})
    by_public_key = jwt.encode(claims, "x" * 32, "HS256", headers={"kid": _kid(real)})
    for token in (theirs, none, by_public_key, real[:-4] + "AAAA", "x", "x.y.z"):
        assert status_of(f"{split.url}/v1/runs/demo", headers=bearer(token)) == 401


def _kid(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])
