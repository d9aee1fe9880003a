"""Images: desired ones, and images on an engine."""

from dataclasses import dataclass

from clawker_fw.model.stacks import Sibling


@dataclass(frozen=True, slots=True)
class Image:
    """The image of Envoy or CoreDNS.

    `ids` are the possible ids of a bundled image: the config digest (classic image store) and the manifest digest
    (containerd image store). A registry reference has none until an engine has pulled it. `version` is None if the
    reference does not contain it. `oldest` is the oldest supported version, or None for any.
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
    """An image that a release of ours built. `references` are its tags, at least one."""

    id: str
    references: tuple[str, ...]
