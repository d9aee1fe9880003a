"""The settings from which a stack was made."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ShippedPreset:
    """A preset as a release has it: its name, its version, and each of its rules as a line of text."""

    name: str
    version: int
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where settings come from: `path` is the settings file on `host`, or empty for the environment alone.

    `project` is the project that the file names, if any, and `digest` identifies the content of the settings.
    `presets` are those that the settings name, as the release had them.
    """

    path: str
    host: str
    project: str | None
    digest: str
    presets: tuple[ShippedPreset, ...] = ()

    def __str__(self) -> str:
        """Return the text that is shown to people."""
        meant = f", for project {self.project}" if self.project else ""
        return f"{self.path or 'the environment'} on {self.host}{meant}"
