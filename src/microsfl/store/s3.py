"""S3: a bucket as a back end, what the environment says about it, and what its answers mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import S3Store

from ..errors import InvalidSetting
from .backends import Obstore
from .retry import Failure

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config, S3Credential

BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
CONNECT_S = 5.0

# A variable of an area replaces all shared ones of its row: its key never goes with another's session token.
_GROUPS = (
    ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"),
    ("AWS_REGION", "AWS_DEFAULT_REGION"),
)
_AREA_VARIABLE = re.compile(r"MICROSFL_[A-Z]+_AWS_[A-Z0-9_]+")

# obstore's errors have the answer in their text only; nothing else of that text is shown, for an S3 error body can
# hold the key id and what was signed. tests/faults/test_store_faults.py fails when these shapes change.
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,60})</Code>")
_TRANSPORT = re.compile(r"HttpError \{\s*kind: (\w+)")
_PASSING_STATUS = {408, 409, 425, 429, 500, 502, 503, 504}

_MEANINGS = {
    "NoSuchBucket": "there is no such bucket; check the store's URL and the endpoint",
    "InvalidAccessKeyId": "the access key is not known there; check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret key is wrong; check AWS_SECRET_ACCESS_KEY",
    "InvalidToken": "the session token is wrong; check AWS_SESSION_TOKEN",
    "ExpiredToken": "the credentials have expired; get new ones",
    "AccessDenied": "these credentials may not do that in this bucket",
    "RequestTimeTooSkewed": "this machine's clock is wrong by minutes; set it, for example with NTP",
    "PermanentRedirect": "the bucket is in another region; check AWS_REGION and the endpoint",
    "AuthorizationHeaderMalformed": "the bucket is in another region; check AWS_REGION",
    "NotImplemented": "the store does not know this operation",
    "SlowDown": "the store asks to slow down",
}


class Bucket(Obstore):
    """A bucket, or a part of one. Of S3's conditions only `If-None-Match: *` is used, and no e-tag."""

    readers = 16  # each waits for an answer most of the time

    def create(self, key: str, value: bytes) -> bool:
        try:
            obstore.put(self.backend, key, value, mode="create", use_multipart=False)
        except AlreadyExistsError:
            # obstore says so for 412, the key is there, and for 409, another write of it is on its way. That one may
            # still fail, and a False with nothing there would lose what the caller has: so look.
            if self._is_there(key):
                return False
            raise
        return True

    def _is_there(self, key: str) -> bool:
        try:
            self.size(key)
        except FileNotFoundError:
            return False
        return True

    def is_missing(self, error: Exception) -> bool:
        return super().is_missing(error) and "NoSuchBucket" not in str(error)

    def failure(self, error: Exception) -> Failure:
        return failure(error)


def connect(bucket: str, prefix: str, timeout_s: float, environment: Mapping[str, str]) -> S3Store:
    """obstore's client, without its retries: it would not repeat a conditional put whose answer was lost.

    Raises:
        InvalidSetting: for a bucket, endpoint or credentials that cannot be right.
    """
    if not BUCKET.fullmatch(bucket):
        raise InvalidSetting(f"'{bucket:.70}' is no bucket name; use s3://bucket/prefix.")
    endpoint = _endpoint(environment)
    config: S3Config = {
        "region": environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1",
        "disable_bulk_delete": True,  # not every S3 dialect has it
    }
    if endpoint:
        config["aws_endpoint_url_s3"] = endpoint
    options: ClientConfig = {
        "allow_http": endpoint.startswith("http://"),
        "timeout": timedelta(seconds=timeout_s),
        "connect_timeout": timedelta(seconds=min(CONNECT_S, timeout_s)),
    }
    credentials = _credentials(environment)
    return S3Store(
        bucket,
        prefix=prefix or None,
        config=config,
        client_options=options,
        retry_config={"max_retries": 0},
        credential_provider=None if credentials is None else lambda: credentials,
    )


def area_environment(area: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a process that opens one area's store.

    MICROSFL_<AREA>_AWS_<NAME> becomes AWS_<NAME>; no process is given such a variable of another area.
    """
    own = {
        name.removeprefix(f"MICROSFL_{area.upper()}_"): value
        for name, value in environment.items()
        if name.startswith(f"MICROSFL_{area.upper()}_AWS_")
    }
    replaced = {name for group in _GROUPS if own.keys() & set(group) for name in group}
    shared = {
        name: value
        for name, value in environment.items()
        if name not in replaced and not _AREA_VARIABLE.fullmatch(name)
    }
    return shared | own


def failure(error: Exception) -> Failure:
    """What an error of obstore's S3 client means."""
    text = str(error)
    status, code = _found(_STATUS, text), _found(_CODE, text)
    if "169.254.169.254" in text:  # where a cloud's own machines get theirs
        return Failure("no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", passes=True)
    if "redirect without LOCATION" in text:
        return Failure(_MEANINGS["PermanentRedirect"], passes=False)
    if status:
        passes = int(status) in _PASSING_STATUS or code in ("RequestTimeout", "SlowDown", "InternalError")
        said = f"{status} {code}".strip()
        return Failure(f"{_MEANINGS[code]} ({said})" if code in _MEANINGS else f"the store answered {said}", passes)
    return _transport_failure(text)


def _transport_failure(text: str) -> Failure:
    if "certificate" in text:
        return Failure("the endpoint's TLS certificate is not trusted", passes=False)
    if "dns error" in text:
        return Failure("the endpoint's host name is not known", passes=True)
    reasons = {
        "Connect": "nobody answers at the endpoint",
        "Timeout": "no answer in time",
        "Interrupted": "the connection broke before the answer",
        "Request": "the connection broke before the answer",
    }
    return Failure(reasons.get(_found(_TRANSPORT, text), "the answer could not be read"), passes=True)


def _endpoint(environment: Mapping[str, str]) -> str:
    """The endpoint's URL, "" for AWS itself."""
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or ""
    parts = urlsplit(endpoint)
    if "@" in parts.netloc:
        raise InvalidSetting(
            "AWS_ENDPOINT_URL has credentials in it; give them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )
    if endpoint and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise InvalidSetting(f"AWS_ENDPOINT_URL = '{endpoint:.100}' is no URL; write it like http://host:9000.")
    return endpoint.rstrip("/")


def _credentials(environment: Mapping[str, str]) -> S3Credential | None:
    """The environment's keys; None leaves it to obstore to find a web identity, a container's or a machine's."""
    key, secret = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    if bool(key) != bool(secret):
        raise InvalidSetting("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY belong together; one of them is not set.")
    if not key or not secret:
        return None
    token = environment.get("AWS_SESSION_TOKEN") or None
    return {"access_key_id": key, "secret_access_key": secret, "token": token, "expires_at": None}


def _found(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return match[1] if match else ""
