"""The answers that have steps: of `run` and `reload`, and of `down`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, make_dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import Field, WithJsonSchema

from clawker_fw.model import Sibling
from clawker_fw.reconcile.advice import Advice
from clawker_fw.reconcile.apply import Progress
from clawker_fw.reconcile.pipeline import Comparison
from clawker_fw.reconcile.steps import Step, describe, described
from clawker_fw.reconcile.summary import Summary
from clawker_fw.report import summary
from clawker_fw.report.documents import Document, SiblingVerdict
from clawker_fw.report.documents.parts import (
    BothSiblings,
    Changes,
    EngineUsed,
    Lines,
    SettingsUsed,
    SiblingFindings,
    Warnings,
)
from clawker_fw.report.facts import Left

Seconds = Annotated[Any, WithJsonSchema({"type": "number", "minimum": 0})]
"""A whole number stays one."""


def _form(*kinds: str, **fields: object) -> Mapping[str, type]:
    """Return the form of steps of these kinds, by each of them."""
    name = kinds[0].title().replace("-", "")
    form = make_dataclass(name, [("kind", Literal[kinds]), *fields.items(), ("text", str)], frozen=True)
    return dict.fromkeys(kinds, form)


_FORMS = {
    **_form("commit", "release", "start", "stop", "unpause", sibling=Sibling),
    **_form("examine", "remove", container=str),
    **_form("create", "rename", sibling=Sibling, container=str),
    **_form("load-image", "pull-image", sibling=Sibling, image=str),
    **_form("remove-image", image=str),
    **_form("remove-volume", volume=str),
    **_form("create-network", network=str, subnet=str),
    **_form("remove-network", network=str),
    **_form("detach", container=str, network=str),
    **_form("verify", sibling=Sibling, container=str, live=dict[str, str]),
    **_form("give", sibling=Sibling, secrets=list[str]),
    **_form("claim", sibling=Sibling, seconds=Seconds),
    **_form("wait", seconds=Seconds),
    **_form("drain", container=str, seconds=Seconds),
    **_form("reattach", sibling=Sibling, networks=list[str]),
    **_form("publish", container=str, ports=list[str]),
}

if TYPE_CHECKING:
    StepDocument = object
else:
    StepDocument = Union[tuple(dict.fromkeys(_FORMS.values()))]  # noqa: UP007 - of as many as there are

Steps = Annotated[
    list[StepDocument],
    Field(
        description="What is done, in order. The `kind` of a step determines its other fields. Containers and "
        "networks are named, images by their references, or by the id of one without; `live` is the expected live "
        "digest of each resource. `text` is one line for people, the wording of which may change."
    ),
]


def _step(step: Step) -> StepDocument:
    kind, sentence, fields = described(step)
    return _FORMS[kind](kind=kind, **fields, text=sentence)


@dataclass(frozen=True, slots=True)
class Note:
    """A note on a completed step."""

    step: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDocument(Document):
    """The answer of `run`, of a dry run, and of `reload`."""

    verdict: SiblingVerdict
    changed: bool
    """Whether anything was done."""
    warnings: Warnings
    summary: Lines
    rules: Changes
    steps: Steps
    notes: list[Note]
    """Notes on completed steps, for example how many connections were cut."""
    siblings: BothSiblings
    """What differed before."""
    settings: SettingsUsed
    engine: EngineUsed

    @classmethod
    def of(
        cls,
        before: Comparison,
        said: Summary | None,
        after: Comparison,
        warnings: tuple[Advice, ...],
        *,
        planned: Iterable[Step] = (),
        performed: Sequence[Progress] = (),
    ) -> "RunDocument":
        """Return the answer: the differences before, the steps, and the verdict afterwards."""
        return cls(
            verdict=after.diff.verdict,
            changed=bool(performed),
            warnings=warnings,
            summary=summary.lines(said),
            rules=before.rule_changes,
            steps=[_step(each) for each in (*planned, *(done.step for done in performed))],
            notes=[Note(describe(done.step), done.note) for done in performed if done.note],
            siblings=SiblingFindings.both(before.diff),
            settings=SettingsUsed.of(after.blueprint, after.observed),
            engine=EngineUsed.of(after.blueprint.engine),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DownDocument(Document):
    """The answer of `down`."""

    project: str
    steps: Steps
    left: Left
    """What was kept; `down --all` removes it."""

    @classmethod
    def of(cls, project: str, performed: Sequence[Progress], left: Left) -> "DownDocument":
        """Return the answer: the steps performed, and what was kept."""
        return cls(project=project, steps=[_step(done.step) for done in performed], left=left)
