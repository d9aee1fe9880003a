"""A cache of files' SHA-256 digests, because hashing Envoy takes 0.1 s, and of other results that take as long.

A file is hashed again if its size, times, inode or device differ. A file that changed within the last two seconds
is not cached, because its times could be equal after another change. An unusable cache is ignored.
"""

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import platformdirs

_SETTLED_AFTER = 2_000_000_000


class Digests:
    """The cache, in the user's cache folder. As a context manager, it is written back at the end."""

    def __init__(self, path: Path | None = None) -> None:
        """Read the cache. An unreadable one counts as empty."""
        self.path = path or platformdirs.user_cache_path("clawker-fw") / "digests.json"
        self._known = _read(self.path)
        self._changed = False

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Write new entries."""
        if not self._changed:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fresh = self.path.with_name(f"{self.path.name}.{os.getpid()}")
            fresh.write_text(json.dumps(self._known.copy()))  # another thread may go on with it
            fresh.replace(self.path)
        except OSError:
            return

    def forget(self) -> None:
        """Remove the cache, and its folder if it is empty then."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
            self.path.parent.rmdir()

    def of(self, path: Path) -> str:
        """Return the SHA-256 of a file's content, in hexadecimal."""
        status = path.stat()
        key = str(path)
        identity = [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        known = self._known.get(key)
        if isinstance(known, list) and known[:-1] == identity:
            return str(known[-1])
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _SETTLED_AFTER:
            self.remember(key, [*identity, digest])
        return digest

    def recall(self, key: str) -> str | None:
        """Return the text stored under a key that identifies the content."""
        value = self._known.get(key)
        return value if isinstance(value, str) else None

    def remember(self, key: str, value: object, most: int = 0) -> None:
        """Store a value under a key. With `most`, that many are kept whose keys begin with the same word."""
        self._known[key] = value
        if most:
            kind = f"{key.partition(' ')[0]} "
            for former in [each for each in self._known if each.startswith(kind)][:-most]:
                del self._known[former]
        self._changed = True


def _read(path: Path) -> dict[str, object]:
    try:
        known = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
