"""Pairs of a key and a certificate, in files that only the user can read (`private_files`)."""

from pathlib import Path

from clawker_fw.certificates.credentials import Pair
from clawker_fw.private_files import write_private


def keep_pair(folder: Path, name: str, pair: Pair) -> None:
    """Write a pair, the key first: a run that dies in between leaves a pair that does not fit.

    Raises:
        OSError: when it can't be written.
    """
    write_private(folder / f"{name}.key", pair.key)
    write_private(folder / f"{name}.crt", pair.certificate)


def read_pair(folder: Path, name: str) -> Pair:
    """Read a pair.

    Raises:
        OSError: when it can't be read.
    """
    return Pair((folder / f"{name}.crt").read_bytes(), (folder / f"{name}.key").read_bytes())
