"""What settings are read from: the settings file, and the files that it includes, each with its text.

`include.py` joins them to one document.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clawker_fw.errors import SettingsError
from clawker_fw.settings.document import SettingsDocument, document_of
from clawker_fw.settings.files import read_regular, read_text, resolved

KEY = "include"

_FORMER = "settings"
"""The key with which former releases took all settings from a registry."""

_REGISTRY = "oci://"


@dataclass(frozen=True, slots=True)
class Source:
    """A file with settings, and its text.

    `origins` are the places of its rules if the text is not written yet: its lines don't exist.
    """

    path: Path
    text: str
    origins: tuple[str, ...] = ()


def sources(path: Path) -> tuple[Source, ...]:
    """Read a settings file, and all files that it includes, itself first. Each is read once.

    Raises:
        SettingsError: when one can't be read, or includes itself, perhaps through others.
    """
    found: dict[Path, Source] = {}
    _collect(path, found, above=(), place="")
    return tuple(found.values())


def included(document: SettingsDocument) -> Mapping[str, str]:
    """Return the files that a document includes, as it names them, each with its place.

    Raises:
        SettingsError: when it names something else than files.
    """
    names = document.values.get(KEY, [])
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise SettingsError(
            "settings-invalid",
            f"{document.place((KEY,))}: `{KEY}` must be a list of files.",
            hint=f"Write it as `{KEY}: [team.yaml]`.",
        )
    found = {name: document.place((KEY, position)) for position, name in enumerate(names)}
    former = {str(document.values.get(_FORMER, "")): document.place((_FORMER,))}
    for name, place in (former | found).items():
        if name.startswith(_REGISTRY):
            raise SettingsError(
                "settings-in-registry",
                f"{place}: settings are read from files, and {name} is in a registry.",
                hint="`docs/signed-rules.md` in the repository shows how a timer takes the file from there, and "
                "verifies it.",
            )
    return found


def _collect(path: Path, found: dict[Path, Source], above: tuple[Path, ...], place: str) -> None:
    """Read a file and what it includes. `place` is where it is included, by the files `above`."""
    with _told_of(place):
        here = resolved(path)
    if here in above:
        chain = " -> ".join(str(each) for each in (*above[above.index(here) :], here))
        raise SettingsError(
            "include-cycle", f"{place}: {path} includes itself: {chain}.", hint="Remove one of these includes."
        )
    if here in found:
        return
    with _told_of(place):
        text = read_regular(path) if place else read_text(path)
    found[here] = Source(path, text)
    for name, at in included(document_of(text, path)).items():
        _collect(path.parent / name, found, (*above, here), at)


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
