"""Resource limits of our containers (getrlimit(2)): those that decide something.

For any other, a container has that of `default-ulimits` in the engine's daemon.json, or that of the engine.
"""

from collections.abc import Mapping

UNLIMITED = "-1"

_OF_A_USER = "4096"
"""The kernel counts these of a user id on the whole machine, in whichever container, so what is enough for one
stack is not enough for many. Not unlimited: an engine without CAP_SYS_RESOURCE can't exceed its own limit, which
is finite."""

_ALWAYS = {
    "as": UNLIMITED,  # Envoy and Go reserve far more addresses than they use
    "core": "0",  # a dump would have secrets in it
    "cpu": UNLIMITED,  # seconds, after which the kernel ends a process
    "data": UNLIMITED,
    "fsize": UNLIMITED,
    "nproc": _OF_A_USER,  # what a sibling may start is bounded by its control group (`pids`)
    "sigpending": _OF_A_USER,  # Go's runtime changes the user of all threads by real-time signals
    "stack": str(8 << 20),  # what kernels give; glibc gives as much to each thread
}

LIMITED = frozenset({*_ALWAYS, "nofile"})
"""The names of the limits that are set and compared."""


def ulimits(open_files: int | None = None) -> Mapping[str, str]:
    """Return the limits of a container by name, as `docker run --ulimit` writes them."""
    return {**_ALWAYS, **({} if open_files is None else {"nofile": str(open_files)})}
