"""A store that is slow, failing, throttling or set up wrongly: tried again in a budget, nothing doubled, nothing lost.

Each fault is scripted in a proxy in front of a real S3 server (tests/s3_server.py).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from microsfl.errors import InvalidSetting, StoreNotWritable, StoreUnavailable
from microsfl.launch.preflight import check_store
from microsfl.store.objects import ObjectStore, open_store
from microsfl.store.retry import Retry
from microsfl.store.s3 import area_environment, failure
from tests.s3_server import KEY_ID, SECRET, Fault, Proxy, environment_for, proxy_to, s3_server
from tests.world import World, spec_of, toy_data

THROTTLED = Fault("answer", 503, "SlowDown")
LOST = Fault("close", reaches_store=True)

# Each passes by itself. Whether the request reached the store is what the client cannot know.
PASSING = {
    "500": Fault("answer", 500, "InternalError"),
    "502": Fault("answer", 502),
    "503 SlowDown": THROTTLED,
    "429": Fault("answer", 429, "TooManyRequests"),
    "409 while another write is on its way": Fault("answer", 409, "ConditionalRequestConflict"),
    "closed before": Fault("close"),
    "reset before": Fault("reset"),
    "no answer in time": Fault("hang"),
    "done, then closed": LOST,
    "done, then reset": Fault("reset", reaches_store=True),
    "done, then no answer in time": Fault("hang", reaches_store=True),
    "done, then 500": Fault("answer", 500, "InternalError", reaches_store=True),
}
STALLED = Fault("answer", 400, "RequestTimeout")  # what S3 says to an upload that came too slowly


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server("body", "client") as url:
        yield url


@pytest.fixture
def proxy(server: str) -> Iterator[Proxy]:
    with proxy_to(server) as proxy:
        yield proxy


@pytest.fixture
def store(proxy: Proxy, request: pytest.FixtureRequest) -> ObjectStore:
    return store_behind(proxy, request.node.name)


def store_behind(proxy: Proxy, name: str, bucket: str = "body") -> ObjectStore:
    """A prefix of its own for each test; impatient, so that a hanging answer costs little."""
    prefix = "".join(c if c.isalnum() else "-" for c in name)
    return open_store(f"s3://{bucket}/{prefix}?retry_s=20&timeout_s=0.5", environment_for(proxy.url))


@pytest.mark.parametrize("fault", [*PASSING.values(), STALLED], ids=[*PASSING.keys(), "RequestTimeout"])
def test_a_create_is_done_once_in_spite_of(fault: Fault, proxy: Proxy, store: ObjectStore) -> None:
    proxy.script.extend([fault, None, fault])
    won = store.create("a/b", b"mine")
    # After a lost answer it cannot know who wrote what is there, and does not claim to have been first.
    assert won == (not fault.reaches_store)
    proxy.script.clear()
    assert store.get("a/b") == b"mine"
    assert not store.create("a/b", b"another's")
    assert list(store.list("a")) == ["a/b"]
    assert store.get("a/b") == b"mine"


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_every_other_verb_goes_on_in_spite_of(fault: Fault, proxy: Proxy, store: ObjectStore) -> None:
    proxy.script.extend([fault, fault])
    store.put("a/b", b"1")
    proxy.script.append(fault)
    assert store.get("a/b") == b"1"
    proxy.script.append(fault)
    assert list(store.list("a")) == ["a/b"]
    proxy.script.append(fault)
    assert store.exists("a/b")
    proxy.script.append(fault)
    store.delete("a/b")
    assert not store.exists("a/b")
    assert not proxy.script


def test_a_false_from_create_is_never_said_with_nothing_there(proxy: Proxy, store: ObjectStore) -> None:
    """Two writers at once can get a 409 each. Had it been taken for "already there", the contribution would be lost."""
    proxy.script.extend([PASSING["409 while another write is on its way"], None, None])
    assert store.create("a/b", b"mine")
    assert [one.split()[0] for one in proxy.requests] == ["PUT", "HEAD", "PUT"]
    assert store.get("a/b") == b"mine"


def test_an_answer_that_breaks_off_is_read_again(proxy: Proxy, store: ObjectStore) -> None:
    store.put("a/b", bytes(100_000))
    proxy.script.extend([Fault("truncate"), Fault("truncate")])
    assert store.get("a/b") == bytes(100_000)
    proxy.script.extend([Fault("truncate"), Fault("truncate")])
    assert list(store.list("a")) == ["a/b"]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (THROTTLED, r"the store asks to slow down \(503 SlowDown\)|the store answered 503"),  # a HEAD has no code
        (Fault("answer", 500, "InternalError"), "the store answered 500"),
        (Fault("close"), "the connection broke before the answer"),
        (Fault("hang"), "no answer in time"),
    ],
    ids=["throttled", "failing", "closing", "hanging"],
)
@pytest.mark.parametrize("verb", ["create", "put", "get", "exists", "list", "delete"])
def test_after_the_budget_it_says_what_failed(verb: str, fault: Fault, reason: str, proxy: Proxy) -> None:
    store = open_store("s3://body/x?retry_s=0.3&timeout_s=0.1", environment_for(proxy.url))
    proxy.always = fault
    call: dict[str, Any] = {"create": (b"",), "put": (b"",)}
    with pytest.raises(StoreUnavailable, match=reason) as caught:
        getattr(store, verb)("a/b", *call.get(verb, ()))
    words = str(caught.value)
    assert "'a/b'" in words
    assert "s3://body/x" in words
    assert "tries" in words
    assert KEY_ID not in words
    assert SECRET not in words
    assert len(proxy.requests) > 1


def test_the_pauses_double_with_jitter_until_the_budget_is_spent() -> None:
    retry = Retry(budget_s=10.0, first_pause_s=0.1, longest_pause_s=1.0)
    pauses = [retry.pause_s(tries, 0.0) or 0.0 for tries in range(1, 8)]
    longest = [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]
    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, longest, strict=True))
    assert retry.pause_s(1, 9.99) is None
    assert retry.pause_s(100_000, 0.0) is not None
    assert Retry(budget_s=0.0).pause_s(1, 0.0) is None


def test_a_training_in_which_every_write_loses_its_first_answer_gives_the_same_model(proxy: Proxy) -> None:
    """Specification, version 0, contributions, seals, files and commits, in both areas: all are created behind a lost
    answer, so each create of the training says False. The commits are those of an undisturbed training, byte by byte.
    """
    spec = spec_of(data={"clients": 2})
    calm, disturbed = World(spec), OnS3.behind(proxy, spec)
    for world in (calm, disturbed):
        for number in range(2):
            world.join(f"c{number}", toy_data(samples=17 + number, seed=number))
        world.run()
    assert [one.to_bytes() for one in disturbed.commits()] == [one.to_bytes() for one in calm.commits()]
    assert disturbed.client_hash() == calm.client_hash()
    written = [one for one in proxy.requests if one.startswith("PUT ")]
    assert len(written) == 2 * len(set(written))


@pytest.mark.parametrize("sync", [1, 3])
def test_no_contribution_counts_twice_when_every_answer_is_lost(sync: int, proxy: Proxy) -> None:
    world = OnS3.behind(proxy, spec_of(strategy={"sync": sync}))
    world.join("c0", toy_data(samples=17))
    world.run()
    settled = [(commit.round, *unit) for commit in world.commits() for unit in sorted(commit.settled)]
    assert settled == [(round_, "c0", unit) for round_ in range(2) for unit in range(2)]


class OnS3(World):
    """Both areas in buckets behind a proxy that loses the answer to the first put of each key."""

    stores: dict[str, ObjectStore]

    @classmethod
    def behind(cls, proxy: Proxy, spec: Any) -> OnS3:
        proxy.first_put_of_each_key = LOST
        prefix = f"training-{id(proxy)}"
        cls.stores = {area: store_behind(proxy, prefix, area) for area in ("body", "client")}
        return cls(spec)

    @classmethod
    def _store(cls, _folder: Path | None, area: str) -> ObjectStore:
        return cls.stores[area]


# Set-up that cannot work, named before a training starts.

WRONG = {
    "bucket": (Fault("answer", 404, "NoSuchBucket"), r"no such bucket.*404 NoSuchBucket"),
    "key id": (Fault("answer", 403, "InvalidAccessKeyId"), r"access key is not known.*AWS_ACCESS_KEY_ID"),
    "secret": (Fault("answer", 403, "SignatureDoesNotMatch"), r"secret key is wrong.*AWS_SECRET_ACCESS_KEY"),
    "token": (Fault("answer", 400, "ExpiredToken"), "credentials have expired"),
    "clock": (Fault("answer", 403, "RequestTimeTooSkewed"), "clock is wrong"),
    "region": (Fault("answer", 400, "AuthorizationHeaderMalformed"), "another region; check AWS_REGION"),
    "redirect": (Fault("answer", 301, "PermanentRedirect"), "another region"),
    "rights": (Fault("answer", 403, "AccessDenied"), r"may not do that in this bucket \(403 AccessDenied\)"),
    "service": (Fault("answer", 405, "MethodNotAllowed"), "the store answered 405 MethodNotAllowed"),
}


@pytest.mark.parametrize(("fault", "words"), WRONG.values(), ids=WRONG.keys())
def test_the_probe_names_a_wrong(fault: Fault, words: str, proxy: Proxy, store: ObjectStore) -> None:
    proxy.always = fault
    with pytest.raises(StoreNotWritable, match=words) as caught:
        store.probe()
    assert store.url in str(caught.value)
    assert SECRET not in str(caught.value)
    assert KEY_ID not in str(caught.value)
    assert len(proxy.requests) == 1  # what does not pass is not tried again


def test_the_probe_names_a_bucket_that_does_not_exist(server: str) -> None:
    """As the server itself says it."""
    with pytest.raises(StoreNotWritable, match="no such bucket"):
        open_store("s3://nobody-made-this/x", environment_for(server)).probe()


@pytest.mark.parametrize("verb", ["create", "put", "get", "list", "delete"])
def test_a_bucket_that_is_gone_is_not_taken_for_a_key_that_is_not_there(verb: str, server: str) -> None:
    """A look-up has to take it for that: the answer to a HEAD has no code."""
    store = open_store("s3://nobody-made-this/x", environment_for(server))
    with pytest.raises(StoreUnavailable, match="no such bucket"):
        getattr(store, verb)("a/b", *([b""] if verb in ("create", "put") else []))


@pytest.mark.parametrize("verb", ["create", "put"])
def test_a_write_is_never_answered_with_not_found(verb: str, proxy: Proxy, store: ObjectStore) -> None:
    proxy.always = Fault("answer", 404)
    with pytest.raises(StoreUnavailable, match="the store answered 404"):
        getattr(store, verb)("a/b", b"")


def test_the_probe_names_a_read_only_bucket(proxy: Proxy, store: ObjectStore) -> None:
    proxy.script.extend([None, None, WRONG["rights"][0]])
    with pytest.raises(StoreNotWritable, match=r"Cannot create .*AccessDenied"):
        store.probe()


def test_the_probe_refuses_a_store_in_which_a_key_can_be_created_twice(proxy: Proxy, store: ObjectStore) -> None:
    proxy.honours_conditions = False
    with pytest.raises(StoreNotWritable, match="lets a key be created twice"):
        store.probe()
    assert proxy.requests[-1].startswith("DELETE ")


def test_the_probe_passes_when_only_answers_are_lost(proxy: Proxy, store: ObjectStore) -> None:
    proxy.first_put_of_each_key = LOST
    store.probe()


def test_a_throttling_store_is_not_called_wrong(proxy: Proxy) -> None:
    proxy.always = THROTTLED
    store = open_store("s3://body/x?retry_s=0.2&timeout_s=0.5", environment_for(proxy.url))
    with pytest.raises(StoreUnavailable, match="slow down"):
        store.probe()


def test_before_a_run_an_endpoint_that_nobody_answers_on_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("microsfl.launch.preflight.PATIENCE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = environment_for(f"http://127.0.0.1:{port}")
    with pytest.raises(StoreNotWritable, match=r"store\.body = 's3://body/x': .* nobody answers at the endpoint"):
        check_store("s3://body/x", "run", "store.body", environment)


@pytest.mark.parametrize(
    ("text", "words", "passes"),
    [
        ("Error performing PUT http://169.254.169.254/latest/api/token in 1ms - …", "set AWS_ACCESS_KEY_ID", True),
        ('HttpError { kind: Connect, … "dns error" …', "host name is not known", True),
        ("HttpError { kind: Connect, … invalid peer certificate: UnknownIssuer …", "certificate is not trusted", False),
        ("HttpError { kind: Decode, …", "the answer could not be read", True),
        ("something new", "the answer could not be read", True),
    ],
)
def test_failures_that_no_server_here_can_cause_are_named(text: str, words: str, passes: bool) -> None:
    """The shapes of obstore's texts; nothing of them but a status and an error code is ever shown."""
    found = failure(OSError(text))
    assert words in found.reason
    assert found.passes == passes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"AWS_ENDPOINT_URL": "nonsense"}, "AWS_ENDPOINT_URL = 'nonsense' is no URL"),
        ({"AWS_ENDPOINT_URL": f"http://{KEY_ID}:{SECRET}@host"}, "has credentials in it"),
        ({"AWS_SECRET_ACCESS_KEY": ""}, "belong together"),
        ({"AWS_ACCESS_KEY_ID": ""}, "belong together"),
    ],
)
def test_an_environment_that_cannot_be_right_is_refused(change: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidSetting, match=words) as caught:
        open_store("s3://body/x", environment_for("http://127.0.0.1:1") | change)
    assert SECRET not in str(caught.value)


def test_each_area_gets_its_own_credentials_and_no_other_s() -> None:
    everything = {
        "PATH": "/bin",
        "AWS_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "shared",
        "AWS_SECRET_ACCESS_KEY": "shared-secret",
        "AWS_SESSION_TOKEN": "shared-token",
        "MICROSFL_BODY_AWS_ACCESS_KEY_ID": "b",
        "MICROSFL_BODY_AWS_SECRET_ACCESS_KEY": "b-secret",
        "MICROSFL_LOG_LEVEL": "info",
    }
    rest = {"PATH": "/bin", "AWS_REGION": "eu-central-1", "MICROSFL_LOG_LEVEL": "info"}
    assert area_environment("body", everything) == {
        **rest,
        "AWS_ACCESS_KEY_ID": "b",
        "AWS_SECRET_ACCESS_KEY": "b-secret",
    }
    assert area_environment("client", everything) == {
        **rest,
        "AWS_ACCESS_KEY_ID": "shared",
        "AWS_SECRET_ACCESS_KEY": "shared-secret",
        "AWS_SESSION_TOKEN": "shared-token",
    }


def test_what_is_passed_replaces_what_this_process_has(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """obstore looks into the environment by itself; a launcher opens stores with the environment of its children."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    open_store("s3://body/y?retry_s=0", environment_for(proxy.url)).probe()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    open_store("s3://body/y?retry_s=0").probe()
