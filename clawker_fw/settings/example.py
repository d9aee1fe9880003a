"""The commented settings file that `init` writes."""

from collections.abc import Callable, Sequence
from pathlib import Path

from clawker_fw.errors import RefusedError, unwritable_settings
from clawker_fw.private_files import write_private
from clawker_fw.rendering import render
from clawker_fw.settings.files import resolved


def example(presets: Sequence[str] = ()) -> str:
    """Return the text of that file, with the names of these presets."""
    return render("clawker-fw.yaml.j2", presets=presets)


def write_example(path: Path, choose: Callable[[], Sequence[str]] = tuple, *, overwrite: bool) -> Sequence[str]:
    """Write the file atomically, through symlinks. Return its presets, from `choose` once it may be written.

    Raises:
        RefusedError: when the file exists and `overwrite` is false, or is a device or a pipe.
        SettingsError: when it can't be written.
    """
    target = resolved(path)
    try:
        if target.exists() and not (overwrite and target.is_file()):
            hint = "Use --force to overwrite it." if target.is_file() else "It is not a file: name another path."
            raise RefusedError("settings-exist", f"{path} already exists.", hint=hint)
        presets = list(dict.fromkeys(choose()))
        text = example(presets)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_private(target, text.encode(), 0o666)
    except OSError as error:
        raise unwritable_settings(path, error) from error
    return presets
