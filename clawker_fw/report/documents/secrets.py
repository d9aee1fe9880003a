"""The answer of `clawker-fw secrets`. No value is ever in it."""

from dataclasses import dataclass

from clawker_fw.report.documents import Document
from clawker_fw.report.secrets import SecretRow, SecretsAnswer, State


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretDocument:
    """A secret that the user has declared."""

    name: str
    """Its name, by which rules put it into requests."""
    source: str
    """Where it comes from: `env`, `file` or `command`."""
    header: str
    """The header that it is put into, in lower case."""
    hosts: tuple[str, ...]
    """The hosts that may have it, each with its port."""
    refresh: float | None
    """After how many seconds a watcher obtains it again; null for never."""
    at_rest: bool
    """Whether it is kept on the disk of the engine's machine as well, and outlives a restart."""
    rules: tuple[str, ...]
    """The rules that put it into requests."""
    state: State
    """`given`: Envoy has it. `absent`: it has not. `another`: it has one with another value. `unused`: no rule
    needs it. `obtained`, `unavailable`: whether its source gives it, after `secrets check`. `unknown`: the stack
    does not run, or could not be asked."""
    problem: str | None
    """Why its source does not give it; null if that is not so, or was not tried."""

    @classmethod
    def of(cls, row: SecretRow) -> "SecretDocument":
        """Return a secret."""
        return cls(
            name=row.name,
            source=row.source,
            header=row.header,
            hosts=tuple(row.hosts),
            refresh=row.refresh,
            at_rest=row.at_rest,
            rules=tuple(row.rules),
            state=row.state,
            problem=row.problem or None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretsDocument(Document):
    """The secrets of the user's file."""

    file: str
    """The path of the file."""
    secrets: tuple[SecretDocument, ...]
    """Each secret, in the order of the file."""

    @classmethod
    def of(cls, answer: SecretsAnswer) -> "SecretsDocument":
        """Return the answer."""
        return cls(file=answer.file, secrets=tuple(map(SecretDocument.of, answer.rows)))
