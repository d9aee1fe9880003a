"""The real Envoy on loopback that puts secrets into requests, which it gets from the real signer."""

import json
from collections.abc import Mapping
from pathlib import Path

from clawker_fw.rules.policy import Policy
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.stack.envoy import tls_interception
from clawker_fw.stack.envoy.messages import Json
from clawker_fw.stack.release import Release
from devkit.envoy import program
from devkit.inspecting import Inspecting
from devkit.signer import Signer
from devkit.starting import exchange


class Injecting(Inspecting):
    """The proxy, with a signer that has secrets."""

    signer: Signer

    def __init__(
        self,
        folder: Path,
        release: Release,
        names: int,
        own: tuple[Path, Path],
        trusted: Path,
        *,
        first: RuleSet,
        **headers: str,
    ) -> None:
        """Start both with the first rules: Envoy asks for the secrets of its first table, and no others later.

        `headers` are those of the secrets, by name.
        """
        self._headers, self.first = headers, first
        (folder / "signing").mkdir()
        self.signer = Signer(folder / "signing")
        self.signer.give((), (), ["a.test"])
        self.signer.start()
        super().__init__(folder, program(release), names, own, trusted)

    def table(self, policy: Policy) -> Json:
        """Return the table, with headers of secrets."""
        return tls_interception.table(policy, self._headers)

    def give(self, given: Mapping[str, str]) -> None:
        """Give all secrets."""
        sent = json.dumps({"key": "A" * 43 + "=", "give": dict(given)}).encode()
        answer = json.loads(exchange(self.signer.at / "secrets", sent))
        if answer["secrets"].keys() != given.keys():
            raise AssertionError(answer)
