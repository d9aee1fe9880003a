"""What settings are read from: the settings file, the files that it includes, and bundles from registries.

What a file names is read from its document (`outline.py`). `include.py` joins all documents to one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from clawker_fw.errors import SettingsError
from clawker_fw.settings.bundles.reference import PREFIX, parse_reference
from clawker_fw.settings.bundles.store import Bundle, Kept
from clawker_fw.settings.document import document_of
from clawker_fw.settings.environment import SETTINGS_VARIABLE
from clawker_fw.settings.files import read_regular, read_text, resolved
from clawker_fw.settings.outline import INCLUDE as KEY
from clawker_fw.settings.outline import Outline, outline_of

__all__ = ["KEY", "Named", "Resolve", "Source", "named_bundles", "sources"]

Resolve = Callable[[str, Sequence[Path]], Kept]
"""Returns the bundle in force of a reference, by files with public keys; raises SettingsError."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file or a bundle with settings, its text, and the files and bundles that it includes, as it names them.

    `origins` are the places of its rules if the text is not written yet: its lines don't exist. `delegates` is the
    reference that a file names as `settings`, and `keys` are the files with keys that it names. `bundle` is which
    bundle this is, and then `path` is that of the file that names it; `whole` says that it is named as `settings`.
    """

    path: Path
    text: str
    includes: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    delegates: str = ""
    keys: tuple[Path, ...] = ()
    bundle: Bundle | None = None
    whole: bool = False
    in_variable: bool = False
    """Whether it is no file: the text of a variable, whose name is the path."""

    @property
    def name(self) -> str:
        """What its lines are called: the path, or the bundle."""
        return self.bundle.name if self.bundle else str(self.path)


@dataclass(frozen=True, slots=True)
class Named:
    """The bundles that settings files name, and the files with the keys for them."""

    references: tuple[str, ...] = ()
    keys: tuple[Path, ...] = ()


def sources(path: Path, resolve: Resolve | None = None) -> tuple[Source, ...]:
    """Read a settings file, and all files and bundles that it names, itself first. Each is read once.

    Raises:
        SettingsError: when one can't be read, or includes itself, perhaps through others, or there is no bundle.
    """
    return _with_bundles(*_files(path), resolve)


def in_variable(text: str, resolve: Resolve | None = None) -> tuple[Source, ...]:
    """Return the settings that a variable has, and the bundles that they name.

    Raises:
        SettingsError: when they name files by relative paths, which would be relative to nothing, or there is no
            bundle.
    """
    return _with_bundles(*_of_variable(text), resolve)


def named_bundles(path: Path | None, text: str | None = None) -> Named:
    """Return the bundles that a settings file, or the text of the variable, names. No registry is asked.

    Raises:
        SettingsError: when a file can't be read.
    """
    if path is None and text is None:
        return Named()
    (first, *_), references = _of_variable(text) if text is not None else _files(Path(path or ""))
    return Named(tuple(references), first.keys)


def _of_variable(text: str) -> tuple[tuple[Source, ...], dict[str, str]]:
    name = Path(SETTINGS_VARIABLE)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    outline = outline_of(document_of(text, name))
    for each, place in outline.includes.items():
        if not each.startswith(PREFIX):
            raise SettingsError(
                "include-in-variable",
                f"{place}: settings in a variable can't include files.",
                hint="Write all rules into the variable, or use a settings file.",
            )
    if relative := [each for each in outline.keys if not Path(each).expanduser().is_absolute()]:
        raise SettingsError(
            "key-in-variable",
            f"{SETTINGS_VARIABLE}: the path of a key must be absolute in a variable, and {relative[0]} is not.",
            hint="Write the whole path into `bundle_keys`.",
        )
    own = replace(_source(name, text, outline, first=True), includes=tuple(outline.includes), in_variable=True)
    references = {own.delegates: outline.settings_at} if own.delegates else {}
    return (own,), references | {_reference(each, place): place for each, place in outline.includes.items()}


def _with_bundles(
    files: tuple[Source, ...], references: Mapping[str, str], resolve: Resolve | None
) -> tuple[Source, ...]:
    first, *others = files
    if not references:
        return files
    if not first.keys:
        raise SettingsError(
            "bundle-without-key",
            f"{next(iter(references.values()))}: a bundle is used only with a key that has signed it.",
            hint="Name the file with the public key in this file: `bundle_keys: [cosign.pub]`.",
        )
    bundles = [_bundle(each, first, resolve) for each in references]
    return (
        first,
        *(each for each in bundles if each.whole),
        *others,
        *(each for each in bundles if not each.whole),
    )


def _bundle(reference: str, first: Source, resolve: Resolve | None) -> Source:
    if resolve is None:
        raise SettingsError("bundle-unavailable", f"{reference} can't be used here: no registry is asked.")
    kept = resolve(reference, first.keys)
    return Source(first.path, kept.text, bundle=kept.bundle, whole=first.delegates == reference)


def _files(path: Path) -> tuple[tuple[Source, ...], dict[str, str]]:
    """Return the files, and the bundles that they name, each with its place."""
    reading = _Reading()
    reading.collect(path, (), "")
    return tuple(reading.found.values()), reading.references


class _Reading:
    """What has been read so far: files, and the bundles that they name, each with its place."""

    def __init__(self) -> None:
        self.found: dict[Path, Source] = {}
        self.references: dict[str, str] = {}

    def collect(self, path: Path, above: tuple[Path, ...], place: str) -> None:
        """Read a file and what it includes. `place` is where it is included, by the files `above`."""
        with _told_of(place):
            here = resolved(path)
        if here in above:
            chain = " -> ".join(str(each) for each in (*above[above.index(here) :], here))
            raise SettingsError(
                "include-cycle", f"{place}: {path} includes itself: {chain}.", hint="Remove one of these includes."
            )
        if here in self.found:
            return
        with _told_of(place):
            text = read_regular(path) if place else read_text(path)
        outline = outline_of(document_of(text, path))
        own = _source(path, text, outline, first=not above)
        self.found[here] = own
        if own.delegates:
            self.references[own.delegates] = outline.settings_at
        for name, at in outline.includes.items():
            if name.startswith(PREFIX):
                self.references.setdefault(_reference(name, at), at)
            else:
                self.collect(path.parent / name, (*above, here), at)
        self.found[here] = replace(own, includes=tuple(outline.includes))


def _source(path: Path, text: str, outline: Outline, *, first: bool) -> Source:
    """Return a file. Only the settings file itself delegates, and names keys: another one may have rules alone."""
    if not first:
        return Source(path, text)
    delegates = _reference(outline.settings, outline.settings_at) if outline.settings else ""
    keys = tuple(path.absolute().parent / Path(each).expanduser() for each in outline.keys)
    return Source(path, text, delegates=delegates, keys=keys)


def _reference(text: str, place: str) -> str:
    """Return a reference as it is kept.

    Raises:
        SettingsError: when it is none.
    """
    try:
        return str(parse_reference(text))
    except ValueError as error:
        raise SettingsError("settings-invalid", f"{place}: {error}.") from error


@contextmanager
def _told_of(place: str) -> Iterator[None]:
    """Tell an error about an included file with the place of its include, if there is one."""
    try:
        yield
    except SettingsError as error:
        if not place:
            raise
        raise SettingsError(
            "include-unreadable",
            f"{place}: an included file can't be used: {error.message}",
            hint="The path of an included file is relative to the file that includes it.",
        ) from error
