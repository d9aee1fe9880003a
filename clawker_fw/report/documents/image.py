"""The answer of `image`."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from clawker_fw.report.documents import Document
from clawker_fw.report.image import ImageAnswer, PackageInside

Digest = Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageDocument(Document):
    """The answer of `image`."""

    reference: str
    """The tag that has a digest: no other image ever has it."""
    references: list[str]
    """All tags, also that with the version alone."""
    digest: Digest
    """The digest of the manifest: what a registry names the image by, and its id in containerd's image store."""
    config_digest: Digest
    """The digest of the config: the image's id in an engine's own image store."""
    architecture: str
    """In Go's terms: `amd64` or `arm64`."""
    size: int
    """Bytes of its only layer, which is not compressed."""
    version: str
    """The version of the release in it."""
    build: str
    """The `stack_build_sha` of the release in it."""
    python: str
    """The version of Python in it."""
    packages: list[PackageInside]
    """The Python packages in it."""
    libraries: list[str]
    """The shared libraries in it that no package has."""
    engine: str | None
    """The engine that has it now; null without `--load`."""
    loaded: bool | None
    """Whether it was loaded: false if the engine had it; null without `--load`."""
    output: str | None
    """The file that was written; null without `--output`."""

    @classmethod
    def of(cls, answer: ImageAnswer) -> "ImageDocument":
        """Return the answer."""
        config, manifest = answer.ids
        return cls(
            reference=answer.references[0],
            references=list(answer.references),
            digest=manifest,
            config_digest=config,
            architecture=answer.architecture,
            size=answer.size,
            version=answer.version,
            build=answer.build,
            python=answer.python,
            packages=list(answer.packages),
            libraries=list(answer.libraries),
            engine=answer.engine,
            loaded=answer.loaded,
            output=str(answer.output) if answer.output else None,
        )
