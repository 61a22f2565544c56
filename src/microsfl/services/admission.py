"""How one gets in: tokens for a credential, credentials for an invitation, and the dashboard's sessions."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, BaseModel, Field, StringConstraints, model_validator

from ..errors import ClientNotFound, InputError, InvalidSetting
from ..records import Identity
from ..spec import check_id
from ..trust.scopes import Role
from ..trust.tokens import ANY, LIFE_S, Audience, check_acts_as
from . import api
from .at_hand import RESPONSES, at_hand
from .gate import COOKIE, basic_of, caller_of
from .http import read_body
from .identities import Identities
from .json_body import JsonRoute
from .refusals import place_of

FORM_BYTES = 4096
LONGEST_INVITATION_S = 90 * 86_400.0
DAY_S = 86_400.0
GRANT = "client_credentials"
NEVER_KEPT = {"cache-control": "no-store"}

Secret = Annotated[str, StringConstraints(min_length=1, max_length=200)]
# An id, or the beginning of some with a `*` after it.
Pattern = Annotated[str, AfterValidator(lambda value: check_id(value.removesuffix(ANY), "acts_as") and value)]

router = APIRouter(prefix="/api", route_class=JsonRoute, responses=RESPONSES)


class TokenJson(BaseModel):
    """As RFC 6749, section 5.1, has it."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"
    expires_in: int = Field(description="seconds")  # a whole number: not every OAuth library reads another one


class Invite(api.Request):
    id: api.ParticipantId
    role: Literal["operator", "viewer", "client", "split-server", "fed-server"]
    acts_as: list[Pattern] | None = Field(
        None,
        max_length=10_000,
        description="Clients that one process hosts under this identity, or split servers that share it, of which "
        "`split-*` are all that begin so; default: `id` alone.",
    )
    runs: list[str] = Field(
        [ANY], min_length=1, max_length=1000, description="Runs that a client may take part in, by name; `*`: all."
    )
    expires_s: float = Field(7 * DAY_S, gt=0, le=LONGEST_INVITATION_S)


class Invited(BaseModel):
    token: str = Field(description="for one enrolment; it is not shown again")
    expires_at: float


class Enrolment(api.Request):
    token: Secret


class Enrolled(BaseModel):
    id: str
    role: str
    secret: str = Field(description="with `id`, the credential; it is not shown again")


class Given(api.Request):
    id: api.ParticipantId
    secret: Secret


class LogIn(api.Request):
    """A credential, or the code of a link."""

    id: api.ParticipantId | None = None
    secret: Secret | None = None
    code: Secret | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.code is None) == (self.id is None) or (self.secret is None) != (self.id is None):
            raise ValueError("either id and secret, or code")
        return self


class LoginLink(BaseModel):
    code: str = Field(description="for one login: the dashboard's address with #login=CODE")
    expires_at: float


class SecretJson(BaseModel):
    secret: str


class Session(BaseModel):
    id: str
    role: str
    anybody: bool = Field(False, description="nobody needs to log in here")


class IdentityJson(BaseModel):
    id: str
    role: str
    acts_as: list[str]
    runs: list[str]
    created_at: float
    enrolled: bool
    revoked_at: float | None


class IdentitiesJson(BaseModel):
    identities: list[IdentityJson]


@router.post(
    "/tokens",
    tags=["admission"],
    summary="An access token (OAuth 2.0 client credentials grant)",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/x-www-form-urlencoded": {
                    "schema": {
                        "type": "object",
                        "required": ["grant_type", "client_id", "client_secret"],
                        "properties": {
                            "grant_type": {"const": GRANT},
                            "client_id": {"type": "string"},
                            "client_secret": {"type": "string"},
                            "audience": {"enum": [one.value for one in Audience]},
                        },
                    }
                }
            },
        }
    },
)
async def token(request: Request, response: Response) -> TokenJson:
    if at_hand(request).identities is None:
        return TokenJson(access_token="anybody", expires_in=LIFE_S)
    form = _form(bytes(await read_body(request, FORM_BYTES)))
    if form.get("grant_type") != GRANT:
        raise InputError(f"grant_type must be {GRANT}.")
    try:
        audience = Audience(form.get("audience", Audience.COORDINATOR))
    except ValueError:
        raise InputError(f"audience must be one of {', '.join(Audience)}.") from None
    response.headers.update(NEVER_KEPT)
    name, secret = basic_of(request.headers) or (form.get("client_id", ""), form.get("client_secret", ""))
    given = await _identities(request).token(name, secret, audience)
    return TokenJson(access_token=given[0], expires_in=int(given[1]))


@router.post("/invitations", status_code=201, tags=["admission"], summary="Invite somebody: a one-time token")
async def invite(request: Request, response: Response, asked: Invite) -> Invited:
    check_acts_as(asked.role, asked.acts_as or [])
    acts_as = [ANY] if asked.role == "operator" else asked.acts_as or [asked.id]
    if asked.runs != [ANY] and asked.role != "client":
        raise InvalidSetting(f"runs: only clients are invited to some runs; a {asked.role} is for all of them.")
    runs = [one if one == ANY else check_id(one, "run") for one in asked.runs]
    caller = caller_of(request)
    for run in runs:  # nobody invites to more than they are invited to
        caller.must_be_in(run)
    response.headers.update(NEVER_KEPT)
    made = await _identities(request).invite(asked.id, Role(asked.role), acts_as, runs, asked.expires_s, caller.id)
    return Invited(token=made[0], expires_at=made[1])


@router.post("/enrolments", status_code=201, tags=["admission"], summary="A credential for an invitation")
async def enrol(request: Request, response: Response, asked: Enrolment) -> Enrolled:
    response.headers.update(NEVER_KEPT)
    one, secret = await _identities(request).enrol(asked.token)
    return Enrolled(id=one.id, role=one.role, secret=secret)


@router.post("/rotations", tags=["admission"], summary="A new secret for one's credential")
async def rotate(request: Request, response: Response, given: Given) -> SecretJson:
    response.headers.update(NEVER_KEPT)
    return SecretJson(secret=await _identities(request).rotate(given.id, given.secret))


@router.get("/identities", tags=["admission"], summary="Who may take part")
async def identities(request: Request) -> IdentitiesJson:
    return IdentitiesJson(identities=[_json(one) for one in _identities(request).all()])


@router.post("/identities/{id}/revoke", tags=["admission"], summary="End a credential, and the tokens given for it")
async def revoke(request: Request, id: api.ParticipantId) -> IdentityJson:
    return _json(await _identities(request).revoke(id, caller_of(request).id))


@router.get("/session", tags=["admission"], summary="As whom one is logged in")
async def session(request: Request) -> Session:
    caller = caller_of(request)
    return Session(id=caller.id, role=caller.role, anybody=at_hand(request).identities is None)


@router.post("/session", tags=["admission"], summary="Log a browser in")
async def log_in(request: Request, response: Response, given: LogIn) -> Session:
    here = _identities(request)
    if given.id is not None and given.secret is not None:
        token, caller, life_s = here.session(given.id, given.secret)
    else:
        token, caller, life_s = here.session_of(given.code or "")
    at_hand(request).refusals.count((caller.id, place_of(request.scope), "POST", "/api/session", 200))
    response.headers.update(NEVER_KEPT)
    response.set_cookie(
        COOKIE, token, max_age=int(life_s), httponly=True, samesite="strict", secure=request.url.scheme == "https"
    )
    return Session(id=caller.id, role=caller.role)


@router.post("/login-links", status_code=201, tags=["admission"], summary="A code that logs a browser in, once")
async def login_link(request: Request, response: Response) -> LoginLink:
    response.headers.update(NEVER_KEPT)
    code, expires_at = _identities(request).codes.new(caller_of(request).id)
    return LoginLink(code=code, expires_at=expires_at)


@router.delete("/session", status_code=204, tags=["admission"], summary="Log a browser out")
async def log_out(response: Response) -> None:
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")


def _identities(request: Request) -> Identities:
    found = at_hand(request).identities
    if found is None:
        raise ClientNotFound("This coordinator takes everybody: it has no identities.")
    return found


def _form(body: bytes) -> dict[str, str]:
    """The first value of each field. Raises InputError."""
    try:
        return {name: values[0] for name, values in parse_qs(body.decode(), max_num_fields=16).items()}
    except ValueError:
        raise InputError("The body is not a form.") from None


def _json(one: Identity) -> IdentityJson:
    shown: dict[str, Any] = {name: getattr(one, name) for name in ("id", "role", "created_at", "revoked_at")}
    return IdentityJson(**shown, acts_as=list(one.acts_as), runs=list(one.runs), enrolled=one.secret_hash is not None)
