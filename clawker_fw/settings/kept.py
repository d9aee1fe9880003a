"""The settings that were checked last, kept in the user's state folder.

Most commands find the same settings as the command before. They need not parse and check them again, which takes
as long as the rest of a look at a stack that is current. What is kept is used only for the same text of the same
files and the same variables, by the same release, and ignored if it can't be used. It is where the user's keys
are: whoever can write there needs no settings.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from clawker_fw.model import ShippedPreset
from clawker_fw.private_files import make_private, write_private
from clawker_fw.rules import suffixes
from clawker_fw.rules.destination import Destination
from clawker_fw.rules.paths import Access, Form, Injection, PathRule, Paths, Repository
from clawker_fw.rules.promises import Promise, PromiseKind
from clawker_fw.rules.rule import Protocol, Rule, RuleAction
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.settings.environment import Variables
from clawker_fw.settings.loaded import Loaded, named_by, paths_of
from clawker_fw.settings.outline import Outlines
from clawker_fw.settings.sources import Source
from clawker_fw.settings.values import (
    CorednsResources,
    EnvoyResources,
    ImageSettings,
    InspectionSettings,
    LimitSettings,
    NetworkSettings,
    OtelSettings,
    ResourceSettings,
    StackSettings,
)

_CODE = Path(__file__).parent
FOLDERS = (_CODE, _CODE.parent / "rules")
_SECTIONS = {
    "images": ImageSettings,
    "otel": OtelSettings,
    "inspection": InspectionSettings,
    "limits": LimitSettings,
}
"""The sections whose values are the same in JSON."""

_UNUSABLE = (OSError, ValueError, TypeError, LookupError, AttributeError)


@dataclass(frozen=True)
class Kept:
    """The settings that were checked last, in one file for each project."""

    path: Path

    @property
    def outlines(self) -> Outlines:
        """What was read of their files last, beside them."""
        return Outlines(self.path.with_name("outlines.json"))

    def recall(self, read: tuple[Source, ...], found: str, variables: Variables) -> Loaded | None:
        """Return what these settings were found to be, if they were the last that were checked."""
        try:
            digest, _, text = self.path.read_text().partition("\n")
            if digest != self._digest(read, found, variables):
                return None
            return _loaded(json.loads(text), read, found)
        except _UNUSABLE:
            return None

    def remember(self, read: tuple[Source, ...], found: str, variables: Variables, loaded: Loaded) -> None:
        """Keep settings, if that is possible."""
        document = json.dumps(_document(loaded))
        if _loaded(json.loads(document), read, found) != loaded:
            return
        text = f"{self._digest(read, found, variables)}\n{document}"
        with suppress(OSError):
            make_private(self.path.parent)
            write_private(self.path, text.encode())

    def forget(self) -> None:
        """Remove the file and the one of outlines, and their folder if nothing else is in it."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
            self.outlines.path.unlink(missing_ok=True)
            self.path.parent.rmdir()

    def _digest(self, read: tuple[Source, ...], found: str, variables: Variables) -> str:
        sources = [
            (
                str(each.path),
                each.text,
                each.includes,
                each.origins,
                each.delegates,
                [str(key) for key in each.keys],
                each.bundle and asdict(each.bundle),
            )
            for each in read
        ]
        return hashlib.sha256(json.dumps([self._release, sources, found, variables]).encode()).hexdigest()

    @cached_property
    def _release(self) -> list[tuple[str, int, int]]:
        """What decides how settings are understood: the code, the presets, and the list of suffixes."""
        code = (each for folder in FOLDERS for form in ("*.py", "*.yaml") for each in sorted(folder.rglob(form)))
        return [_identity(each) for each in (*code, suffixes.place())]


def _identity(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path), status.st_size, status.st_mtime_ns


def _document(loaded: Loaded) -> dict[str, Any]:
    """Return settings as JSON."""
    chosen = loaded.settings
    return {
        "settings": asdict(chosen) | {"network": {"subnet": chosen.network.subnet and str(chosen.network.subnet)}},
        "rules": [_rule_document(each) for each in loaded.rules.rules],
        "digest": loaded.digest,
        "places": dict(loaded.places),
        "promises": [(each.kind, _rule_document(each.rule)) for each in loaded.promises],
        "presets": [(each.name, each.version, each.rules) for each in loaded.presets],
    }


def _loaded(document: Mapping[str, Any], read: Sequence[Source], found: str) -> Loaded:
    return Loaded(
        _settings(document["settings"]),
        RuleSet(tuple(_rule(each) for each in document["rules"])),
        paths_of(read),
        found,
        document["digest"],
        document["places"],
        tuple(Promise(PromiseKind(kind), _rule(rule)) for kind, rule in document["promises"]),
        tuple(ShippedPreset(name, version, tuple(rules)) for name, version, rules in document["presets"]),
        *named_by(read),
        tuple(read),
    )


def _settings(document: Mapping[str, Any]) -> StackSettings:
    subnet, resources = document["network"]["subnet"], document["resources"]
    return StackSettings(
        project=document["project"],
        network=NetworkSettings(IPv4Network(subnet) if subnet else None),
        resources=ResourceSettings(EnvoyResources(**resources["envoy"]), CorednsResources(**resources["coredns"])),
        drain_timeout=document["drain_timeout"],
        **{name: section(**document[name]) for name, section in _SECTIONS.items()},
    )


_FIELDS = tuple(each.name for each in fields(Rule))


def _rule_document(rule: Rule) -> list[Any]:
    """Return a rule as the list of its fields."""
    destination, paths = rule.destination, rule.paths
    special = {"destination": [destination.name, destination.subtree], "paths": paths and asdict(paths)}
    return [special.get(name, getattr(rule, name)) for name in _FIELDS]


def _rule(document: list[Any]) -> Rule:
    (name, subtree), protocol, port, private, action, until, last, host, paths, *about = document
    return Rule(
        Destination(name, subtree=subtree),
        protocol and Protocol(protocol),
        port,
        private,
        RuleAction(action),
        until,
        last,
        host,
        paths and _paths(paths),
        *about,
    )


def _paths(document: Mapping[str, Any]) -> Paths:
    injected = document["injection"]
    return Paths(
        tuple(
            PathRule(each["path"], tuple(each["methods"]), each["denies"], each["expression"])
            for each in document["rules"]
        ),
        tuple(Repository(each["name"], Access(each["access"])) for each in document["repositories"]),
        document["others"],
        document["lfs"],
        document["verify"],
        injected
        and Injection(injected["secret"], injected["form"] and Form(injected["form"]), injected["keep_own"]),
        document["websocket"],
    )
