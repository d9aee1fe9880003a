"""The checks of `doctor` that ask the upstream proxy, from the source address that leads to it."""

from collections.abc import Iterable, Iterator, Mapping

from clawker_fw.diagnose.diagnosis import Check, CheckHealth
from clawker_fw.diagnose.explaining import address_of_host
from clawker_fw.engine.port import EngineReader
from clawker_fw.fwctl import HelperReader
from clawker_fw.model.stacks import Sibling
from clawker_fw.model.trials import ProxyAnswer
from clawker_fw.reconcile.pipeline import Comparison
from clawker_fw.rules.paths import Form
from clawker_fw.rules.rule import HOST, Protocol
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.rules.upstream import Proxy
from clawker_fw.settings.shell_proxy import offer

_NAME, _GUARDS = "upstream-proxy", "upstream-proxy-guards"
_MOST_TARGETS = 5
_CLOSED = ("169.254.169.254:443", "127.0.0.1:443")
"""Places to which no proxy should lead: a cloud's metadata service, and the proxy's own machine."""

_CONNECTED, _WANTS_CREDENTIALS = 200, 407


def checks(reader: EngineReader, comparison: Comparison, environment: Mapping[str, str]) -> Iterator[Check]:
    """Yield whether the proxy connects to a host per port of the rules, and to nothing that it should not."""
    proxy = comparison.blueprint.rules.proxy
    if proxy is None:
        if sentence := offer(environment):
            yield Check(_NAME, CheckHealth.WARNING, sentence)
        return
    envoy = comparison.observed.siblings.get(Sibling.ENVOY)
    if envoy is None or not envoy.container.running:
        yield Check(_NAME, CheckHealth.SKIPPED, "Envoy does not run.")
        return
    targets = _targets(comparison.blueprint.rules)
    asked = (*targets, *_CLOSED)
    answers = HelperReader(reader, envoy.container.id).try_proxy(_question(comparison, proxy, asked))
    by_target = dict(zip(asked, answers, strict=True))
    closed = {target: by_target[target] for target in _CLOSED}
    allowed = {target: by_target[target] for target in targets}
    yield _of_rules(proxy, allowed or closed, named=bool(allowed))
    if opened := [target for target, answer in closed.items() if answer.status == _CONNECTED]:
        sentence = f"The proxy {proxy} connects to {' and '.join(opened)}, so it guards nothing."
        yield Check(_GUARDS, CheckHealth.WARNING, sentence, "Agents reach any address that an allowed name has.")


def _question(comparison: Comparison, proxy: Proxy, targets: Iterable[str]) -> dict[str, object]:
    vault, secrets = comparison.blueprint.vault, comparison.blueprint.wanted
    values = vault.values(secrets) if vault and proxy.auth else {}
    secret = values.get(f"{proxy.auth}#{Form.PROXY}")
    credentials = f"Proxy-Authorization: {secret}\r\n" if secret else ""
    host = address_of_host(comparison.observed) if proxy.host == HOST else proxy.host
    return {
        "proxy": f"{host}:{proxy.port}",
        "tls": proxy.tls,
        "roots": comparison.blueprint.proxy_authorities.decode(),
        "requests": [f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{credentials}\r\n" for target in targets],
    }


def _targets(rules: RuleSet) -> list[str]:
    """Return a host for each of the first ports of rules that need CONNECT."""
    by_port: dict[int, str] = {}
    for rule in rules.rules:
        if rule.proxied and rule.port and not rule.destination.subtree and rule.transport is not Protocol.HTTP:
            by_port.setdefault(rule.port, f"{rule.host or rule.destination.name}:{rule.port}")
    return list(by_port.values())[:_MOST_TARGETS]


def _of_rules(proxy: Proxy, by_target: Mapping[str, ProxyAnswer], *, named: bool) -> Check:
    """Return the check of the answers. Without a `named` host of a rule, any answer shows that the proxy works."""
    answers = tuple(by_target.values())
    if all(not answer.status for answer in answers):
        advice = "Check `upstream.proxy` and `upstream.ca_file`, and the way of the Docker host to the proxy."
        return Check(_NAME, CheckHealth.FAILED, f"The proxy {proxy} gives no answer: {answers[0].error}.", advice)
    if any(answer.status == _WANTS_CREDENTIALS for answer in answers):
        demanded = next(answer.challenges for answer in answers if answer.status == _WANTS_CREDENTIALS)
        advice = "Renew the secret of `upstream.auth`, then run `clawker-fw reload`."
        if "basic" not in demanded.lower():
            advice = (
                "Envoy can send only user and password (Basic). Run a helper such as cntlm or px on the Docker "
                "host, and write `proxy: http://host:PORT`."
            )
        sentence = f"The proxy {proxy} demands other credentials: {demanded or 'it does not say which'}."
        return Check(_NAME, CheckHealth.FAILED, sentence, advice)
    shown = ", ".join(
        f"{target} {answer.status or answer.error} in {answer.seconds:.2f} s"
        for target, answer in by_target.items()
    )
    if named and any(answer.status != _CONNECTED for answer in answers):
        advice = "Ask the proxy's administrator to allow these hosts and ports."
        return Check(_NAME, CheckHealth.WARNING, f"The proxy {proxy} does not connect to all: {shown}.", advice)
    return Check(_NAME, CheckHealth.OK, f"The proxy {proxy} answers: {shown}.")
