"""The answer of `clawker-fw ca`. No key is ever in it."""

from dataclasses import dataclass

from clawker_fw.report.ca import AuthorityAnswer, IntermediateRow, RootRow, State
from clawker_fw.report.documents import Document, Moment
from clawker_fw.rules.until import rfc3339


@dataclass(frozen=True, slots=True, kw_only=True)
class RootDocument:
    """A root: agents that trust it trust all certificates of inspected connections."""

    sha256: str
    """Its fingerprint, in hexadecimal."""
    begins: Moment
    """When it begins to be valid."""
    expires: Moment
    """When it expires."""
    key: bool
    """Whether its key is on this machine."""
    live: bool
    """Whether the stack's bundle has it, which new agents are given."""
    state: State
    """`signs`: intermediates are signed with it now. `announced`: later. `former`: no longer, and agents trust it
    for as long as something that it has signed can be in use."""
    signs_at: Moment | None
    """From when on an announced one signs; null for all others."""

    @classmethod
    def of(cls, row: RootRow) -> "RootDocument":
        """Return a root."""
        return cls(
            sha256=row.root.identifier,
            begins=rfc3339(row.root.begins),
            expires=rfc3339(row.root.ends),
            key=row.root.signs,
            live=row.live,
            state=row.state,
            signs_at=None if row.signs_at is None else rfc3339(row.signs_at),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class IntermediateDocument:
    """An intermediate of the stack."""

    root: str
    """The fingerprint of the root that has signed it."""
    names: tuple[str, ...]
    """It can sign for these names, and for those below them."""
    begins: Moment
    """When it begins to be valid."""
    expires: Moment
    """When it expires."""
    renewed: Moment
    """When `run` or a watcher renews it."""

    @classmethod
    def of(cls, row: IntermediateRow) -> "IntermediateDocument":
        """Return an intermediate."""
        said = row.intermediate
        return cls(
            root=row.root,
            names=said.names,
            begins=rfc3339(said.begins),
            expires=rfc3339(said.ends),
            renewed=rfc3339(said.renewed_at),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityDocument(Document):
    """The answer of `ca show` and `rotate`."""

    project: str
    """The project of the stack."""
    inspects: bool
    """Whether the stack inspects connections now."""
    roots: list[RootDocument]
    """The newest first."""
    intermediates: list[IntermediateDocument]
    """Those of the running stack, the newest first."""
    agents_without_newest_root: tuple[str, ...]
    """The agents that have not been given the first of the roots. Empty if the stack inspects no connection."""

    @classmethod
    def of(cls, answer: AuthorityAnswer) -> "AuthorityDocument":
        """Return the answer."""
        return cls(
            project=answer.project,
            inspects=answer.inspects,
            roots=[RootDocument.of(each) for each in answer.roots],
            intermediates=[IntermediateDocument.of(each) for each in answer.intermediates],
            agents_without_newest_root=tuple(answer.without),
        )
