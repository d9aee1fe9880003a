"""The answer of `clawker-fw image` for people: what the image is called, and what is in it, a line each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class PackageInside:
    """A Python package in the image."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class ImageAnswer:
    """An image of the program.

    `references` are its tags, that with a digest first. `ids` are those in an engine's own image store and in
    containerd's. `loaded` is whether the engine has been given it just now, or None if no engine was asked.
    """

    references: Sequence[str]
    ids: tuple[str, str]
    architecture: str
    size: int
    version: str
    build: str
    python: str
    packages: Sequence[PackageInside]
    libraries: Sequence[str]
    engine: str | None = None
    loaded: bool | None = None
    output: Path | None = None


def lines(answer: ImageAnswer) -> Iterator[str]:
    """Yield the answer."""
    config, manifest = answer.ids
    required = [f"{each.name} {each.version}" for each in answer.packages if each.name != "clawker-fw"]
    yield f"Image      {', '.join(answer.references)}"
    yield f"Id         {config}"
    yield f"           {manifest} in containerd's image store, and in a registry"
    yield f"Size       {answer.size / _MEGABYTE:.0f} MB, for linux/{answer.architecture}"
    yield f"Program    clawker-fw {answer.version} ({answer.build[:7]})"
    yield f"Python     {answer.python}, without tests, tools and what draws windows"
    yield f"Packages   {len(required)}: {', '.join(required)}"
    yield f"Libraries  {len(answer.libraries)}: {', '.join(answer.libraries)}"
    if answer.loaded is not None:
        yield f"Loaded into {answer.engine}." if answer.loaded else f"It is in {answer.engine} already."
    elif answer.output:
        yield f"Wrote {answer.output}. Load it with `docker load --input {answer.output}`."
