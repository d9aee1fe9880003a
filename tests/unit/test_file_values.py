"""The values that a finding shows for two files that differ."""

from dataclasses import replace

import pytest

from clawker_fw.model import File
from clawker_fw.reconcile.compare.sibling import contents, value_pair
from clawker_fw.stack.files import public, secret
from clawker_fw.stack.labels import digest

A, B = public(b"a"), public(b"b")
KEY = secret(b"key")
HIDDEN = ("another content", "this content")
DIGESTS = (digest(b"a"), digest(b"b"))


@pytest.mark.parametrize(
    ("running", "desired", "values", "shown"),
    [
        (A, B, DIGESTS, (b"a", b"b")),
        (None, B, (None, DIGESTS[1]), (b"", b"b")),
        (A, None, (DIGESTS[0], None), (b"a", b"")),
        (replace(A, mode=0o666), A, ("mode 0666", "mode 0644"), None),
        (replace(A, owner=(65532, 0)), A, ("owner 65532:0", "owner 0:0"), None),
        (replace(A, mode=0o666), B, (f"{DIGESTS[0]}, mode 0666", f"{DIGESTS[1]}, mode 0644"), (b"a", b"b")),
        (KEY.saying(b"other"), KEY, HIDDEN, None),
        (
            A,
            KEY.saying(b"b"),
            (f"{HIDDEN[0]}, mode 0644, owner 0:0", f"{HIDDEN[1]}, mode 0440, owner 65532:65532"),
            None,
        ),
        (None, KEY, (None, "a secret"), None),
        (KEY, None, ("a secret", None), None),
    ],
)
def test_shown_values(
    running: File | None, desired: File | None, values: tuple[str, str], shown: tuple[bytes, bytes] | None
) -> None:
    """Values show only the differing properties, a digest unless it is a secret, and a diff if there is one."""
    assert value_pair(running, desired) == values
    assert contents(running, desired) == shown
