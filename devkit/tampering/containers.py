"""Tampering with a container: it is recreated with something else."""

from collections.abc import Callable

from clawker_fw.stack import labels
from devkit.engines import OTHER_RUNTIME
from devkit.hand import Body
from devkit.tampering.way import (
    COREDNS,
    ENVOY,
    SETTINGS,
    Recreation,
    Sign,
    Tampering,
    fields,
    host_fields,
    other_address,
    signs,
)

WITH_ANOTHER_RUNTIME = "with another runtime"
"""This kind needs an engine with a second runtime."""


_RECREATED, _NAMESPACE = "recreated", "recreated in another namespace"
"""Beside the latter, the host name can't be another one."""


def _recreated(
    sibling: str, what: str, change: Callable[[Body], None], *fields: str, beside: str = _RECREATED
) -> Tampering:
    return _with_signs(sibling, what, change, *_shape(sibling, *fields), beside=beside)


def _with_signs(
    sibling: str, what: str, change: Callable[[Body], None], *signs: Sign, beside: str = _RECREATED
) -> Tampering:
    return Tampering(f"{sibling} is recreated {what}", Recreation(sibling, change), signs, beside)


def _in_a_namespace(what: str, change: Callable[[Body], None], *fields: str) -> Tampering:
    return _recreated(COREDNS, what, change, *fields, beside=_NAMESPACE)


def _shape(sibling: str, *fields: str) -> tuple[Sign, ...]:
    """Return signs for fields of the shape, or of another layer, which is before a slash then."""
    return signs(sibling, "replace", *(field if "/" in field else f"shape/{field}" for field in fields))


def _recreated_with_files(what: str, change: Callable[[Body], None], field: str, says: str) -> Tampering:
    file = Sign(ENVOY, "live", "engine_files", "replace", says=says)
    return _with_signs(ENVOY, what, change, *_shape(ENVOY, field), file)


def _more(field: str, *values: str) -> Callable[[Body], None]:
    return lambda body: body.update({field: [*(body[field] or []), *values]})


def _more_host(field: str, *values: str) -> Callable[[Body], None]:
    return lambda body: body["HostConfig"].update({field: [*(body["HostConfig"][field] or []), *values]})


def _updated(sibling: str, what: str, field: str, **limits: int) -> Tampering:
    change = f"{sibling}'s {what} with `docker update`"
    return Tampering(change, lambda hand: hand.update(sibling, **limits), _shape(sibling, field), beside="updated")


def _other_entry(body: Body) -> None:
    body["Entrypoint"], body["Cmd"] = [*body["Entrypoint"], body["Cmd"][0]], body["Cmd"][1:]


def _published(body: Body) -> None:
    body["ExposedPorts"] = {"9/tcp": {}}
    body["HostConfig"]["PortBindings"] = {"9/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}


def _alias(body: Body) -> None:
    for endpoint in body["NetworkingConfig"]["EndpointsConfig"].values():
        endpoint["Aliases"] = ["example.com"]


def _label(label: str, value: str | None) -> Callable[[Body], None]:
    def change(body: Body) -> None:
        kept = {key: text for key, text in body["Labels"].items() if key != label}
        body["Labels"] = kept | ({label: value} if value is not None else {})

    return change


def _limited(name: str, limit: int) -> Callable[[Body], None]:
    def change(body: Body) -> None:
        others = [each for each in body["HostConfig"]["Ulimits"] if each["Name"] != name]
        body["HostConfig"]["Ulimits"] = [*others, {"Name": name, "Soft": limit, "Hard": limit}]

    return change


_SYSCTL = "net.ipv4.ip_unprivileged_port_start"
_OTHER_PROCESSES = "live/processes"
_DEVICE = {"PathOnHost": "/dev/zero", "PathInContainer": "/dev/extra", "CgroupPermissions": "r"}

CONTAINERS = (
    _recreated(ENVOY, "with another command", _more("Cmd", "--restart-epoch", "0"), "command"),
    _recreated(COREDNS, "with another entry point", _other_entry, "command", "entrypoint"),
    _recreated(COREDNS, "with a further variable", _more("Env", "GODEBUG=netdns=go"), "environment"),
    _recreated(COREDNS, "as another user", fields(User="0"), "user"),
    _recreated(
        ENVOY, "with a mounted folder of the host", host_fields(Binds=["/etc/hostname:/etc/extra:ro"]), "mounts"
    ),
    _recreated(COREDNS, "with another tmpfs", host_fields(Tmpfs={"/tmp": "rw"}), "tmpfs"),  # noqa: S108 - inside the container
    _recreated(COREDNS, "with a writable root file system", host_fields(ReadonlyRootfs=False), "read_only"),
    Tampering(
        "coredns is recreated with all privileges, and not started",
        lambda hand: hand.recreate(COREDNS, host_fields(Privileged=True), start=False),
        (Sign(COREDNS, "state", "status", "start"), *_shape(COREDNS, "privileged", "security_options")),
    ),
    _recreated(ENVOY, "with a further capability", _more_host("CapAdd", "SYS_TIME"), "capabilities_added"),
    _recreated(COREDNS, "without dropping capabilities", host_fields(CapDrop=None), "capabilities_dropped"),
    _recreated(COREDNS, "without no-new-privileges", host_fields(SecurityOpt=None), "security_options"),
    _recreated(ENVOY, "without seccomp", _more_host("SecurityOpt", "seccomp=unconfined"), "security_options"),
    _recreated(COREDNS, "without masks over /proc", host_fields(MaskedPaths=[], ReadonlyPaths=[]), "system_paths"),
    _in_a_namespace("with other sysctls", host_fields(Sysctls={_SYSCTL: "0"}), "sysctls", "live/network"),
    _recreated(COREDNS, "with a device", host_fields(Devices=[_DEVICE]), "devices"),
    _recreated(COREDNS, "with a device rule", host_fields(DeviceCgroupRules=["c 1:5 r"]), "device_rules"),
    _recreated(ENVOY, "with another DNS server", host_fields(Dns=["192.0.2.1"]), "dns"),
    _recreated_with_files(
        "with a search domain", host_fields(DnsSearch=["example.com"]), "dns_search", "search example.com"
    ),
    _recreated_with_files("with options for DNS", host_fields(DnsOptions=["ndots:9"]), "dns_options", "ndots:9"),
    _recreated_with_files(
        "with a name in its hosts file", host_fields(ExtraHosts=["a.test:192.0.2.1"]), "extra_hosts", "192.0.2.1"
    ),
    _recreated(COREDNS, "with a further group", host_fields(GroupAdd=["100"]), "groups"),
    _recreated(ENVOY, "with a published port", _published, "ports"),
    _recreated(ENVOY, "with all ports published", host_fields(PublishAllPorts=True), "publish_all"),
    _in_a_namespace("in the host's IPC namespace", host_fields(IpcMode="host"), "ipc_mode", "security_options"),
    _in_a_namespace("in the host's UTS namespace", host_fields(UTSMode="host"), "uts_mode", "live/engine_files"),
    _recreated(COREDNS, "in the host's control groups", host_fields(CgroupnsMode="host"), "cgroup_mode"),
    _in_a_namespace("below an init process of the engine", host_fields(Init=True), "init", _OTHER_PROCESSES),
    _recreated(COREDNS, "with another host name", fields(Hostname="resolver"), "hostname"),
    _recreated(COREDNS, "with a terminal", fields(Tty=True), "terminal"),
    _recreated(COREDNS, "to be stopped with another signal", fields(StopSignal="SIGKILL"), "stop_signal"),
    _recreated(COREDNS, "in another folder", fields(WorkingDir="/tmp"), "working_directory"),  # noqa: S108 - inside
    _recreated(COREDNS, "with a limit on processors", host_fields(NanoCpus=500_000_000), "processors"),
    _recreated(
        ENVOY, "with more memory", host_fields(Memory=4 << 30, MemorySwap=8 << 30), "memory", "memory_swap"
    ),
    _updated(ENVOY, "limit of swap is taken off", "memory_swap", memswap_limit=-1),
    _updated(COREDNS, "memory's reservation is changed", "memory_reservation", mem_reservation=64 << 20),
    _recreated(COREDNS, "with other shared memory", host_fields(ShmSize=1 << 20), "shared_memory"),
    _recreated(COREDNS, "as the first to be ended without memory", host_fields(OomScoreAdj=1000), "further"),
    _recreated(COREDNS, "with less weight than an agent", host_fields(CpuShares=2), "cpu_shares"),
    _recreated(COREDNS, "with another limit on processes", host_fields(PidsLimit=64), "pids"),
    _recreated(ENVOY, "with another limit on open files", _limited("nofile", 4096), "ulimits"),
    _recreated(COREDNS, "with the engine's limits", host_fields(Ulimits=[]), "ulimits"),
    _recreated(ENVOY, "with few processes of its user", _limited("nproc", 2048), "ulimits", beside=_NAMESPACE),
    _recreated(COREDNS, "without a restart policy", host_fields(RestartPolicy={"Name": "no"}), "restart"),
    _recreated(COREDNS, "without a health check", fields(Healthcheck={"Test": ["NONE"]}), "healthcheck"),
    _recreated(COREDNS, "with another log driver", host_fields(LogConfig={"Type": "none", "Config": {}}), "log"),
    _in_a_namespace(  # an engine that shares this namespace labels no processes
        "in the host's PID namespace",
        host_fields(PidMode="host"),
        "pid_mode",
        "security_options",
        _OTHER_PROCESSES,
    ),
    _recreated(COREDNS, WITH_ANOTHER_RUNTIME, host_fields(Runtime=OTHER_RUNTIME), "runtime"),
    _recreated(COREDNS, "with another name on its network", _alias, "aliases"),
    _in_a_namespace(
        "at another address", other_address, "state/networks.{project}-net", "live/network", "live/engine_files"
    ),
    _recreated(
        COREDNS,
        "without one of the three labels",
        _label(labels.STACK_BUILD_SHA, None),
        f"labels/{labels.STACK_BUILD_SHA}",
    ),
    _with_signs(
        ENVOY,
        "with another value in one of the three labels",
        _label(labels.OTEL_INFRA_PORT, "1"),
        Sign(ENVOY, "labels", labels.OTEL_INFRA_PORT, "replace", SETTINGS),
    ),
    Tampering(
        "coredns is recreated with an unreadable record of its creation",
        lambda hand: hand.recreate(COREDNS, _label(labels.APPLIED, '{"applied": []}')),
        (Sign(COREDNS, "labels", labels.APPLIED, "replace"),),
        beside="without a record",
    ),
)
