"""The proxy variables of a shell, as the settings that equal them. They have no effect by themselves."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from urllib.parse import urlsplit

from clawker_fw.rules.destination import parse_destination

_PORTS = {"http": 80, "https": 443}


def offer(environment: Mapping[str, str]) -> str:
    """Return a sentence with the settings that equal a shell's variables; "" if they name no HTTP proxy."""
    variables = {name: environment.get(name) or environment.get(name.lower(), "") for name in _VARIABLES}
    variable = next((name for name in _VARIABLES[:2] if variables[name]), "")
    try:
        proxy = urlsplit(variables.get(variable, ""))
        usual = _PORTS[proxy.scheme]
        port = proxy.port or usual
    except (KeyError, ValueError):
        return ""
    settings = {"proxy": f"{proxy.scheme}://{proxy.hostname}:{port}"}
    exempt = list(_exempt(variables["NO_PROXY"]))
    written = json.dumps({**settings, **({"no_proxy": exempt} if exempt else {})})
    password = " Its password belongs into a secret, which `auth` names." if proxy.username else ""
    return (
        f"{variable} is set in this shell, which has no effect on agents. If they can get out only by this proxy, "
        f"write `upstream: {written}`.{password}"
    )


_VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")


def _exempt(text: str) -> Iterator[str]:
    """Yield the names of NO_PROXY, each of which includes the names below it. Addresses are left out."""
    for word in text.replace(",", " ").split():
        with suppress(ValueError):
            name = parse_destination(word.removeprefix("*").removeprefix(".")).name
            if name != "localhost":
                yield f".{name}"
