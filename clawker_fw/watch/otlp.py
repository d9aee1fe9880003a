"""A watcher's records and metrics, sent to an OpenTelemetry collector by OTLP over gRPC, with mutual TLS.

Only this module imports OpenTelemetry's library, an optional extra that takes a quarter of a second to import. It
sends from threads of its own, and keeps a bounded number of records: a collector that is down delays no decision.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import grpc  # type: ignore[import-untyped]
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.util.types import AnyValue

from clawker_fw.errors import FirewallError
from clawker_fw.watch.metrics import Metrics

LOG = logging.getLogger("clawker_fw")

SERVICE = "clawker-fw-watch"
SCOPE = "clawker-fw"
PREFIX = "clawker_fw."
"""What the names of a record's attributes begin with: the fields of the record in the log follow."""

_QUEUE, _BATCH = 2048, 512
_BATCH_MS, _METRICS_MS = 1000.0, 30_000.0
_CALL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class CollectorEndpoint:
    """A collector, the name that its certificate must have, and what is shown to it, as PEM."""

    endpoint: str
    server_name: str
    trust: bytes
    certificate: bytes
    key: bytes = field(repr=False)


Find = Callable[[], CollectorEndpoint]
"""Returns the current destination. Its certificate is renewed while a watcher runs.

Raises:
    FirewallError, OSError, ValueError: when there is none.
"""

Exporter = TypeVar("Exporter", OTLPLogExporter, OTLPMetricExporter)


class _CollectorConnection(Generic[Exporter]):
    """The exporter for the current destination. A new one replaces it when the destination changes."""

    def __init__(self, find: Find, kind: type[Exporter]) -> None:
        self._find = find
        self._kind: type[Exporter] = kind
        self._current: tuple[CollectorEndpoint, Exporter] | None = None
        self._lost = self._finished = False

    def export(self, send: Callable[[Exporter], bool]) -> bool:
        """Send something, and log when that begins to fail or succeeds again."""
        if self._finished:
            return False
        try:
            done = send(self._exporter())
        except (FirewallError, OSError, ValueError) as error:
            done = False
            LOG.debug("telemetry_error", extra={"words": str(error)})
        if done == self._lost:
            self._lost = not done
            if done:
                LOG.info("telemetry_sent_again", extra={"line": "the collector takes records again"})
            else:
                LOG.warning("telemetry_lost", extra={"line": "the collector takes no records: some are lost"})
        return done

    def _exporter(self) -> Exporter:
        wanted = self._find()
        if self._current and self._current[0] == wanted:
            return self._current[1]
        self.close()
        made: Exporter = self._kind(**_options(wanted))
        self._current = (wanted, made)
        return made

    def close(self) -> None:
        """End the connection. What is being sent is given up."""
        if self._current:
            self._current[1].shutdown(timeout_millis=0)
        self._current = None

    def finish(self) -> None:
        """Let the last batch take no time if the collector is away."""
        self._finished = self._lost
        if self._lost:
            self.close()


class _Logs(LogRecordExporter):
    def __init__(self, find: Find) -> None:
        self.connection = _CollectorConnection(find, OTLPLogExporter)

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        sent = self.connection.export(lambda to: to.export(batch) is LogRecordExportResult.SUCCESS)
        return LogRecordExportResult.SUCCESS if sent else LogRecordExportResult.FAILURE

    def force_flush(self, timeout_millis: int = 0) -> bool:
        del timeout_millis
        return True

    def shutdown(self) -> None:
        self.connection.close()


class _Metrics(MetricExporter):
    def __init__(self, find: Find) -> None:
        super().__init__()
        self.connection = _CollectorConnection(find, OTLPMetricExporter)

    def export(self, metrics_data: MetricsData, timeout_millis: float = 0, **kwargs: object) -> MetricExportResult:
        del timeout_millis, kwargs
        sent = self.connection.export(lambda to: to.export(metrics_data) is MetricExportResult.SUCCESS)
        return MetricExportResult.SUCCESS if sent else MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 0) -> bool:
        del timeout_millis
        return True

    def shutdown(self, timeout_millis: float = 0, **kwargs: object) -> None:
        del timeout_millis, kwargs
        self.connection.close()


def _options(to: CollectorEndpoint) -> dict[str, Any]:
    """Return the arguments of both exporters. The environment decides nothing."""
    return {
        "endpoint": to.endpoint,
        "insecure": False,
        "credentials": grpc.ssl_channel_credentials(to.trust, to.key, to.certificate),
        "headers": (("user-agent", SCOPE),),
        "timeout": _CALL_SECONDS,
        "channel_options": (("grpc.ssl_target_name_override", to.server_name), ("grpc.enable_http_proxy", 0)),
    }


class _RecordHandler(logging.Handler):
    def __init__(self, provider: LoggerProvider) -> None:
        super().__init__(logging.INFO)
        self._logger = provider.get_logger(SCOPE)

    def emit(self, record: logging.LogRecord) -> None:
        fields: Mapping[str, Any] | None = getattr(record, "fields", None)
        if fields is None:
            return
        self._logger.emit(
            timestamp=int(record.created * 1e9),
            severity_number=SeverityNumber(record.levelno // 10 * 4 + 1),  # five levels, four apart and not ten
            event_name=record.getMessage(),
            attributes=getattr(record, "attributes", None) or dict(_attributes(fields)),
        )


def _attributes(fields: Mapping[str, Any]) -> Iterator[tuple[str, AnyValue]]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from ((f"{PREFIX}{name}.{key}", each) for key, each in value.items() if each is not None)
        elif value is not None:
            yield f"{PREFIX}{name}", value


def _instruments(meter: Meter, metrics: Metrics) -> None:
    def reads(name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        return lambda _: [Observation(value, labels) for value, labels in metrics.values(name)]

    for name, meaning, counts in metrics.kinds():
        create = meter.create_observable_counter if counts else meter.create_observable_gauge
        create(name, [reads(name)], description=meaning)


@contextmanager
def sending(find: Find, resource: Mapping[str, str], metrics: Metrics) -> Iterator[None]:
    """Send every record and the metrics of this process until the context ends."""
    library = logging.getLogger("opentelemetry")
    library.propagate = False  # it would write lines of its own to standard error
    library.addHandler(logging.NullHandler())
    described = Resource({**resource, "service.name": SERVICE})
    logs_exporter, metrics_exporter = _Logs(find), _Metrics(find)
    logs = LoggerProvider(described, shutdown_on_exit=False)
    logs.add_log_record_processor(
        BatchLogRecordProcessor(
            logs_exporter,
            schedule_delay_millis=_BATCH_MS,
            max_export_batch_size=_BATCH,
            export_timeout_millis=_CALL_SECONDS * 1000,
            max_queue_size=_QUEUE,
        )
    )
    reader = PeriodicExportingMetricReader(metrics_exporter, _METRICS_MS, _CALL_SECONDS * 1000)
    meters = MeterProvider([reader], described, shutdown_on_exit=False)
    _instruments(meters.get_meter(SCOPE), metrics)
    handler = _RecordHandler(logs)
    LOG.addHandler(handler)
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        logs_exporter.connection.finish()
        metrics_exporter.connection.finish()
        with suppress(Exception):  # the collector may be away, and nothing depends on it
            meters.shutdown(_CALL_SECONDS * 1000)
        logs.shutdown()
