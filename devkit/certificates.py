"""Certificates for an engine with TLS and its clients, made with openssl.

They have the extensions that those have which are made as https://docs.docker.com/engine/security/protect-access/
says, and no others: no key usage, and identifiers of keys only in that of the CA.
"""

import subprocess
from pathlib import Path

from devkit.engines import install

_CONFIG = "[req]\ndistinguished_name = name\n[name]\n"
_AUTHORITY = ("basicConstraints=critical,CA:true", "subjectKeyIdentifier=hash", "authorityKeyIdentifier=keyid")
_UNIDENTIFIED = ("subjectKeyIdentifier=none", "authorityKeyIdentifier=none")
_ENGINE = ("extendedKeyUsage=serverAuth", "subjectAltName=IP:127.0.0.1", *_UNIDENTIFIED)
_CLIENT = ("extendedKeyUsage=clientAuth", *_UNIDENTIFIED)


def certify(folder: Path) -> tuple[Path, Path]:
    """Make a CA and certificates; return the engine's and the client's folder (`ca.pem cert.pem key.pem`)."""
    install({"openssl": "openssl"})
    authority, engine, client = (folder / name for name in ("authority", "engine", "client"))
    make(authority, _AUTHORITY)
    signed = ("-CA", str(authority / "cert.pem"), "-CAkey", str(authority / "key.pem"))
    for made, extensions in ((engine, _ENGINE), (client, _CLIENT)):
        make(made, extensions, *signed)
        (made / "ca.pem").write_bytes((authority / "cert.pem").read_bytes())
    return engine, client


def make(folder: Path, extensions: tuple[str, ...], *signed: str) -> None:
    """Make `cert.pem` and `key.pem` in a new folder, signed by an authority or by itself."""
    folder.mkdir(parents=True)
    config = folder / "openssl.cnf"
    config.write_text(_CONFIG)
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(folder / "key.pem"))
    added = [word for each in extensions for word in ("-addext", each)]
    what = ("-days", "2", "-subj", f"/CN={folder.name}", "-out", str(folder / "cert.pem"))
    subprocess.run(
        ["openssl", "req", "-x509", "-config", str(config), *key, *added, *signed, *what],
        check=True,
        capture_output=True,
    )
