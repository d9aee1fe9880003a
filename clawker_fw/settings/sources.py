"""The files that settings are read from: the settings file, and those that it includes.

They are read again and again, and parsed only when one has changed. So whether a file may include others is told
from its text; that each include was followed is required of the parsed documents (`include.py`).
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clawker_fw.errors import SettingsError
from clawker_fw.settings.environment import SETTINGS_VARIABLE
from clawker_fw.settings.files import read_regular, read_text, resolved

KEY = "include"


@dataclass(frozen=True, slots=True)
class Source:
    """A file with settings, its text, and the files that it includes, as it names them.

    `origins` are the places of its rules if the text is not written yet: its lines don't exist.
    """

    path: Path
    text: str
    includes: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    in_variable: bool = False
    """Whether it is no file: the text of a variable, whose name is the path."""


def in_variable(text: str) -> Source:
    """Return the settings that a variable has.

    Raises:
        SettingsError: when they include files: the paths of these would be relative to nothing.
    """
    name = Path(SETTINGS_VARIABLE)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if KEY in text:
        from clawker_fw.settings.document import document_of  # noqa: PLC0415 - not without need: YAML is slow to import

        if place := document_of(text, name).given_at((KEY,)):
            raise SettingsError(
                "include-in-variable",
                f"{place}: settings in a variable can't include files.",
                hint="Write all rules into the variable, or use a settings file.",
            )
    return Source(name, text, in_variable=True)


def files_of(read: Iterable[Source]) -> tuple[Path, ...]:
    """Return the files among what settings were read from."""
    return tuple(each.path for each in read if not each.in_variable)


def sources(path: Path) -> tuple[Source, ...]:
    """Read a settings file and all files that it includes, itself first. Each is read once.

    Raises:
        SettingsError: when one can't be read, or includes itself, perhaps through others.
    """
    found: dict[Path, Source] = {}
    _collect(path, (), "", found)
    return tuple(found.values())


def _collect(path: Path, above: tuple[Path, ...], place: str, found: dict[Path, Source]) -> None:
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
    included: Mapping[str, str] = {}
    if KEY in text:  # otherwise it need not be parsed now
        from clawker_fw.settings.document import document_of  # noqa: PLC0415 - not without need: YAML is slow to import
        from clawker_fw.settings.include import included as included_by  # noqa: PLC0415 - the same

        included = included_by(document_of(text, path))
    found[here] = Source(path, text, tuple(included))
    for name, at in included.items():
        _collect(path.parent / name, (*above, here), at, found)


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
