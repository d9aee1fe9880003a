"""A real rootless Docker engine (Debian's docker.io with rootlesskit), run by the user `nobody`."""

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devkit.engines import PATH, install, install_engine
from devkit.starting import pings, running

_SCRIPT = "/usr/share/docker.io/contrib/dockerd-rootless.sh"

# In its own mount and process namespaces, so that the machine's subordinate ids and tun device don't change, and
# that killing process 1 ends everything.
_START = """
mount --bind "$FOLDER/tun" /dev/net/tun
mount --bind "$FOLDER/ids" /etc/subuid
mount --bind "$FOLDER/ids" /etc/subgid
setpriv --reuid=nobody --regid=nogroup --clear-groups "$0" "$@"
:                                   # without it the shell would become its last command
"""


@contextmanager
def rootless_engine() -> Iterator[str]:
    """Yield the address of a rootless engine that ends afterwards."""
    install_engine()
    install({"rootlesskit": "rootlesskit", "slirp4netns": "slirp4netns", "newuidmap": "uidmap"})
    # not the default folder for temporary files, which other users may not read
    folder = Path(tempfile.mkdtemp(prefix="rootless-", dir="/var/tmp"))
    socket = folder / "docker.sock"
    try:
        _prepare(folder)
        homes = {"HOME": "home", "XDG_RUNTIME_DIR": "run", "TMPDIR": "run"}
        environment = {"PATH": PATH, "FOLDER": str(folder)} | {key: f"{folder}/{homes[key]}" for key in homes}
        apart = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
        command = [*apart, "sh", "-ec", _START, _SCRIPT, "--host", f"unix://{socket}"]
        log = folder / "log"
        with running(command, log, lambda: pings(socket), variables=environment, end=signal.SIGKILL):
            yield f"unix://{socket}"
    finally:
        shutil.rmtree(folder)


def _prepare(folder: Path) -> None:
    folder.chmod(0o755)
    (folder / "ids").write_text("nobody:100000:65536\n")
    subprocess.run(["mknod", "--mode=666", str(folder / "tun"), "c", "10", "200"], check=True)
    for name in ("home", "run"):
        (folder / name).mkdir()
    for path in (folder, folder / "home", folder / "run"):
        shutil.chown(path, "nobody", "nogroup")
