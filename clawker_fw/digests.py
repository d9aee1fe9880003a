"""SHA-256 digests of files. A process hashes a file again only if it has changed, because Envoy is large."""

import functools
import hashlib
from pathlib import Path

Identity = tuple[int, ...]


def identity(path: Path) -> Identity:
    """Return what differs once a file has been changed or replaced: its device, inode, size and times."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    return _digest(path.resolve(), identity(path))


@functools.lru_cache(maxsize=1024)
def _digest(path: Path, _: Identity) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
