"""The settings: each with its type, its bounds and its default.

pydantic validates them here, and all other code receives frozen values.
"""

import re
from collections.abc import Iterator
from ipaddress import IPv4Network
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
)

from clawker_fw.rules.promises import AlwaysEntry, NeverEntry, promise_entry
from clawker_fw.rules.schema import RuleEntry
from clawker_fw.settings.durations import LONGEST_DURATION, parse_duration
from clawker_fw.settings.find import PROJECT_FORM, PROJECT_NAME
from clawker_fw.settings.preset import PresetEntry, named_once, preset_entry

SHORTEST_SUBNET_PREFIX, LONGEST_SUBNET_PREFIX = 8, 25
SHORTEST_IDLE = 10
HIGHEST_LIMIT = 100_000
MOST_PROCESSORS = 128
LEAST_MEMORY, MOST_MEMORY = 64 << 20, 1 << 40
MOST_CONNECTIONS = 250_000
MOST_PROMISES = 1_000
HIGHEST_PORT = 65535
_HOST = r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?[.])*[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_LONGEST_NAME = 253


def parse_memory(value: object) -> int:
    """Read a number of bytes: that number, or a number with `KiB`, `MiB` or `GiB`.

    Raises:
        ValueError: when it is neither.
    """
    units = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(KiB|MiB|GiB)\s*|\s*(\d+)\s*", str(value))
    if match is None or isinstance(value, bool):
        raise ValueError(
            f"{value!r} is not an amount of memory; write bytes, or a number with KiB, MiB or GiB (`2GiB`)"
        )
    return int(match[3]) if match[3] else round(float(match[1]) * units[match[2]])


def _image(text: str) -> str:
    if text == "bundled" or re.fullmatch(r"[a-zA-Z0-9][\w.:/-]*@sha256:[0-9a-f]{64}", text):
        return text
    raise ValueError(
        f"{text!r} is not pinned by digest; write `bundled`, or a reference with a digest (name@sha256:…)"
    )


def _host(text: str) -> str:
    if re.fullmatch(_HOST, text) and len(text) <= _LONGEST_NAME:
        return text.lower()
    raise ValueError(f"{text!r} is not a host name or an IPv4 address")


def _endpoint(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= HIGHEST_PORT:
        raise ValueError(f"{text!r} is not an endpoint; write HOST:PORT (`collector.example.com:4317`)")
    return f"{_host(host)}:{int(port)}"


def _folder(text: str) -> str:
    if text:
        return text
    raise ValueError(
        "the name of the folder is empty; leave the setting out to use certificates that are made here"
    )


def _file(text: str) -> str:
    if text:
        return text
    raise ValueError("the name of the file is empty; leave the setting out for public authorities alone")


def _subnet(value: object) -> IPv4Network:
    network = IPv4Network(str(value))
    if not SHORTEST_SUBNET_PREFIX <= network.prefixlen <= LONGEST_SUBNET_PREFIX:
        raise ValueError(f"{network} must have a prefix of /{SHORTEST_SUBNET_PREFIX} to /{LONGEST_SUBNET_PREFIX}")
    if not network.is_private:
        raise ValueError(f"{network} is public address space; agents need a private subnet (RFC 6890)")
    return network


def _project(name: str) -> str:
    if re.fullmatch(PROJECT_NAME, name):
        return name
    raise ValueError(f"{name!r} is not a valid project name: {PROJECT_FORM}")


Project = Annotated[StrictStr, AfterValidator(_project)]
Image = Annotated[StrictStr, AfterValidator(_image)]
Duration = Annotated[float, BeforeValidator(parse_duration), Field(ge=0, le=LONGEST_DURATION)]
Idle = Annotated[float, BeforeValidator(parse_duration), Field(ge=SHORTEST_IDLE, le=LONGEST_DURATION)]
Port = Annotated[StrictInt, Field(ge=1, le=HIGHEST_PORT)]
Host = Annotated[StrictStr, AfterValidator(_host)]
Endpoint = Annotated[StrictStr, AfterValidator(_endpoint)]
Folder = Annotated[StrictStr, AfterValidator(_folder)]
SettingsFile = Annotated[StrictStr, AfterValidator(_file)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Processors = Annotated[StrictInt, Field(ge=1, le=MOST_PROCESSORS)]
Memory = Annotated[int, BeforeValidator(parse_memory), Field(ge=LEAST_MEMORY, le=MOST_MEMORY)]
Connections = Annotated[StrictInt, Field(ge=1, le=MOST_CONNECTIONS)]
Limit = Annotated[StrictInt, Field(ge=1, le=HIGHEST_LIMIT)]
Chosen = Annotated[PresetEntry, BeforeValidator(preset_entry)]
Never = Annotated[NeverEntry, BeforeValidator(promise_entry)]
Always = Annotated[AlwaysEntry, BeforeValidator(promise_entry)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class NetworkSettings(_Section):
    """The agent network."""

    subnet: Annotated[IPv4Network, BeforeValidator(_subnet)] | None = Field(
        default=None,
        description="The agent network's subnet, /8 to /25. By default, a free /23 is chosen once and kept.",
    )


class ImageSettings(_Section):
    """The images of the siblings."""

    envoy: Image = Field(
        default="bundled",
        description="`bundled`, or a registry reference pinned by digest (`name:tag@sha256:…`).",
    )
    coredns: Image = Field(default="bundled", description="The same for the resolver.")


class OtelSettings(_Section):
    """Telemetry: what the siblings tell an OpenTelemetry collector, over mutual TLS."""

    endpoint: Endpoint | None = Field(
        default=None,
        description="The collector's OTLP/gRPC receiver, `HOST:PORT`. By default, nothing is sent. Setting it for "
        "the first time, or removing it, replaces both siblings.",
    )
    server_name: Host | None = Field(
        default=None,
        description="The name in the collector's certificate, if it is not the endpoint's host.",
    )
    certs_dir: Folder | None = Field(
        default=None,
        description="A folder with certificates of your own, relative to this file: `ca.crt`, and `envoy.crt`, "
        "`envoy.key`, `coredns.crt` and `coredns.key`, or `ca.key` to sign them with. By default, an authority of "
        "this project's own is made.",
    )
    sample: Share = Field(
        default=1.0,
        description="The share of allowed connections, requests and queries that is sent, 0 to 1. What is refused "
        "is always sent.",
    )
    infra_port: Port = Field(
        default=4319,
        description="The port at which Envoy passes on what CoreDNS sends. A change replaces both siblings.",
    )


class InspectionSettings(_Section):
    """TLS that is looked into, for rules with `inspect`, `path_rules` or `git`."""

    ca_file: SettingsFile | None = Field(
        default=None,
        description="A file with further authorities (PEM) that hosts may prove their names by, relative to this "
        "file. Public ones always count. A change replaces Envoy.",
    )


class LimitSettings(_Section):
    """What one agent, identified by its address, can use of the siblings."""

    connections: Limit = Field(
        default=1024, description="Connections and UDP sessions of one agent to Envoy at the same time."
    )
    connections_per_second: Limit = Field(
        default=500,
        description="New connections and UDP sessions of one agent per second, to each sibling.",
    )
    datagrams_per_second: Limit = Field(
        default=10_000, description="UDP datagrams of one agent to Envoy per second, or a tenth of them at once."
    )
    queries_per_second: Limit = Field(default=1000, description="DNS queries of one agent per second.")
    resolver_connections: Limit = Field(
        default=32, description="Connections of one agent to CoreDNS at the same time, for DNS over TCP."
    )
    idle: Idle = Field(
        default=3600.0,
        description="How long an open connection, request or tunnel may send nothing in either direction, "
        "10 seconds to one day. A change ends all open connections, after 5 s.",
    )


class EnvoyResources(_Section):
    """What Envoy may use of the engine's machine. Every change replaces it."""

    processors: Processors | None = Field(
        default=None,
        description="Threads that forward, each of which can use one processor. "
        "By default as many as the engine's machine has, at most 8.",
    )
    memory: Memory | None = Field(
        default=None,
        description="The container's memory limit, as `2GiB`, `512MiB` or bytes. By default `2GiB`; `1GiB` on a "
        "machine with less than 3 GiB, and `512MiB` on one with less than 1.5 GiB.",
    )
    connections: Connections | None = Field(
        default=None,
        description="Connections of all agents together. By default as many as the memory has room for.",
    )


class CorednsResources(_Section):
    """The same for the resolver."""

    processors: Processors | None = Field(
        default=None,
        description="Processors that answer queries. By default as many as the engine's machine has, at most 8.",
    )
    memory: Memory | None = Field(
        default=None,
        description="The container's memory limit. By default `512MiB`; `256MiB` and `128MiB` on such machines.",
    )
    connections: Connections | None = Field(
        default=None,
        description="Connections of all agents together, for DNS over TCP. By default as many as half of the "
        "memory has room for.",
    )


class ResourceSettings(_Section):
    """What the siblings may use of the engine's machine."""

    envoy: EnvoyResources = EnvoyResources()
    coredns: CorednsResources = CorednsResources()


class Settings(_Section):
    """Everything that can be set."""

    rules: tuple[RuleEntry, ...] = Field(
        description="The allowed destinations. This setting is required; `[]` denies everything."
    )
    include: tuple[StrictStr, ...] = Field(
        default=(),
        description="Files with further rules, relative to this file. It has no environment variable.",
    )
    presets: Annotated[tuple[Chosen, ...], AfterValidator(named_once)] = Field(
        default=(),
        description="Presets whose rules are added, as `[pip, npm]`; an entry can also be "
        "`{preset: github, without: [api.github.com]}`. `clawker-fw rules presets` shows them.",
    )
    never: tuple[Never, ...] = Field(
        default=(),
        max_length=MOST_PROMISES,
        description="What no rule may allow, whoever writes it: names (`.corp.example`), or `{dst, proto, port}`. "
        "Rules that allow any of it are refused as a whole.",
    )
    always: tuple[Always, ...] = Field(
        default=(),
        max_length=MOST_PROMISES,
        description="What the rules must allow at all times: names, or `{dst, proto, port}`. "
        "Rules that do not are refused as a whole.",
    )
    project: Project | None = Field(
        default=None,
        description="The project of the stack, a part of every name. The default is `clawker`.",
    )
    network: NetworkSettings = NetworkSettings()
    images: ImageSettings = ImageSettings()
    otel: OtelSettings = OtelSettings()
    inspection: InspectionSettings = InspectionSettings()
    limits: LimitSettings = LimitSettings()
    resources: ResourceSettings = ResourceSettings()
    drain_timeout: Duration = Field(
        default=30.0,
        description="How long open connections may continue after Envoy has been replaced, e.g. `30s`.",
    )


def setting_keys(section: type[BaseModel] = Settings, prefix: str = "") -> Iterator[str]:
    """Yield the key of every setting, with dots between its parts."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from setting_keys(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
