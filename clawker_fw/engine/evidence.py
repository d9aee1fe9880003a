"""What `fwctl` has read of the programs in containers, so that it need not read it again.

An Envoy with thousands of rules takes half a second to print what it has loaded, and printing is not serving. So
`fwctl` says with each digest in which state of the program it was read (go/internal/serving), is told so the
next time, and reads only what has changed since. It is kept in this process alone, where nobody else can write.
"""

import json


class EvidenceStore:
    """The newest evidence of each container. It may be used from several threads."""

    def __init__(self) -> None:
        """Know nothing."""
        self._known: dict[str, str] = {}

    def arguments(self, container: str) -> list[str]:
        """Return the arguments by which a probe is told what is known of a container, if anything is."""
        known = self._known.get(container)
        return [f"known={known}"] if known else []

    def keep(self, container: str, answer: object) -> None:
        """Keep the evidence in an answer of `fwctl`, if there is any. An earlier release's has none."""
        evidence = answer.get("evidence") if isinstance(answer, dict) else None
        if evidence:
            self._known[container] = json.dumps(evidence, separators=(",", ":"))
