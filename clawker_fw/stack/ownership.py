"""Which of an engine's containers are ours: the siblings, the lock, and the container of an errand.

All of them are made for a project (`ContainerSummary.project`). Whatever is not in here is somebody else's.
"""

from contextlib import suppress

from clawker_fw.model import ContainerSummary, ContainerView, Sibling
from clawker_fw.stack import labels
from clawker_fw.stack.container import lock_name, trial_name, trust_name

Container = ContainerSummary | ContainerView


def is_lock(found: Container, project: str) -> bool:
    """Whether a container is the lock of a project."""
    return _is_named(found, project, lock_name(project)) and all(each in found.labels for each in labels.LOCK)


def is_trial(found: Container, project: str) -> bool:
    """Whether a container does one thing for a project: `conformance`'s attempts, or to ask the kernel."""
    return _is_named(found, project, trial_name(project))


def is_filler(found: Container, project: str) -> bool:
    """Whether a container fills a project's volume with what agents trust. It has the volume's name."""
    return bool(project) and found.project == project and found.name.startswith(trust_name(project))


def is_made_as_sibling(found: Container, project: str) -> bool:
    """Whether a container is a sibling of a project, whatever its name."""
    return found.project == project and all(each in found.labels for each in labels.MADE_WITH)


def sibling_of(found: Container, project: str) -> Sibling | None:
    """Return which sibling of a project a container says that it is, or None."""
    if found.project == project:
        with suppress(KeyError, ValueError):  # the lock, or the word of another release
            return Sibling(found.labels[labels.SIBLING])
    return None


def _is_named(found: Container, project: str, name: str) -> bool:
    return bool(project) and found.project == project and found.name == name
