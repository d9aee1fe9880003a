"""The answer of `config`."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import NonNegativeInt

from clawker_fw.report.config import Value
from clawker_fw.report.documents import Document
from clawker_fw.settings.loaded import Loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigDocument(Document):
    """The answer of `config`."""

    path: str | None
    """The settings file; null when only environment variables are used."""
    source: str
    """What chose it."""
    files: list[str]
    """The settings file, and those that it includes."""
    rules: NonNegativeInt
    settings: list[Value]

    @classmethod
    def of(cls, loaded: Loaded, named_by: str, found: Sequence[Value]) -> "ConfigDocument":
        """Return the answer. `named_by` is what chose the settings."""
        return cls(
            path=str(loaded.source) if loaded.source else None,
            source=named_by,
            files=[str(path) for path in loaded.files],
            rules=len(loaded.rules.rules),
            settings=list(found),
        )
