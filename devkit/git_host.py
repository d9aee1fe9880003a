"""A code host with git repositories over HTTPS: it demands a credential, and runs git itself."""

import os
import subprocess
from pathlib import Path

from devkit.inspecting import Handler, Host, Reached

_END = b"\r\n\r\n"


class _Handler(Handler):
    """Passes requests with the credential to git's own server (git-http-backend(1)), and refuses others."""

    root: Path
    credential: str

    def answer(self) -> None:
        """Keep the request, and answer it."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self._body(headers)
        self.reached.append(Reached(self.command, self.path, headers))
        if headers.get("authorization") != self.credential:
            self.send_response(401)
            self.send_header("www-authenticate", 'Basic realm="git"')
            self._end(b"")
            return
        path, _, query = self.path.partition("?")
        answered = subprocess.run(
            ["git", "http-backend"],
            input=body,
            capture_output=True,
            check=True,
            env={
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(self.root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_CONFIG_NOSYSTEM": "1",
                "HOME": str(self.root),
                "REMOTE_USER": "agent",
                "REQUEST_METHOD": self.command,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_TYPE": headers.get("content-type", ""),
                "HTTP_CONTENT_ENCODING": headers.get("content-encoding", ""),
                "GIT_PROTOCOL": headers.get("git-protocol", ""),
            },
        ).stdout
        head, _, content = answered.partition(_END)
        fields = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self._end(content)

    def _body(self, headers: dict[str, str]) -> bytes:
        """Read the content, which git sends in chunks if it is long (RFC 9112, section 7.1)."""
        if headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(headers.get("content-length", 0)))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _end(self, content: bytes) -> None:
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class GitHost(Host):
    """The host. Repositories are below a folder, as `o/r.git`."""

    def __init__(self, folder: Path, credential: str, *names: str) -> None:
        """Listen. `credential` is the value of the header `Authorization` that it demands."""
        self.root = folder / "repositories"
        self.handler = type("Handler", (_Handler,), {"root": self.root, "credential": credential})
        super().__init__(folder / "tls", *names)

    def repository(self, name: str) -> Path:
        """Make a repository that may be pushed to, with one commit on `main`."""
        bare, work = self.root / f"{name}.git", self.root.parent / "work" / name
        for command in (
            ("init", "--quiet", "--bare", "--initial-branch", "main", bare),
            ("-C", bare, "config", "http.receivepack", "true"),
            ("init", "--quiet", "--initial-branch", "main", work),
            ("-C", work, *_AUTHOR, "commit", "--quiet", "--allow-empty", "--message", "first"),
            ("-C", work, "push", "--quiet", bare, "main"),
        ):
            subprocess.run(["git", *command], check=True, capture_output=True)
        return bare


_AUTHOR = ("-c", "user.name=agent", "-c", "user.email=agent@example.com")
