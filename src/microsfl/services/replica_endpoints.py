"""What each endpoint of split server and fed server asks for."""

from __future__ import annotations

from ..trust.scopes import Scope
from .gate import Endpoints

BOTH: Endpoints = {
    ("GET", "/v1/health"): (Scope.PUBLIC,),
    ("GET", "/v1/ready"): (Scope.PUBLIC,),
    ("GET", "/metrics"): (Scope.READ,),
    ("POST", "/v1/runs"): (Scope.DIRECT,),
    ("GET", "/v1/runs/{run}"): (Scope.DIRECT, Scope.READ, Scope.UNITS, Scope.CLIENT_SIDE),
}
BODY: Endpoints = {
    **BOTH,
    ("POST", "/v1/forward"): (Scope.UNITS,),
    ("POST", "/v1/backward"): (Scope.UNITS,),
    ("POST", "/v1/step"): (Scope.UNITS,),
    ("POST", "/v1/predict"): (Scope.UNITS,),
    ("POST", "/v1/reduce"): (Scope.DIRECT, Scope.UNITS),  # units: of a run that nobody directs
    ("POST", "/v1/partials"): (Scope.DIRECT,),
    ("GET", "/v1/runs/{run}/commits"): (Scope.DIRECT, Scope.READ),
    ("GET", "/v1/runs/{run}/versions/{version}/weights"): (Scope.MODEL, Scope.DOWNLOAD),
}
CLIENT_SIDE: Endpoints = {
    **BOTH,
    ("POST", "/v1/updates"): (Scope.CLIENT_SIDE,),
    ("POST", "/v1/aggregate"): (Scope.DIRECT,),
    ("GET", "/v1/runs/{run}/versions/{version}/weights"): (Scope.CLIENT_SIDE, Scope.DOWNLOAD),
    ("GET", "/v1/runs/{run}/rounds/{round}/updates/{client}"): (Scope.CLIENT_SIDE,),
    ("GET", "/v1/runs/{run}/rounds/{round}/updates/{client}/weights"): (Scope.CLIENT_SIDE,),
}
