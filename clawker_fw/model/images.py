"""Images: desired ones, and images on an engine."""

from dataclasses import dataclass

from clawker_fw.model.stacks import Sibling


@dataclass(frozen=True, slots=True)
class Image:
    """The image of a sibling.

    `ids` are the ids that a bundled image can have on an engine: the config digest (classic image store) and the
    manifest digest (containerd image store). They are empty for a registry reference, whose id is unknown until an
    engine has pulled it. `version` is None if the reference does not contain one. `oldest` is the oldest version
    that this release supports, or None for any.
    """

    sibling: Sibling
    reference: str
    ids: tuple[str, ...]
    version: str | None
    oldest: str | None = None

    @property
    def bundled(self) -> bool:
        """Whether we build this image ourselves instead of pulling it."""
        return bool(self.ids)


@dataclass(frozen=True, slots=True)
class ImageView:
    """An image on the engine."""

    id: str
    environment: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OwnImage:
    """An image that some release of ours built. `references` are the tags that it gave it, at least one."""

    id: str
    references: tuple[str, ...]
