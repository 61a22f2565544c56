"""What split server and fed server answer, as OpenAPI, from their own tables: `docs/reference/replicas.openapi.json`.

python -m tests.fuzz.replica_api    # writes it again
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from microsfl.config import FedServerSettings, SplitServerSettings
from microsfl.services import fed_server, split_server
from microsfl.services.replica import BINARY, Replica, create_app
from microsfl.spec.names import ID_PATTERN
from microsfl.store.objects import open_store

Json = dict[str, Any]
FILE = Path(__file__).parents[2] / "docs" / "reference" / "replicas.openapi.json"

ID = {"type": "string", "pattern": f"^{ID_PATTERN}$", "maxLength": 64}
NATURAL = {"type": "integer", "minimum": 0, "maximum": 10**9}
IN_PATH: dict[str, Json] = {
    "run": ID,
    "client": ID,
    "round": NATURAL,
    "version": {"anyOf": [{"const": "newest"}, NATURAL]},
}
CALLS: dict[str, Json] = {
    "/v1/runs": {"spec": {"type": "object"}},
    "/v1/reduce": {"run": ID, "round": NATURAL, "parts": NATURAL},
    "/v1/partials": {"run": ID, "round": NATURAL, "part": NATURAL, "parts": NATURAL},
    "/v1/aggregate": {
        "run": ID, "round": NATURAL, "clients": {"type": "array", "items": ID},
        "last": {"anyOf": [ID, {"type": "null"}]},
    },
}  # fmt: skip
OPTIONAL = {"parts", "last"}


def document(replica: Replica, title: str) -> Json:
    """Every endpoint of the replica's app."""
    paths: Json = {}
    for route in create_app(replica, 1).routes:
        path, (method,) = route.path, route.methods - {"HEAD"}  # type: ignore[attr-defined]
        paths.setdefault(path, {})[method.lower()] = _operation(replica, path)
    return {"openapi": "3.1.0", "info": {"title": title, "version": "1"}, "paths": paths}


def _operation(replica: Replica, path: str) -> Json:
    named = re.findall(r"\{(\w+)\}", path)
    parameters = [{"name": name, "in": "path", "required": True, "schema": IN_PATH[name]} for name in named]
    if path.endswith("/commits"):
        parameters.append({"name": "after", "in": "query", "required": False, "schema": NATURAL})
    scopes = [scope.value for (_, known), wanted in replica.endpoints.items() if known == path for scope in wanted]
    operation: Json = {
        "responses": {"default": {"description": "wire.md"}},
        "x-scopes": scopes,
        "parameters": parameters,
    }
    if path in replica.messages:
        message = replica.messages[path][0].__name__
        body: Json = {BINARY: {"schema": {"type": "string", "format": "binary", "description": message}}}
        operation["requestBody"] = {"required": True, "content": body}
    if path in replica.calls:
        fields = CALLS[path]
        schema = {"type": "object", "properties": fields, "required": sorted(fields.keys() - OPTIONAL)}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation


def documents() -> dict[str, Json]:
    """By service, as in `tests/attacks/estate.py`."""
    store, at = open_store("memory://"), "memory://"
    split = split_server.create_replica(SplitServerSettings(store_url=at), store)
    fed = fed_server.create_replica(FedServerSettings(store_url=at), store)
    found = {"split": document(split, "microsfl split server"), "fed": document(fed, "microsfl fed server")}
    split.close()
    return found


if __name__ == "__main__":
    FILE.write_text(json.dumps(documents(), indent=1) + "\n")
