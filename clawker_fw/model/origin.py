"""The settings from which a stack was made."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ShippedPreset:
    """A preset of a release: name, version, and each rule as a line of text."""

    name: str
    version: int
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where settings come from: the file at `path` on `host`, or only the environment if `path` is empty.

    `project` is the project in the file, if any, and `group` the group in it; `digest` identifies the settings;
    `presets` are as in the release.
    """

    path: str
    host: str
    project: str | None
    digest: str
    presets: tuple[ShippedPreset, ...] = ()
    group: str | None = None

    def __str__(self) -> str:
        """Return readable text."""
        meant = f", for project {self.project}" if self.project else ""
        meant += f", group {self.group}" if self.group else ""
        return f"{self.path or 'the environment'} on {self.host}{meant}"
