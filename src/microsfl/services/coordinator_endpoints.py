"""What each endpoint of the coordinator asks for."""

from __future__ import annotations

from ..trust.scopes import Scope
from .gate import Endpoints

ENDPOINTS: Endpoints = {
    # The dashboard's page and its files, which say nothing of anybody, and what describes the API.
    ("GET", "/"): (Scope.PUBLIC,),
    ("GET", "/static/{name:path}"): (Scope.PUBLIC,),
    ("GET", "/docs"): (Scope.PUBLIC,),
    ("GET", "/docs/oauth2-redirect"): (Scope.PUBLIC,),
    ("GET", "/openapi.json"): (Scope.PUBLIC,),
    ("GET", "/api/health"): (Scope.PUBLIC,),
    ("GET", "/api/ready"): (Scope.PUBLIC,),
    # Who is not in yet shows a secret in the body.
    ("POST", "/api/tokens"): (Scope.PUBLIC,),
    ("POST", "/api/enrolments"): (Scope.PUBLIC,),
    ("POST", "/api/rotations"): (Scope.PUBLIC,),
    ("POST", "/api/session"): (Scope.PUBLIC,),
    ("DELETE", "/api/session"): (Scope.PUBLIC,),
    ("GET", "/api/session"): (Scope.READ,),
    ("POST", "/api/login-links"): (Scope.ADMIN,),
    ("POST", "/api/invitations"): (Scope.ADMIN,),
    ("GET", "/api/identities"): (Scope.ADMIN,),
    ("GET", "/api/audit"): (Scope.ADMIN,),
    ("POST", "/api/identities/{id}/revoke"): (Scope.ADMIN,),
    # Participants.
    ("POST", "/api/participants"): (Scope.REGISTER,),
    ("POST", "/api/tasks/poll"): (Scope.TRAIN,),
    ("POST", "/api/runs/{run}/reports"): (Scope.TRAIN,),
    ("GET", "/api/runs/{run}"): (Scope.READ, Scope.TRAIN),
    ("GET", "/api/participants"): (Scope.READ, Scope.TRAIN),
    # Whoever directs a run.
    ("POST", "/api/runs"): (Scope.CONTROL,),
    ("POST", "/api/runs/{run}/start"): (Scope.CONTROL,),
    ("POST", "/api/runs/{run}/stop"): (Scope.CONTROL,),
    ("POST", "/api/runs/{run}/resume"): (Scope.CONTROL,),
    ("POST", "/api/runs/{run}/partition"): (Scope.CONTROL,),
    ("POST", "/api/resolve"): (Scope.CONTROL,),
    # Whoever looks.
    ("GET", "/metrics"): (Scope.READ,),
    ("GET", "/api/scale"): (Scope.READ,),
    ("GET", "/api/runs"): (Scope.READ,),
    ("GET", "/api/overview"): (Scope.READ,),
    ("GET", "/api/events"): (Scope.READ,),
    ("GET", "/api/settings"): (Scope.READ,),
    ("GET", "/api/runs/{run}/events"): (Scope.READ,),
    ("GET", "/api/runs/{run}/metrics"): (Scope.READ,),
    ("GET", "/api/runs/{run}/profile"): (Scope.READ,),
    ("GET", "/api/runs/{run}/rounds"): (Scope.READ,),
    ("GET", "/api/runs/{run}/commits"): (Scope.READ,),
    ("GET", "/api/runs/{run}/partition"): (Scope.READ,),
    ("GET", "/api/runs/{run}/results.zip"): (Scope.READ,),
    ("GET", "/api/runs/{run}/weights"): (Scope.MODEL,),  # its links open the weights
}

# What asks there knows no tokens, as an autoscaler: its id and secret do (HTTP Basic).
SECRETS_AT = ("/api/scale",)
