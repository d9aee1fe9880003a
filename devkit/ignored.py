"""Fields of a container that are not compared, each with the reason.

Tests check that `clawker_fw/engine/shapes.py` reads every other field of `Config` and `HostConfig`, and that a
daemon.json with every option that containers inherit changes only these.
"""

from collections.abc import Mapping

CONFIG: Mapping[str, str] = {
    "ArgsEscaped": "only for Windows",
    "AttachStderr": "decides what the client that created the container sees, not what the container does",
    "AttachStdin": "as `AttachStderr`",
    "AttachStdout": "as `AttachStderr`",
    "ExposedPorts": "publishes nothing: `PortBindings` and `PublishAllPorts` do, and are compared",
    "NetworkDisabled": "the networks are compared as they are",
    "OnBuild": "only for builds",
    "Shell": "only for builds, and for health checks in a shell, which ours is not",
    "Volumes": "what is mounted is compared",
}

HOST_CONFIG: Mapping[str, str] = {
    "Binds": "what is mounted is compared",
    "Capabilities": "no supported engine uses it",
    "ConsoleSize": "only for Windows, and for the terminal of the client that created the container",
    "ContainerIDFile": "a file of the client that created the container",
    **dict.fromkeys(("CpuCount", "CpuPercent", "IOMaximumBandwidth", "IOMaximumIOps"), "only for Windows"),
    "Isolation": "only for Windows",
}

IN_PART: Mapping[str, str] = {
    "LogConfig": "the driver, `max-size` and `max-file` are set and compared. An engine adds the other `log-opts` "
    "of its daemon.json, and takes no `mode: blocking` beside a `max-buffer-size` there. So the mode is the "
    "engine's, and `non-blocking` is warned of, because it loses lines",
    "MacAddress": "agents are judged by it. A sibling is given the one that follows from its address; neighbours "
    "learn whatever there is, and differences of the interface are seen from inside",
    "Mounts": "that our volume was requested, with our labels, says whose a container is. What is mounted is "
    "compared",
    "Runtime": "the engine's default is asked for, by its name",
    "Ulimits": "those in `stack/container.py` are set and compared. An engine adds its other `default-ulimits`, "
    "which limit what no program of ours uses",
}
"""Fields that are read, and not compared as a whole."""
