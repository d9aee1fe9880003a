"""The answer of `agent flags`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from clawker_fw.agents.attachment import DROPPED_CAPABILITY, NO_SEARCH_DOMAIN, Attachment
from clawker_fw.agents.trust import TARGET
from clawker_fw.reconcile.pipeline import Comparison
from clawker_fw.report.documents import Document, SiblingVerdict
from clawker_fw.report.documents.parts import EngineUsed, SettingsUsed

Texts = Annotated[list[str], Field(min_length=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class MountDocument:
    """A volume that is mounted in an agent, and that it can't write."""

    volume: str
    """Its name."""
    target: str = TARGET
    """Where it is mounted."""
    read_only: Literal[True] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagsDocument(Document):
    """The answer of `agent flags`."""

    verdict: SiblingVerdict
    project: str
    flags: Texts
    """The words for `docker run`. The other fields say the same."""
    network: str
    """The only network of an agent (`HostConfig.NetworkMode`)."""
    dns: Texts
    """Its DNS servers (`HostConfig.Dns`)."""
    dns_search: Texts
    """Its search domains: `.` stands for none (`HostConfig.DnsSearch`)."""
    cap_drop: Texts
    """The capabilities to take from it (`HostConfig.CapDrop`)."""
    environment: dict[str, str]
    """Variables that the docker CLI would set otherwise, those of its own proxies, empty; those by which programs
    find what they trust, if the stack inspects connections; and placeholders for secrets (`Env`)."""
    mounts: list[MountDocument]
    """The volume with what an agent trusts, if the stack inspects connections (`HostConfig.Mounts`)."""
    settings: SettingsUsed
    engine: EngineUsed

    @classmethod
    def of(cls, seen: Comparison, attached: Attachment) -> "FlagsDocument":
        return cls(
            verdict=seen.diff.verdict,
            project=seen.desired.project,
            flags=list(attached.flags),
            network=attached.network,
            dns=[attached.dns],
            dns_search=[NO_SEARCH_DOMAIN],
            cap_drop=[DROPPED_CAPABILITY],
            environment=dict(attached.environment),
            mounts=[MountDocument(volume=attached.trust.volume)] if attached.trust else [],
            settings=SettingsUsed.of(seen.blueprint, seen.observed),
            engine=EngineUsed.of(seen.blueprint.engine),
        )
