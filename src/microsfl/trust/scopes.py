"""Roles and what each may do. A scope is what an endpoint asks for; `docs/reference/endpoints.md` lists them all."""

from __future__ import annotations

from enum import StrEnum


class Scope(StrEnum):
    """What a caller has to have for an endpoint."""

    PUBLIC = "public"  # nothing: whoever reaches the port
    READ = "read"  # runs, rounds, participants, metrics
    CONTROL = "control"  # create, start, stop and resume runs
    ADMIN = "admin"  # identities, invitations, keys
    REGISTER = "register"  # say that one is there, as oneself
    TRAIN = "train"  # take tasks and hand in results, as oneself, in the runs that one is invited to
    UNITS = "units"  # the data plane's messages of one's own units
    MODEL = "model"  # weights of the body
    CLIENT_SIDE = "client-side"  # weights of front and tail
    DOWNLOAD = "download"  # weights of one run, for a short time, by a link
    DIRECT = "direct"  # prepare, close and commit rounds: the coordinator's part


class Role(StrEnum):
    """What an identity is."""

    OPERATOR = "operator"
    VIEWER = "viewer"
    CLIENT = "client"
    SPLIT_SERVER = "split-server"
    FED_SERVER = "fed-server"
    COORDINATOR = "coordinator"
    LINK = "link"  # whoever has one, as a browser that downloads


GRANTS: dict[Role, frozenset[Scope]] = {
    Role.OPERATOR: frozenset(Scope) - {Scope.DIRECT, Scope.DOWNLOAD},
    Role.VIEWER: frozenset({Scope.READ}),
    Role.CLIENT: frozenset({Scope.REGISTER, Scope.TRAIN, Scope.UNITS, Scope.CLIENT_SIDE}),
    Role.SPLIT_SERVER: frozenset({Scope.REGISTER}),
    Role.FED_SERVER: frozenset({Scope.REGISTER}),
    Role.COORDINATOR: frozenset({Scope.DIRECT, Scope.READ}),
    Role.LINK: frozenset({Scope.DOWNLOAD}),
}
