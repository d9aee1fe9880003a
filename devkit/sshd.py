"""A real sshd (Debian's openssh-server) on loopback, and an `ssh` configured for it, separate from the user's."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devkit.engines import PATH, install, install_client
from devkit.programs import free_port
from devkit.starting import running

_SERVER = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
PidFile none
AuthorizedKeysFile {folder}/user.pub
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxSessions 64
SetEnv DOCKER_HOST={engine} PATH={path} HOME={folder}
"""

# With the default limit of 10 sessions, a busy machine sometimes needs a second login, and tests count logins.
# A shell reads the start files of its home for each command: the user's own may take longer than all the rest.

_CLIENT = """\
IdentityFile {folder}/user
IdentitiesOnly yes
UserKnownHostsFile {folder}/known
GlobalKnownHostsFile /dev/null
StrictHostKeyChecking yes
"""

# sshd needs this folder, which does not exist without its service. The machine's own is not changed.
_START = 'mount -t tmpfs tmpfs /run && mkdir /run/sshd && exec "$0" "$@"'


@dataclass(frozen=True)
class Door:
    """An engine over ssh: its address, and the environment variables that select the right `ssh`."""

    address: str
    variables: Mapping[str, str]
    log: Path

    def logins(self) -> int:
        return self.log.read_text().count("Accepted publickey")


@contextmanager
def sshd(engine: str, folder: Path, path: str = PATH) -> Iterator[Door]:
    """Yield an engine over ssh, which ends afterwards. `path` is the PATH on the remote side."""
    install_client()
    install({"sshd": "openssh-server", "ssh": "openssh-client"})
    port = free_port()
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True, timeout=60
        )
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "server").write_text(_SERVER.format(port=port, folder=folder, engine=engine, path=path))
    (folder / "client").write_text(_CLIENT.format(folder=folder))
    variables = {"PATH": f"{_ssh(folder)}:{PATH}"}
    daemon = [str(shutil.which("sshd", path=PATH)), "-D", "-e", "-f", str(folder / "server")]
    log = folder / "log"
    command = ["unshare", "--mount", "sh", "-c", _START, *daemon]
    with running(command, log, lambda: b"Server listening" in log.read_bytes()):
        yield Door(f"ssh://root@127.0.0.1:{port}", variables, log)


def _ssh(folder: Path) -> Path:
    """Make a folder with an `ssh` that reads our configuration, because ssh does not respect HOME."""
    wrapper = folder / "bin" / "ssh"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh", path=PATH)} -F {folder}/client "$@"\n')
    wrapper.chmod(0o755)
    return wrapper.parent
