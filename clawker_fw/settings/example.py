"""The commented settings file that `init` writes."""

from pathlib import Path

from clawker_fw.errors import RefusedError, unwritable_settings
from clawker_fw.private_files import replace_durably


def example() -> str:
    """Return the commented settings file that `init` writes."""
    return Path(__file__).with_name("example.yaml").read_text(encoding="utf-8")


def write_example(path: Path, *, overwrite: bool) -> Path:
    """Write the commented settings file atomically.

    Raises:
        RefusedError: when the file exists and `overwrite` is false.
        SettingsError: when it can't be written.
    """
    try:
        if path.exists() and not overwrite:
            raise RefusedError("settings-exist", f"{path} already exists.", hint="Use --force to overwrite it.")
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_durably(path, example().encode())
    except OSError as error:
        raise unwritable_settings(path, error) from error
    return path
