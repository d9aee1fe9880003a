"""fwctl of the in-memory engine: its verbs, as far as their effects can be seen through the engine."""

import hashlib
import json
import time
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from clawker_fw.engine import archive
from clawker_fw.errors import EngineError
from clawker_fw.fwctl import digest_of_secret
from clawker_fw.model.files import Files
from clawker_fw.model.probes import Probe
from clawker_fw.model.stacks import Sibling
from clawker_fw.model.trials import FoundAddress, Lookup, Trial, TrialStep
from clawker_fw.model.usage import Usage
from clawker_fw.stack import name_list
from clawker_fw.stack.container import ATTEMPTS, COMMITTED, GOOD, HOT
from clawker_fw.stack.files import public
from clawker_fw.stack.name_list import POLICY, envoy_address
from clawker_fw.stack.resources import SIBLING, Resource, declared, plain
from devkit.memory.container import MemoryContainer

CLAIMED = "state/claimed"


def run_verb(
    inside: MemoryContainer, arguments: Sequence[str], on_line: Callable[[Any], None], sent: bytes = b""
) -> None:
    """Run a verb that changes something, and pass each line of its output to `on_line`."""
    if arguments[0] not in inside.verbs:
        raise EngineError("helper-failed", f"fwctl {arguments[0]} failed: no such verb.")
    match arguments:
        case ["commit-in-place", size]:
            result = _commit(inside, _unpacked(sent[: int(size)]))
            if result["committed"]:
                on_line({"taken": True})
            on_line(result)
        case ["claim", _]:
            inside.files[CLAIMED] = public(b"")
            inside.addresses.add(service_address(inside))
        case ["release"]:
            inside.files.pop(CLAIMED, None)
            inside.addresses.discard(service_address(inside))
        case ["drain", _]:
            on_line({"connections": inside.connections})
            inside.connections = inside.lingering
            on_line({"connections": inside.lingering})
        case ["usage"] if inside.keeps_usage:
            if inside.usage is None:
                now = float(int(time.time()))
                inside.usage = Usage(inside.id, now, now)
            there = inside.usage
            uses = [asdict(each) for each in there.uses]
            told = {"id": there.identity, "since": there.since, "now": there.now, "lost": there.lost}
            on_line({**told, "uses": uses, "open": dict(there.open)})
        case ["secrets", size]:
            on_line(_secrets(inside, sent[: int(size)]))
        case _:
            raise EngineError("helper-failed", f"fwctl {arguments[0]} failed: no such verb.")


def _secrets(inside: MemoryContainer, sent: bytes) -> dict[str, Any]:
    """Do what `fwctl secrets` does: replace all secrets, or only tell of them."""
    said = json.loads(sent)
    key = b64decode(said["key"])
    if said["give"] is not None:
        now = datetime.now(UTC).isoformat()
        inside.secrets = {
            name: before if (before := inside.secrets.get(name, ("", "")))[0] == value else (value, now)
            for name, value in said["give"].items()
        } | {name: inside.secrets[name] for name in said["keep"] if name in inside.secrets}
        inside.secrets_at_rest = inside.secrets.keys() & {*said["rest"]}
    return {
        "secrets": {
            name: {
                "digest": digest_of_secret(key, name, value),
                "given": given,
                "rests": name in inside.secrets_at_rest,
            }
            for name, (value, given) in inside.secrets.items()
        },
        "unloaded": sorted(inside.secrets_unloaded),
    }


def probe(inside: MemoryContainer, *, envoy: bool = True) -> Probe:
    return Probe(
        build=inside.build,
        live={} if inside.silent else dict(inside.live),
        failed_checks=inside.failed_checks,
        addresses=tuple(sorted(inside.addresses)),
        claimed=CLAIMED in inside.files,
        others=inside.others,
        refused=inside.refused,
        records=inside.records,
        collector=inside.collector,
        network=inside.network_differences,
        agents_see={name: seen for name, seen in inside.agents_see.items() if envoy or name != Sibling.ENVOY},
        dropped=inside.dropped,
        program=inside.program,
        processes=inside.processes,
        secrets=len(inside.secrets),
        unhealthy=inside.unhealthy,
        error=inside.silent,
        verbs=inside.verbs,
    )


def probe_answer(probe: Probe, protocol: int) -> dict[str, Any]:
    answer = {"protocol": protocol, **asdict(probe), "verbs": sorted(probe.verbs or ())}
    collector = answer.pop("collector")
    if collector:
        collector["sha256"] = collector.pop("fingerprint")
    answer["telemetry"] = {**answer.pop("records"), "collector": collector}
    return answer


def trial_answer(trial: Trial) -> dict[str, Any]:
    steps = [asdict(step) for step in trial.steps]
    return {"steps": [{"step": step.pop("name"), **step} for step in steps]}


def lookup(inside: MemoryContainer, name: str) -> Lookup:
    tables = json.loads(inside.files[SIBLING].content)["tables"]
    addresses = tuple(
        FoundAddress(
            address,
            tuple(
                table["name"]
                for table in tables
                if any(IPv4Address(address) in IPv4Network(each) for each in table["unreachable"])
            ),
        )
        for address in sorted(inside.zone.get(name, ()))
    )
    return Lookup(addresses, "" if addresses else "no such name, or none with an IPv4 address")


def trial(inside: MemoryContainer, name: str, protocol: str) -> Trial:
    """Return what `fwctl try` would report, where Envoy and all hosts answer whatever is resolved."""
    if inside.tried:
        return inside.tried
    if POLICY not in inside.files:
        raise EngineError("helper-failed", "fwctl try failed: only CoreDNS's container can try.")
    source, envoy = f"{service_address(inside)}:40000", envoy_address(inside.files)
    if not name_list.answers(inside.files, now=0)(name):  # no rule has ended yet
        return Trial((TrialStep("resolve", source, 0.001, ok=False, status=0, outcome="no such name"),))
    last = {"https": "handshake", "http": "request"}.get(protocol, "wait")
    outcomes = {"resolve": envoy, "connect": envoy, last: "a host answered"}
    return Trial(
        tuple(TrialStep(step, source, 0.001, ok=True, status=0, outcome=text) for step, text in outcomes.items())
    )


_CONFINED = {
    "connect": "network is unreachable",
    "tls": "access denied",
    "certificate": "a certificate of the stack",
    "request": "HTTP 403 of Envoy",
    "send": "HTTP 403",
    "datagram": "connection refused",
    "socket": "operation not permitted",
    "gateway": "no gateway answers",
}


def attempts(inside: MemoryContainer, instead: Mapping[str, str]) -> list[str]:
    """Return what `fwctl attempts` would print in the container of an agent that is confined."""
    lines = []
    for each in json.loads(inside.files[ATTEMPTS].content):
        usual = "no such name" if each["kind"] == "ask" else _CONFINED[each["kind"]]
        lines.append(json.dumps({"id": each["id"], "outcome": instead.get(each["id"], usual)}))
    return lines


def service_address(inside: MemoryContainer) -> str:
    return str(json.loads(inside.files[SIBLING].content)["service"]["address"])


def loaded(resources: Sequence[Resource], files: Files) -> dict[str, str | None]:
    """Return the digest of each proven resource, or None for one that its program would reject."""
    found: dict[str, str | None] = {}
    for each in resources:
        file = files.get(f"{HOT}{each.path}", public(b""))
        if each.proven:
            found[each.name] = each.digest(file.content) if _readable(each, file.content) else None
    return found


def _readable(resource: Resource, content: bytes) -> bool:
    """Whether the program can read the file: Envoy's resources, each with a name; the signer's; CoreDNS's."""
    try:
        document = json.loads(content)
        if resource.envoy:
            return all("name" in each for each in document["resources"])
        if resource.signer:
            return isinstance(document[resource.name], list)
        if resource.name == name_list.RESOURCE.name:
            return isinstance(document["names"], dict)
        return bool(not document or {"endpoint", "ca", "certificate", "key"} <= document.keys())
    except (KeyError, TypeError, ValueError):
        return False


def _unpacked(sent: bytes) -> Files:
    return archive.unpack(iter([sent]))


def _commit(inside: MemoryContainer, sent: Files) -> dict[str, Any]:
    wanted = json.loads(sent["commit.json"].content)
    new = {f"{HOT}{file['path']}": sent[f"{HOT}{file['path']}"] for file in wanted["files"]}
    for file in wanted["files"]:
        if hashlib.sha256(plain(new[f"{HOT}{file['path']}"].content)).hexdigest() != file["sha256"]:
            raise EngineError("helper-failed", f"fwctl commit-in-place failed: {file['path']} has another digest.")
    digests = loaded(declared(inside.files), {**inside.files, **new})
    refused = sorted(name for name, digest in digests.items() if digest != wanted["live"].get(name))
    if refused:
        return {
            "committed": False,
            "rejected": refused,
            "missing": [],
            "reason": "it could not be read",
            "hung": False,
        }
    kept = {path: file for path, file in inside.files.items() if not path.startswith(HOT)}
    inside.files = {**kept, **new}  # hot/ must match the record exactly
    inside.files[COMMITTED] = sent["commit.json"]
    _keep_good(inside)
    inside.live = {name: digest for name, digest in digests.items() if digest is not None}
    return {"committed": True, "rejected": [], "missing": [], "reason": "", "hung": False}


def growth(inside: MemoryContainer, sent: bytes) -> int:
    """Return by how many octets the file grows that grows most, of those that a commit is sent."""
    new = {path: file for path, file in _unpacked(sent).items() if path.startswith(HOT)}
    before = {path: len(inside.files[path].content) if path in inside.files else 0 for path in new}
    return max(len(file.content) - before[path] for path, file in new.items())


def _keep_good(inside: MemoryContainer) -> None:
    kept = {path: file for path, file in inside.files.items() if not path.startswith(GOOD)}
    copies = {f"{GOOD}{path}": file for path, file in kept.items() if path.startswith(HOT)}
    inside.files = {**kept, **copies}


def _intact(files: Files, folder: str, record: str) -> bool:
    try:
        recorded = {each["path"]: each["sha256"] for each in json.loads(files[record].content)["files"]}
    except (KeyError, TypeError, ValueError):
        return False
    present = {
        path.removeprefix(folder): hashlib.sha256(plain(file.content)).hexdigest()
        for path, file in files.items()
        if path.startswith(folder)
    }
    return present == recorded


def restore_good(inside: MemoryContainer) -> bool:
    """Restore the last proven set if the hot files differ from it; return whether they now are a proven set."""
    if not _intact(inside.files, HOT, COMMITTED):
        if not _intact(inside.files, f"{GOOD}{HOT}", COMMITTED):
            return False
        kept = {path: file for path, file in inside.files.items() if not path.startswith(HOT)}
        good = {path.removeprefix(GOOD): file for path, file in kept.items() if path.startswith(f"{GOOD}{HOT}")}
        inside.files = {**kept, **good}
    _keep_good(inside)
    return True
