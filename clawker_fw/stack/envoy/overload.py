"""What Envoy does when it has too much: first what costs nobody anything, at last the newest is refused.

It goes by the heap that is really used, and is the last line of defence, behind the bounds for each connection.
Source: Envoy's "Configuring Envoy as an edge proxy" and "Overload manager".
"""

from clawker_fw.stack.envoy.bounds import Bounds
from clawker_fw.stack.envoy.messages import Json, extension

_HEAP_MONITOR = "envoy.resource_monitors.fixed_heap"


def overload_manager(bounds: Bounds) -> Json:
    """Return the bootstrap's overload manager. All workers together may use what is in `bounds`."""
    return {
        "refresh_interval": "0.1s",
        "buffer_factory_config": {"minimum_account_to_track_power_of_two": 16},
        "resource_monitors": [
            extension(
                _HEAP_MONITOR,
                "resource_monitors.fixed_heap.v3.FixedHeapConfig",
                max_heap_size_bytes=bounds.heap,
            ),
            extension(
                "envoy.resource_monitors.global_downstream_max_connections",
                "resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                max_active_downstream_connections=bounds.connections,
            ),
        ],
        "actions": [
            _action("shrink_heap", _HEAP_MONITOR, {"threshold": {"value": 0.8}}),
            _action("disable_http_keepalive", _HEAP_MONITOR, {"threshold": {"value": 0.85}}),
            _action(
                "reset_high_memory_stream",
                _HEAP_MONITOR,
                {"scaled": {"scaling_threshold": 0.85, "saturation_threshold": 0.95}},
            ),
            _action("stop_accepting_requests", _HEAP_MONITOR, {"threshold": {"value": 0.9}}),
            _action("reject_incoming_connections", _HEAP_MONITOR, {"threshold": {"value": 0.95}}),
        ],
    }


def _action(name: str, monitor: str, trigger: Json) -> Json:
    return {"name": f"envoy.overload_actions.{name}", "triggers": [{"name": monitor, **trigger}]}
