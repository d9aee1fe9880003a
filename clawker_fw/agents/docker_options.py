"""The options of `docker run` that `agent run` passes on, and those that it refuses.

Only options that are known to leave an agent confined are passed on. Whatever follows the image is the agent's own
command, so each option's form must be known: one that takes a value takes the next word.
"""

import csv
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clawker_fw.agents.exposure import EngineWays, engine_ways, is_of_network, ways
from clawker_fw.engine.inspection import LOCAL_LOGS, LOCAL_SYSLOG
from clawker_fw.errors import RefusedError, UsageError
from clawker_fw.stack.labels import PREFIX

_SHORT = {
    "a": "attach",
    "c": "cpu-shares",
    "d": "detach",
    "e": "env",
    "h": "hostname",
    "i": "interactive",
    "l": "label",
    "m": "memory",
    "p": "publish",
    "P": "publish-all",
    "q": "quiet",
    "t": "tty",
    "u": "user",
    "v": "volume",
    "w": "workdir",
}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SWITCHES = _words(
    """
    detach disable-content-trust help init interactive no-healthcheck oom-kill-disable privileged
    publish-all quiet read-only rm sig-proxy tty use-api-socket
    """
)

_HARMLESS = _words(
    """
    add-host annotation attach blkio-weight blkio-weight-device cap-drop cgroup-parent cidfile cpu-count
    cpu-percent cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus cpuset-cpus cpuset-mems
    detach-keys device-read-bps device-read-iops device-write-bps device-write-iops dns-opt dns-option
    domainname entrypoint env env-file expose gpus group-add health-cmd health-interval health-retries
    health-start-interval health-start-period health-timeout io-maxbandwidth io-maxiops isolation
    kernel-memory link memory memory-reservation memory-swap
    memory-swappiness oom-score-adj pids-limit platform publish pull restart
    runtime shm-size stop-signal stop-timeout storage-opt tmpfs ulimit user workdir
    """
)
"""Options with a value that leave an agent confined, whatever the value is."""

_CHOSEN = "the firewall chooses it"
_ADDRESS = "an agent's address comes from the engine; one that is chosen may be a sibling's"
_DEVICE = "a device can be a way to the host"

_ALWAYS_REFUSED = {
    "network": _CHOSEN,
    "net": _CHOSEN,
    "dns": _CHOSEN,
    "dns-search": _CHOSEN,
    "ip": _ADDRESS,
    "ip6": _ADDRESS,
    "link-local-ip": _ADDRESS,
    "mac-address": _ADDRESS,
    "device": _DEVICE,
    "device-cgroup-rule": _DEVICE,
    "volumes-from": "the other container may have the engine's socket, or be a sibling",
}

_PERMITTED_CAPABILITIES = _words(
    """
    AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID IPC_LOCK KILL MKNOD NET_BIND_SERVICE SETFCAP SETGID SETPCAP
    SETUID SYS_CHROOT SYS_NICE SYS_PTRACE
    """
)
"""What docker grants by default, without raw sockets, and what debuggers and databases need. With all others an
agent can change its own network or reach the host."""

_PUBLISHING = _words("publish publish-all")

_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})  # Go's strconv.ParseBool


@dataclass(frozen=True, slots=True)
class _Given:
    """One option of a command line, under its long name. A switch without a value is `true`."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Guarded:
    """What an agent must not get: ways to the engine, writable ones to the settings, names that rules allow."""

    engine: EngineWays
    settings: frozenset[Path]
    resolves: Callable[[str], bool] = lambda _: False

    @classmethod
    def of(
        cls, endpoint: str, settings: Iterable[Path], resolves: Callable[[str], bool] = lambda _: False
    ) -> "Guarded":
        """Guard the engine at an address, and, if it is on this machine, the settings files.

        `resolves` is whether the rules allow a name.
        """
        local = endpoint.startswith("unix://")
        return cls(
            engine_ways(endpoint),
            frozenset(way for each in settings for way in ways(each)) if local else frozenset(),
            resolves,
        )


def require_confined(words: Sequence[str], guarded: Guarded) -> None:
    """Require that the words after `docker run` open no way around the firewall, and publish no port.

    Raises:
        RefusedError: when an option does.
        UsageError: when an option is not known.
    """
    for each in _options(words):
        if each.name in _PUBLISHING and each.value not in _FALSE:
            raise RefusedError(
                "agent-unreachable",
                f"An agent can't be started with --{each.name}: its network leads nowhere, so nobody would reach "
                "it at a port that docker has published.",
                hint="Leave it out.",
            )
        if reason := _objection(each, guarded):
            raise RefusedError(
                "agent-unconfined",
                f"An agent can't be started with --{each.name}: {reason}.",
                hint="Leave it out. A container that needs it is no agent: start it with docker itself.",
            )


def _options(words: Sequence[str]) -> Iterator[_Given]:
    """Yield the options before the image, read as docker's own parser (pflag) reads them."""
    left = list(words)
    while left and left[0].startswith("-") and left[0] not in {"-", "--"}:
        word = left.pop(0)
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            yield _Given(_known(name), _value_of(name, value if equals else None, left))
        else:
            yield from _shorthands(word[1:], left)


def _shorthands(letters: str, left: list[str]) -> Iterator[_Given]:
    """Yield the options of a word like `-it` or `-eNAME=value`."""
    while letters:
        name, letters = _known(_SHORT.get(letters[0], letters[0])), letters[1:]
        if letters.startswith("=") and len(letters) > 1:
            yield _Given(name, letters[1:])
            return
        if name in _SWITCHES:
            yield _Given(name, "true")
            continue
        yield _Given(name, _value_of(name, letters or None, left))
        return


def _value_of(name: str, value: str | None, left: list[str]) -> str:
    """Return an option's value, which may be the next word."""
    if value is not None:
        return value
    if name in _SWITCHES:
        return "true"
    return left.pop(0) if left else ""


def _known(name: str) -> str:
    """Return an option's name.

    Raises:
        UsageError: when it is not known: whether it takes a value, and what it does, is then unknown as well.
    """
    if name in _SWITCHES or name in _HARMLESS or name in _ALWAYS_REFUSED or name in _DECIDED_BY_VALUE:
        return name
    raise UsageError(
        "agent-option",
        f"`agent run` does not know the option {'-' if len(name) == 1 else '--'}{name} of `docker run`.",
        hint="Options of clawker-fw go before `agent`. If docker knows the option, and it opens no way around the "
        "firewall, use it with `docker run $(clawker-fw agent flags)`.",
    )


def _objection(given: _Given, guarded: Guarded) -> str:
    """Return why an option is refused, or an empty string."""
    if given.name in _ALWAYS_REFUSED:
        return _ALWAYS_REFUSED[given.name]
    if given.name in _DECIDED_BY_VALUE:
        return _DECIDED_BY_VALUE[given.name](given.value, guarded)
    return ""


def _switch(value: str, _: Guarded) -> str:
    return "" if value in _FALSE else "it removes the confinement"


def _capability(value: str, _: Guarded) -> str:
    permitted = value.upper().removeprefix("CAP_") in _PERMITTED_CAPABILITIES
    return "" if permitted else f"with {value} it could get around the firewall"


def _namespace(value: str, _: Guarded) -> str:
    shared = value == "host" or value.startswith("container:")
    return f"{value} is a namespace of somebody else" if shared else ""


def _sysctl(value: str, _: Guarded) -> str:
    return "it changes the agent's network" if value.strip().startswith("net") else ""


def _security(value: str, _: Guarded) -> str:
    if value.startswith("systempaths"):
        return "it opens the host's kernel settings"
    unfiltered = re.fullmatch("seccomp[=:]unconfined", value)
    return "it could open sockets that no network confines (AF_VSOCK)" if unfiltered else ""


def _name(value: str, guarded: Guarded) -> str:
    """Return why an agent may not have a name. The engine tells all who are on its network who has it."""
    taken = guarded.resolves(value)
    return f"a rule allows {value}, and other agents would reach this one in its place" if taken else ""


def _log_driver(value: str, _: Guarded) -> str:
    return "" if value in {*LOCAL_LOGS, "syslog"} else f"what the agent prints would be sent by {value}"


def _log_option(value: str, _: Guarded) -> str:
    address = value.removeprefix("syslog-address=")
    sent = address != value and address.partition("://")[0] not in LOCAL_SYSLOG
    return f"what the agent prints would be sent to {address}" if sent else ""


def _volume_driver(value: str, _: Guarded) -> str:
    return "" if value in {"", "local"} else f"what the agent writes would go to the driver {value}"


def _label(value: str, _: Guarded) -> str:
    return f"labels that begin with {PREFIX} are for what clawker-fw makes itself" if _is_ours(value) else ""


def _label_file(value: str, guarded: Guarded) -> str:
    """Return why a file with labels is refused. One that can't be read, docker can't read either."""
    with suppress(OSError):
        lines = Path(value).read_text(errors="replace").splitlines()
        return next(filter(None, (_label(line, guarded) for line in lines)), "")
    return ""


def _is_ours(label: str) -> bool:
    return label.strip().startswith(PREFIX)


def _volume(value: str, guarded: Guarded) -> str:
    source, colon, rest = value.partition(":")
    options = rest.partition(":")[2].split(",")
    return _mounted(source, guarded, writable="ro" not in options) if colon else ""


def _mount(value: str, guarded: Guarded) -> str:
    pairs = [field.partition("=") for field in next(csv.reader([value]), [])]
    fields = {key.strip().lower(): given for key, _, given in pairs}
    writable = all(fields.get(name, "false") in _FALSE for name in ("readonly", "ro"))
    sources = [fields[name] for name in ("source", "src") if name in fields]
    options = [given for key, _, given in pairs if key.strip().lower() == "volume-opt"]
    sources += [each.removeprefix("device=") for each in options]
    kinds = [each.removeprefix("type=") for each in options if each.startswith("type=")]
    objections = (
        *(_mounted(source, guarded, writable=writable) for source in sources),
        *(f"what the agent writes would be sent over {kind}" for kind in kinds if is_of_network(kind)),
        _volume_driver(fields.get("volume-driver", ""), guarded),
    )
    return next(filter(None, objections), "")


def _mounted(source: str, guarded: Guarded, *, writable: bool) -> str:
    """Return why a folder or file of the host may not be mounted, or an empty string."""
    if not source.startswith(("/", ".")):
        return ""  # a volume's name
    # `normpath` leaves two slashes at the beginning as they are
    lexical = Path("/", os.path.normpath(Path.cwd() / source).lstrip("/"))
    spellings = {lexical, Path(os.path.realpath(source))}
    if any(guarded.engine.named_by(str(each)) for each in spellings):
        return f"{source} leads to the engine itself"
    if writable and spellings & guarded.settings:
        return (
            f"the agent could write the firewall's settings in {source}; add `ro`, or move them and use --config"
        )
    return ""


_DECIDED_BY_VALUE: Mapping[str, Callable[[str, Guarded], str]] = {
    "privileged": _switch,
    "use-api-socket": _switch,
    "cap-add": _capability,
    "pid": _namespace,
    "ipc": _namespace,
    "uts": _namespace,
    "userns": _namespace,
    "cgroupns": _namespace,
    "sysctl": _sysctl,
    "security-opt": _security,
    "name": _name,
    "hostname": _name,
    "net-alias": _name,
    "network-alias": _name,
    "log-driver": _log_driver,
    "log-opt": _log_option,
    "volume-driver": _volume_driver,
    "label": _label,
    "label-file": _label_file,
    "volume": _volume,
    "mount": _mount,
}
