"""Process settings: what one process needs to know, apart from any run.

Each value comes from the first of: command-line flag, environment (`MICROSFL_<NAME>`), file (`--config`), default.
The command line makes its flags from these classes, and `docs/reference/settings.md` is compared with them.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from .schema import setting_error
from .spec import DEVICE_PATTERN, check_id
from .spec.names import SPREAD, Spread

LOG_LEVELS = ("debug", "info", "warning", "error")
MB = 1_000_000
AT_RISK = "whoever is on the way could read and change tokens, activations and weights"


def _url(value: str) -> str:
    if not value.startswith(("http://", "https://")):
        raise ValueError(f"'{value}' is not a URL; write it like http://host:8000")
    return value.rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def url_of(scheme: str, host: str, port: int) -> str:
    """Of a service; an IPv6 address is in brackets."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _server_url(value: str) -> str:
    return value[: len(DNS)] + _url(value[len(DNS) :]) if value.startswith(DNS) else _url(value)


# Before the URL of a server whose name has several addresses.
DNS = "dns+"
ServerUrl = Annotated[str, AfterValidator(_server_url)]
HttpUrl = Annotated[str, AfterValidator(_url)]
Port = Annotated[int, Field(ge=0, le=65535)]


class ProcessSettings(BaseModel):
    """What every role has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe log line.")
    exit_with_parent: bool = Field(
        False,
        description="End when standard input closes, as it does when the process that started this one dies.",
    )
    tls_ca: str | None = Field(
        None,
        description="File of the CA (PEM) that the certificates of servers must be of; default: the one in the "
        "credential, or else the CAs that the system trusts.",
    )
    tls_client_cert: str | None = Field(
        None,
        description="File of a certificate (PEM) to show to servers that want one; what listens itself shows its "
        "tls_cert where there is no other.",
    )
    tls_client_key: str | None = Field(
        None, description="File of its private key; default: in the file of tls_client_cert."
    )
    insecure_http: bool = Field(
        False,
        description="Allow plain HTTP to other machines and from them: whoever is on the way can read and change "
        "tokens, activations and weights.",
    )

    @model_validator(mode="after")
    def _http_stays_here(self) -> Self:
        if self.tls_client_key is not None and self.tls_client_cert is None:
            raise ValueError("tls_client_key: its certificate is missing; name it with tls_client_cert")
        for name in ("coordinator", "address"):
            url = urlsplit(getattr(self, name, None) or "")
            if url.scheme == "http" and not self.insecure_http and not is_loopback(url.hostname or ""):
                raise ValueError(
                    f"{name}: {url.geturl()} is plain HTTP to another machine: {AT_RISK}. Use https://, or allow it "
                    "with insecure_http (--insecure-http)"
                )
        return self

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Self:
        """The settings from plain values.

        Raises:
            UnknownSetting, InvalidSetting: naming the wrong value and what would be right.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise setting_error(cls, error, "microsfl ROLE --help") from None


class AdmittedSettings(ProcessSettings):
    """What every role has that shows the coordinator who it is."""

    credential: str | None = Field(
        None,
        description="File of the credential that `microsfl enrol` made; default: the one kept for the coordinator.",
    )


class TracedSettings(ProcessSettings):
    """What every role has that works on units."""

    otel_endpoint: HttpUrl | None = Field(
        None, description="OpenTelemetry collector (OTLP over HTTP) that traces of units are sent to; default: none."
    )
    otel_ratio: float = Field(
        1.0, ge=0, le=1, description="Share of the units that are traced, the same ones in every process."
    )


class TlsSettings(ProcessSettings):
    """What every role has that can listen."""

    tls_cert: str | None = Field(
        None,
        description="File of the certificate (PEM) of what listens, and of those between it and the CA; with it, it "
        "speaks HTTPS. Default: plain HTTP.",
    )
    tls_key: str | None = Field(None, description="File of its private key; default: in the file of tls_cert.")
    tls_client_ca: str | None = Field(
        None, description="File of the CA (PEM) of which callers must show a certificate; default: they need none."
    )

    @property
    def scheme(self) -> str:
        return "http" if self.tls_cert is None else "https"

    @model_validator(mode="after")
    def _with_a_certificate(self) -> Self:
        for name in ("tls_key", "tls_client_ca"):
            if getattr(self, name) is not None and self.tls_cert is None:
                raise ValueError(f"{name}: without tls_cert there is no TLS; name the certificate with it")
        return self

    def _check_host(self, name: str, host: str, risk: str) -> None:
        if self.tls_cert is None and not self.insecure_http and not is_loopback(host):
            raise ValueError(
                f"{name}: on {host} others reach it, by plain HTTP: {risk}. Name a certificate with tls_cert "
                "(--tls-cert; `microsfl admin certs` makes one), or allow it with insecure_http (--insecure-http)"
            )


class ServerSettings(TlsSettings):
    """What every role that is there to listen has."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: Port = Field(0, description="Port to listen on; 0 takes a free one.")
    max_requests: int = Field(
        1024, ge=1, description="Requests under way in all; over it, only who has none under way is let in."
    )
    max_requests_per_caller: int = Field(
        256,
        ge=1,
        description="Requests that one identity has under way; without identities, that one address has.",
    )
    max_requests_per_s: float = Field(
        5000, ge=0, description="Requests that one identity, or one address, sends a second; 0: no bound."
    )
    max_connections: int = Field(8192, ge=1, description="Open connections in all.")
    max_connections_per_caller: int = Field(
        2048,
        ge=1,
        description="Open connections of one identity; of one address, those that have not shown an identity yet. Over "
        "it, the one that has been idle longest is closed.",
    )

    @model_validator(mode="after")
    def _others_need_tls(self) -> Self:
        self._check_host("host", self.host, AT_RISK)
        return self


class CoordinatorSettings(ServerSettings):
    port: Port = Field(8000, description="Port to listen on; 0 takes a free one.")
    # A poll is under way for as long as there is no task: with a thousand clients, a thousand.
    max_requests: int = Field(
        8192, ge=1, description="Requests under way in all; over it, only who has none under way is let in."
    )
    max_requests_per_caller: int = Field(
        4096,
        ge=1,
        description="Requests that one identity has under way; without identities, that one address has.",
    )
    records_url: str = Field("sqlite:///microsfl.db", description="SQLAlchemy URL of the database.")
    split_servers: tuple[ServerUrl, ...] = Field(
        (),
        description="URLs under which clients reach the split servers, where these are not the addresses that they "
        "register with: of a load balancer, say; dns+https://NAME:PORT stands for all addresses of a name.",
    )
    fed_server: HttpUrl | None = Field(
        None, description="URL under which clients reach the fed server, where it is not the one that it registers."
    )
    federation: str | None = Field(
        None,
        description="Folder of the federation that `microsfl admin init` made; default: one of this user's own, for "
        "processes of the same user alone.",
    )
    allow_anybody: bool = Field(
        False, description="Answer everybody who reaches the port, and give no tokens: whoever does is an operator."
    )
    allow_models: tuple[str, ...] = Field(
        (), description="Model factories (package.module:function) that a run of the dashboard may name."
    )
    allow_datasets: tuple[str, ...] = Field(
        (), description="Data set functions (package.module:function) that a run of the dashboard may name."
    )


class ReplicaSettings(ServerSettings, AdmittedSettings):
    """What split server and fed server share."""

    id: Annotated[str, AfterValidator(check_id)] | None = Field(
        None,
        description="Participant id; default: what its credential was invited as, or else role, host name and port.",
    )
    coordinator: HttpUrl | None = Field(None, description="Coordinator to register with; default: none.")
    address: HttpUrl | None = Field(
        None, description="URL under which others reach this server; default: http://HOST:PORT, or https."
    )
    store_url: str = Field(
        description="Store of this server's area: file:///folder (?fsync=true), s3://bucket/prefix or memory://."
    )
    allow_models: tuple[str, ...] = Field(
        (), description="Model factories (package.module:function) that runs may name, besides the zoo's."
    )
    allow_anybody: bool = Field(
        False, description="Answer everybody who reaches the port: whoever does can train, and read all weights."
    )
    max_body_mb: float = Field(64, gt=0, description="Largest request body, in MB (10^6 bytes).")
    drain_s: float = Field(
        20,
        ge=0,
        description="Seconds that it has, once asked to end, to send clients to others and to answer what still comes; "
        "it ends as soon as nobody asks any more. 0: only what is under way is answered.",
    )

    @model_validator(mode="after")
    def _address_is_what_it_speaks(self) -> Self:
        if self.tls_cert is not None and (self.address or "").startswith("http://"):
            raise ValueError(f"address: with tls_cert it speaks HTTPS; write https:// instead of {self.address}")
        return self

    def advertised(self, port: int) -> str:
        """The URL under which others reach this server, once it is bound to `port`."""
        return self.address or url_of(self.scheme, self.host, port)

    def participant_id(self, role: str, port: int) -> str:
        """The id to register under."""
        host = "".join(c if c.isalnum() else "-" for c in socket.gethostname())[:40].strip("-") or "host"
        return self.id or f"{role}-{host}-{port}"


class SplitServerSettings(ReplicaSettings, TracedSettings):
    port: Port = Field(8100, description="Port to listen on; 0 takes a free one.")
    graph_cache_mb: float = Field(
        256,
        ge=0,
        description="Bound of the cache of autograd graphs, in MB; 0: every backward computes again.",
    )
    weights_cache_mb: float = Field(512, ge=0, description="Bound of the cache of versions, in MB.")
    write_behind_mb: float = Field(
        64,
        ge=0,
        description="Bound of activations waiting to be stored, in MB; 0: none is handed to the store.",
    )
    device: str = Field("cpu", pattern=DEVICE_PATTERN, description="Where to compute: cpu, cuda, mps or auto.")
    threads: int = Field(1, ge=1, description="Threads that one torch operation uses.")


class FedServerSettings(ReplicaSettings):
    port: Port = Field(8200, description="Port to listen on; 0 takes a free one.")
    front_weights: str | None = Field(
        None, description="File of the weights that fronts begin with; default: the run's model.front_weights."
    )


class ClientSettings(TracedSettings, AdmittedSettings, TlsSettings):
    coordinator: HttpUrl = Field("http://127.0.0.1:8000", description="Coordinator to work for.")
    ids: tuple[Annotated[str, AfterValidator(check_id)], ...] = Field(
        description="Clients that this process hosts, by id."
    )
    dataset: str | None = Field(
        None,
        description="This site's own data, package.module:function or a zoo name, all of it; default: its share "
        "of the run's data set.",
    )
    path: str | None = Field(None, description="Folder of the data set's files; default: the run's data.path.")
    front_weights: str | None = Field(
        None, description="File of the weights that fronts begin with; default: the run's model.front_weights."
    )
    allow_models: tuple[str, ...] = Field(
        (), description="Model factories (package.module:function) that runs may name, besides the zoo's."
    )
    allow_datasets: tuple[str, ...] = Field(
        (), description="Data set functions (package.module:function) that runs may name, besides the zoo's."
    )
    device: str = Field("cpu", pattern=DEVICE_PATTERN, description="Where to compute: cpu, cuda, mps or auto.")
    threads: int = Field(1, ge=1, description="Threads that one torch operation uses.")
    split_servers: tuple[ServerUrl, ...] = Field(
        (),
        description="URLs of the split servers, or of what stands before them; dns+https://NAME:PORT stands for all "
        "addresses of a name, which is looked up every few seconds. Default: those that the coordinator names.",
    )
    fed_server: HttpUrl | None = Field(
        None, description="URL of the fed server; default: the one that the coordinator names."
    )
    spread: Spread = Field("two", description=SPREAD)
    in_flight: int = Field(
        4,
        ge=0,
        description="Units that a client has under way while it computes others, where they do not depend on one "
        "another; 0: one after the other.",
    )
    retry_s: float = Field(600, gt=0, description="Seconds to keep trying when no server answers.")
    metrics_port: Port | None = Field(
        None, description="Port on which the client shows its metrics; 0 takes a free one; default: it listens nowhere."
    )
    metrics_host: str = Field("127.0.0.1", description="Address for metrics_port.")

    @model_validator(mode="after")
    def _ids_differ(self) -> Self:
        if not self.ids or len(set(self.ids)) != len(self.ids):
            raise ValueError("ids needs at least one id, and each only once")
        if self.metrics_port is not None:
            self._check_host("metrics_host", self.metrics_host, "whoever is on the way could read the metrics")
        return self
