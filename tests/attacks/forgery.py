"""Tokens that somebody makes up, each of which every service must refuse."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from microsfl.trust.keys import jwks
from microsfl.trust.tokens import Audience, Signer
from tests.attacks.estate import AREAS, NOW, Estate

Forge = Callable[[Estate, str], str]


def part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def claims(service: str, **changes: Any) -> dict[str, Any]:
    """What an operator's token says; a change to None leaves a claim out."""
    base = {
        "iss": "clinics", "aud": AREAS[service].value, "sub": "operator", "role": "operator", "acts_as": ["*"],
        "runs": ["*"], "iat": NOW, "exp": NOW + 300, "jti": "1",
    }  # fmt: skip
    return {name: value for name, value in {**base, **changes}.items() if value is not None}


def unsigned(alg: str, signature: str = "") -> Forge:
    def forge(it: Estate, service: str) -> str:
        head = {"alg": alg, "typ": "JWT", "kid": kid_of(it)}
        return f"{part(head)}.{part(claims(service))}.{signature}"

    return forge


def hmac_with(secret: Callable[[Estate], bytes], alg: str = "HS256", digest: str = "sha256") -> Forge:
    """Signed with what everybody knows as if it were a shared secret."""

    def forge(it: Estate, service: str) -> str:
        text = f"{part({'alg': alg, 'kid': kid_of(it)})}.{part(claims(service))}"
        return f"{text}.{part(hmac.new(secret(it), text.encode(), digest).digest())}"

    return forge


def signed_by(key: Any, alg: str, **header: Any) -> Forge:
    def forge(it: Estate, service: str) -> str:
        return jwt.encode(claims(service), key, alg, headers={"kid": kid_of(it), **header})

    return forge


def with_kid(kid: Any) -> Forge:
    """The attacker's own key, under a name that might be looked for elsewhere."""

    def forge(it: Estate, service: str) -> str:  # noqa: ARG001
        text = f"{part({'alg': 'EdDSA', 'kid': kid})}.{part(claims(service))}"
        return f"{text}.{part(OWN.sign(text.encode()))}"

    return forge


def genuine(**changes: Any) -> Forge:
    """With the federation's own key, and claims that must not be taken."""

    def forge(it: Estate, service: str) -> str:
        return jwt.encode(claims(service, **changes), it.signer.key, "EdDSA", headers={"kid": kid_of(it)})

    return forge


def changed(it: Estate, service: str) -> str:
    """A client's own token, whose payload is another's."""
    head, _, signature = it.token("alice", service).split(".")
    return f"{head}.{part(claims(service))}.{signature}"


def of_a_foreign_federation(it: Estate, service: str) -> str:
    signer = Signer("elsewhere", "k1", OWN)
    return signer.token(it.identities.caller(it.identities.all()[4]), AREAS[service], now=NOW)


def of_a_namesake(it: Estate, service: str) -> str:
    """Another federation that calls itself and its key alike."""
    signer = replace(it.signer, key=OWN)
    return signer.token(it.identities.caller(it.identities.all()[4]), AREAS[service], now=NOW)


def of_another_audience(it: Estate, service: str) -> str:
    other = next(name for name, area in AREAS.items() if area is not AREAS[service])
    return it.token("operator", other)


def for_all_audiences_in_one_word(it: Estate, service: str) -> str:
    return genuine(aud=" ".join(Audience))(it, service)


def kid_of(it: Estate) -> str:
    return list(it.federation.keys)[-1]


def public_of(it: Estate) -> Any:
    return it.federation.public[kid_of(it)]


OWN = Ed25519PrivateKey.generate()
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
NAMES = ("../../../../dev/null", "/dev/null", "", "' OR '1'='1", "k1", ["a"], {"a": 1}, 0, None, "\x00", "a" * 3000)

FORGERIES: dict[str, Forge] = {
    "text": lambda *_: "nonsense",
    "dots alone": lambda *_: "..",
    "two parts": lambda *_: "a.b",
    "five parts": lambda *_: "a.b.c.d.e",
    "half a character": lambda *_: "\u00e9.\u00e9.\u00e9",
    "a list for a header": lambda *_: f"{part([])}.{part({})}.{part(b'')}",
    "deep JSON": lambda *_: f"{part(b'[' * 2000)}.{part({})}.{part(b'')}",
    "over the limit": lambda it, service: it.token("operator", service) + "A" * 5000,
    "a right token and more": lambda it, service: it.token("operator", service) + ".x",
    "without its signature": lambda it, service: it.token("operator", service).rpartition(".")[0] + ".",
    "with another signature": lambda it, service: it.token("operator", service)[:-20] + "A" * 20,
    "another payload": changed,
    "expired": lambda it, service: it.token("operator", service, now=NOW - 331),
    "from the future": lambda it, service: it.token("operator", service, now=NOW + 31),
    "revoked": lambda it, service: it.token("eve", service, now=NOW - 1),
    "revoked at the same moment": lambda it, service: it.token("eve", service),
    "a foreign federation's": of_a_foreign_federation,
    "a namesake's": of_a_namesake,
    "for another service": of_another_audience,
    "for all services in one word": for_all_audiences_in_one_word,
    **{f"alg {alg}": unsigned(alg) for alg in ("none", "None", "NONE", "nOnE", "", "EdDSA")},
    "alg none with a signature": unsigned("none", part(b"x" * 64)),
    "HS256 with the public key": hmac_with(lambda it: public_of(it).public_bytes_raw()),
    "HS256 with the public key as PEM": hmac_with(
        lambda it: public_of(it).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    ),
    "HS256 with the key set's text": hmac_with(lambda it: jwks(it.federation.public)["keys"][-1]["x"].encode()),
    "HS256 with nothing": hmac_with(lambda _: b""),
    "HS512 with the key's name": hmac_with(lambda it: kid_of(it).encode(), "HS512", "sha512"),
    "a digest for a signature": lambda it, service: (
        f"{part({'alg': 'EdDSA', 'kid': kid_of(it)})}.{part(claims(service))}.{part(hashlib.sha512(b'').digest())}"
    ),
    "RS256": signed_by(RSA, "RS256"),
    "PS256": signed_by(RSA, "PS256"),
    "ES256": signed_by(EC, "ES256"),
    "its own key in the header": signed_by(OWN, "EdDSA", jwk=jwks({"k1": OWN.public_key()})["keys"][0]),
    "its own key at a URL": signed_by(OWN, "EdDSA", jku="http://127.0.0.1:9/keys", x5u="http://127.0.0.1:9/cert"),
    **{f"kid {str(kid)[:24]!r} of a {type(kid).__name__}": with_kid(kid) for kid in NAMES},
    **{f"genuine without {name}": genuine(**{name: None}) for name in claims("split")},
    "genuine with an unknown role": genuine(role="root"),
    "genuine with text for a list": genuine(acts_as="*"),
    "genuine with numbers for names": genuine(runs=[1]),
    "genuine with an end that is no number": genuine(exp="soon"),
    "genuine of nobody's federation": genuine(iss="elsewhere"),
}
