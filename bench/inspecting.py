"""TLS that is looked into: handshakes, applied rules, memory, and other hosts beside it; real Envoy on loopback.

No engine and no stack take part, so the figures are those of Envoy and of the signer alone.
"""

import secrets
import socket
import ssl
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from bench.figures import Bound, Result, Series, interleaved, ratio
from bench.quiet import quiet
from bench.stage import Stage
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.rules.schema import RuleEntry
from devkit.dns import NameServer
from devkit.envoy import HERE, program
from devkit.inspecting import PORT, Host, Inspecting, Signing, own_address
from devkit.signer import Signer
from devkit.stacks import installed_release
from devkit.waiting import until

RUNS, HANDSHAKES, SIZES = 5, 200, (10, 1_000, 10_000)
IN_USE, IN_TURN = 1_000, 30_000
FIRST_WITHIN, APPLIED_WITHIN, MEMORY_WITHIN, BACK_WITHIN = 3.0, 1.5, 350.0, 0.5
"""Milliseconds and seconds more than without, MiB, and seconds."""
_MEBIBYTE = 1 << 20
_PLAIN, _ONE = "plain.w.test", "one.w.test"
_PATHS = [{"path": "/v1"}, {"path": "/v1/private", "action": "deny"}, {"path": "/v2", "methods": ["GET"]}]


def measure(stage: Stage) -> Result:
    """Measure one thing after the other, each with and without inspection in turn."""
    runs = stage.runs or RUNS
    with tempfile.TemporaryDirectory() as name, ExitStack() as held:
        folder = Path(name)
        host = Host(folder / "host", own_address(), "*.w.test")
        held.callback(host.close)
        names = held.enter_context(NameServer((_PLAIN,), own_address()))
        signer = Signer(folder, kept=False)
        signer.give((), ["w.test"], ["w.test"])
        signer.start()
        held.callback(signer.end)
        own = signer.signed(folder, _ONE)
        envoy = program(installed_release())
        static, on_demand = folder / "static", folder / "on-demand"
        for each in (static, on_demand):
            each.mkdir()
        with (
            ended(Inspecting(static, envoy, names.port, own, host.certificate)) as beside,
            ended(Signing(on_demand, envoy, names.port, signer, host.certificate)) as proxy,
        ):
            parts = [
                _handshakes(runs, beside, proxy),
                _restarted(runs, proxy, signer),
                _other_hosts(runs, proxy),
                _applied(runs, proxy),
                _memory(proxy),
            ]
    return Result(
        series=[series for part in parts for series in part.series],
        bounds=[bound for part in parts for bound in part.bounds],
    )


@contextmanager
def ended(proxy: Inspecting) -> Iterator[Inspecting]:
    """End a proxy afterwards."""
    try:
        yield proxy
    finally:
        proxy.process.terminate()
        proxy.process.wait()


def _rules(*entries: Mapping[str, object]) -> RuleSet:
    return RuleSet.of(RuleEntry.model_validate({"port": PORT, **each}).rule() for each in entries)


def _many(count: int, **words: object) -> RuleSet:
    """Return rules for so many hosts, the first of which is looked into in any case, and for another one."""
    first, *others = ({"dst": f"n{number}.x.w.test", **words} for number in range(count))
    return _rules({"dst": _PLAIN}, {"inspect": True, **first}, *others)


def _served(proxy: Inspecting, rules: RuleSet) -> float:
    """Return how many seconds pass from the last file in place until everything is live."""
    proxy.serve(rules)
    began = time.monotonic()
    until(proxy.serves, 60)
    return time.monotonic() - began


def _handshake(proxy: Inspecting, names: Iterator[str]) -> float:
    """Return the mean of some handshakes, in milliseconds."""
    began = time.monotonic()
    for _ in range(HANDSHAKES):
        with proxy.connected(next(names)):
            pass
    return (time.monotonic() - began) / HANDSHAKES * 1000


def _always(name: str) -> Iterator[str]:
    while True:
        yield name


def _fresh() -> Iterator[str]:
    while True:
        yield f"{secrets.token_hex(8)}.w.test"


def _handshakes(runs: int, beside: Inspecting, proxy: Inspecting) -> Result:
    subtree = _rules({"dst": ".w.test", "path_rules": _PATHS})
    for each in (beside, proxy):
        _served(each, subtree)
    ways = {
        "a handshake, with a certificate of its own": partial(_handshake, beside, _always(_ONE)),
        "a later handshake of a name": partial(_handshake, proxy, _always(_ONE)),
        "the first handshake of a name": partial(_handshake, proxy, _fresh()),
    }
    found = interleaved(runs, ways)
    series = [Series(name, each.values, "ms") for name, each in found.items()]
    own, later, first = series
    return Result(
        series=series,
        bounds=[
            ratio("later handshakes / with a certificate of its own", 1.2, later, own),
            Bound("the first handshake of a name, more", FIRST_WITHIN, first.median - own.median, "ms"),
        ],
    )


def _restarted(runs: int, proxy: Inspecting, signer: Signer) -> Result:
    """Measure how long a new name has no certificate after the signer was killed and is started again."""
    names, back = _fresh(), []
    for _ in range(runs):
        quiet()
        signer.kill()
        signer.start()
        began = time.monotonic()
        with proxy.connected(next(names)):
            back.append(time.monotonic() - began)
    series = Series("a new name, from the signer's start", tuple(back))
    return Result(series=[series], bounds=[Bound("a restarted signer is back", BACK_WITHIN, max(back), "s")])


def _other_hosts(runs: int, proxy: Inspecting) -> Result:
    """Measure a host that no rule inspects, in turn with and without others that rules do inspect."""

    def connections(rules: RuleSet) -> float:
        _served(proxy, rules)
        _handshake(proxy, _always(_PLAIN))
        return _handshake(proxy, _always(_PLAIN))

    plain, inspected = _many(IN_USE), _many(IN_USE, path_rules=_PATHS)
    ways = {
        "a connection to another host, beside 1,000 plain rules": partial(connections, plain),
        "the same, beside 1,000 that look into TLS": partial(connections, inspected),
    }
    series = [Series(name, each.values, "ms") for name, each in interleaved(runs, ways).items()]
    return Result(series=series, bounds=[ratio("hosts that no rule inspects", 1.2, series[1], series[0])])


def _applied(runs: int, proxy: Inspecting) -> Result:
    result = Result()
    for size in SIZES:
        ways = {
            f"{size:,} plain rules, applied": partial(_served, proxy, _many(size)),
            f"{size:,} that look into TLS": partial(_served, proxy, _many(size, path_rules=_PATHS)),
        }
        plain, inspected = interleaved(runs, ways).values()
        result.series += [plain, inspected]
        more = inspected.median - plain.median
        result.bounds.append(Bound(f"{size:,} inspected names are applied, more", APPLIED_WITHIN, more, "s"))
    return result


def _memory(proxy: Inspecting) -> Result:
    """Measure a proxy that has applied all the others before, so it is no better than in use."""
    _served(proxy, _many(IN_USE, path_rules=_PATHS))
    for number in range(IN_USE):
        with proxy.connected(f"n{number}.x.w.test"):
            pass
    in_use = _resident(proxy)
    _served(proxy, _rules({"dst": ".w.test", "path_rules": _PATHS}))
    names, sizes = _fresh(), []
    for number in range(IN_TURN):
        _connect_once(proxy, next(names))
        if number in {IN_TURN // 3, IN_TURN - 1}:
            sizes.append(_resident(proxy))
    early, late = (
        Series(f"Envoy, {when} names in turn", (size,), "MiB")
        for when, size in zip(("10,000", "30,000"), sizes, strict=True)
    )
    used = Series("Envoy, 1,000 names in use", (in_use,), "MiB")
    return Result(
        series=[used, early, late],
        bounds=[
            Bound("Envoy's memory with 1,000 names in use", MEMORY_WITHIN, in_use, "MiB"),
            ratio("Envoy's memory after 30,000 names / after 10,000", 1.1, late, early),
        ],
    )


def _connect_once(proxy: Inspecting, name: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((str(HERE), proxy.ports[PORT]), timeout=10) as plain:
        context.wrap_socket(plain, server_hostname=name).close()


def _resident(proxy: Inspecting) -> float:
    text = Path(f"/proc/{proxy.process.pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("VmRSS:")) / _MEBIBYTE
