"""diff: compare what runs in a sibling's container, and what agents see of it, with what should. Pure."""

from collections.abc import Iterator

from clawker_fw.model import Action, Cause, Finding, Layer, Sibling
from clawker_fw.reconcile.compare.container import SiblingComparison
from clawker_fw.reconcile.compare.files import last_commit
from clawker_fw.stack.container import EYE, program_of
from clawker_fw.stack.envoy import signing

ANSWER = "answer"
"""The field of the live layer that reports a running program which does not answer: what is live is unknown."""

SIGNER = "signer"
"""The field of the live layer that reports a signer which does not answer: new names get no certificate."""

SECRETS = "secrets"
"""The fields of the live layer that report secrets for requests begin with it."""

AGENTS_SEE = "agents_see"
"""The field of the live layer that reports what agents see of a sibling, and should not."""


class LiveComparison(SiblingComparison):
    """The running program, its network and processes."""

    def unexplained(self) -> Iterator[Finding]:
        """Yield what is wrong with a sibling that has no other finding."""
        problem = self._seen.probe.unhealthy if self._seen.probe else ""
        # The engine's status is outdated after an unpause, so the sibling itself has to report a problem as well.
        healthy = self._answers and not problem
        if self._container.running and self._container.health == "unhealthy" and not healthy:
            seen = f"unhealthy: {problem}" if problem else "unhealthy"
            yield self._finding(Layer.STATE, "health", seen, "healthy", made=False, action=Action.REPLACE)
        yield from self._as_agents_see()

    def _as_agents_see(self) -> Iterator[Finding]:
        """Report what agents see of a sibling that is right in every other way.

        CoreDNS looks on their behalf. If its network differs, or it was told other addresses, the result says
        nothing about Envoy. What drops their packets on the engine's machine would drop those to another Envoy.
        """
        eye = self._observed.siblings.get(Sibling.COREDNS)
        wanted = self._desired.siblings[Sibling.COREDNS].hot.get(EYE)
        if eye is None or eye.probe is None or eye.probe.network or eye.files.get(EYE) != wanted:
            return
        name = self._wanted.sibling.value
        seen, dropped = eye.probe.agents_see.get(name), name in eye.probe.dropped
        if seen:
            action, reason = (Action.NONE, Cause.MACHINE) if dropped else (Action.REPLACE, None)
            yield self._finding(
                Layer.LIVE, AGENTS_SEE, seen, (), made=reason is not None, reason=reason, action=action
            )

    def findings(self) -> Iterator[Finding]:
        """Yield the differences that the probe shows."""
        probe = self._seen.probe
        if probe is None and not self._container.running:
            return
        if probe is None or probe.error:
            silence = probe.error if probe else "it was not checked"
            yield self._finding(Layer.LIVE, ANSWER, silence, "an answer", made=False, action=Action.REPLACE)
            if probe and probe.network:  # this may be why the program can't be reached
                yield self._surroundings("network", probe.network, ())
            return
        if probe.signer:
            yield self._finding(Layer.LIVE, SIGNER, probe.signer, "an answer", made=False, action=Action.REPLACE)
        for each in self._seen.secrets:
            yield self._finding(
                Layer.LIVE,
                f"{SECRETS}.{each.identity}",
                each.running,
                each.desired,
                made=True,
                reason=Cause.SETTINGS,
                action=Action.GIVE if each.loaded else Action.REPLACE,
            )
        committed = last_commit(self._seen.files).live
        unknown = signing.SIGNED if probe.signer else ()
        for resource, wanted_digest in self._wanted.live.items():
            digest = probe.live.get(resource)
            if digest != wanted_digest and resource not in unknown:
                yield self._finding(
                    Layer.LIVE,
                    resource,
                    digest and f"sha256:{digest}",
                    f"sha256:{wanted_digest}",
                    made=self._made(digest, committed.get(resource)),
                    action=Action.COMMIT,
                )
        for field, running, wanted in (
            ("network", probe.network, ()),
            ("engine_files", probe.engine_files, ()),
            ("processes", probe.processes, ()),
            ("program", probe.program, program_of(self._container.shape)),
        ):
            if running != wanted:
                yield self._surroundings(field, running, wanted)

    def _surroundings(self, field: str, running: tuple[str, ...], wanted: tuple[str, ...]) -> Finding:
        lost = field == "network" and self._taken_off
        action = Action.REATTACH if lost else Action.REPLACE
        return self._finding(Layer.LIVE, field, running, wanted, made=False, action=action)
