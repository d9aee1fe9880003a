"""The answer of `ps`."""

from collections.abc import Sequence
from dataclasses import dataclass

from clawker_fw.model import EngineFacts
from clawker_fw.report.documents import Document
from clawker_fw.report.documents.parts import EngineUsed
from clawker_fw.report.overview import Stack


@dataclass(frozen=True, slots=True)
class EngineVersion(EngineUsed):
    """The engine of several stacks, and its version."""

    version: str

    @classmethod
    def of(cls, engine: EngineFacts) -> "EngineVersion":
        """Return the engine."""
        return cls(engine.endpoint, engine.named_by, engine.version)


@dataclass(frozen=True, slots=True, kw_only=True)
class PsDocument(Document):
    """The answer of `ps`."""

    engine: EngineVersion
    stacks: list[Stack]

    @classmethod
    def of(cls, stacks: Sequence[Stack], engine: EngineFacts) -> "PsDocument":
        """Return the answer."""
        return cls(engine=EngineVersion.of(engine), stacks=list(stacks))
