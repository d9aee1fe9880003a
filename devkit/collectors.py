"""A real OpenTelemetry Collector, which writes records into a file. It is built once on a machine."""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from clawker_fw.certificates.credentials import Pair
from devkit.go_programs import go_program
from devkit.starting import wait_for

Attributes = dict[str, str | int | float]


@dataclass(frozen=True, slots=True)
class Record:
    """A log record that has arrived."""

    resource: Attributes
    event: str
    severity: int
    attributes: Attributes


class Collector:
    """A collector that can be stopped and started again. What has arrived stays."""

    def __init__(self, folder: Path, protocols: Mapping[str, Any], before: Sequence[str] = ()) -> None:
        """Start it with these protocols of OTLP. `before` are arguments for a program that runs it."""
        folder.mkdir(parents=True, exist_ok=True)
        self._written, self._log = folder / "records.jsonl", folder / "log"
        self._command = [*before, str(go_program("collector")), "--config", str(folder / "config.json")]
        config = {
            "receivers": {"otlp": {"protocols": protocols}},
            "exporters": {"file": {"path": str(self._written), "flush_interval": "50ms", "append": True}},
            "service": {
                "telemetry": {"metrics": {"level": "none"}},
                "pipelines": {
                    kind: {"receivers": ["otlp"], "exporters": ["file"]} for kind in ("logs", "metrics")
                },
            },
        }
        (folder / "config.json").write_text(json.dumps(config))
        self.start()

    def start(self) -> None:
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        wait_for(self.process, lambda: b"Everything is ready" in self._log.read_bytes(), self._log)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def records(self, service: str = "") -> list[Record]:
        """Return the log records that have arrived, or those of one service."""
        found = [
            Record(resource, each.get("eventName", ""), each.get("severityNumber", 0), _attributes(each))
            for resource, each in self._arrived("resourceLogs", "scopeLogs", "logRecords")
        ]
        return [each for each in found if not service or each.resource["service.name"] == service]

    def points(self, name: str) -> list[Attributes]:
        """Return the attributes of each value of a metric that has arrived, with those of its resource."""
        return [
            {**resource, **_attributes(point)}
            for resource, metric in self._arrived("resourceMetrics", "scopeMetrics", "metrics")
            if metric["name"] == name
            for point in (metric.get("sum") or metric["gauge"])["dataPoints"]
        ]

    def metrics(self) -> dict[str, Any]:
        """Return the newest value of each metric that has arrived, as it was sent, by name."""
        return {each["name"]: each for _, each in self._arrived("resourceMetrics", "scopeMetrics", "metrics")}

    def _arrived(self, groups: str, scopes: str, kind: str) -> Iterator[tuple[Attributes, dict[str, Any]]]:
        content = self._written.read_bytes() if self._written.exists() else b""
        for line in content[: content.rfind(b"\n") + 1].splitlines():  # the last line may be half written
            for group in json.loads(line).get(groups, ()):
                for scope in group[scopes]:
                    yield from ((_attributes(group["resource"]), each) for each in scope[kind])


def mutual_tls(folder: Path, endpoint: str, server: Pair, trusted: bytes) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("server.crt", server.certificate), ("server.key", server.key), ("ca.crt", trusted)):
        (folder / name).write_bytes(content)
    tls = {
        "cert_file": str(folder / "server.crt"),
        "key_file": str(folder / "server.key"),
        "client_ca_file": str(folder / "ca.crt"),
        "min_version": "1.3",
    }
    return {"grpc": {"endpoint": endpoint, "tls": tls}}


def _attributes(owner: dict[str, Any]) -> Attributes:
    return {each["key"]: _value(each["value"]) for each in owner.get("attributes", ())}


def _value(value: dict[str, Any]) -> str | int | float:
    """Return a value. JSON has integers as text (ProtoJSON)."""
    ((kind, content),) = value.items()
    return int(content) if kind == "intValue" else float(content) if kind == "doubleValue" else str(content)
