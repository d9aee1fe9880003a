"""The HTTP proxy of a network without another way out: which rules go through it, and what it can't carry."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from clawker_fw.rules.destination import Destination
from clawker_fw.rules.rule import Protocol, Rule, RuleAction


@dataclass(frozen=True, slots=True)
class Proxy:
    """The proxy. `host` is a name, an IPv4 address, or `rule.HOST`, the Docker host.

    `auth` names the secret with its user and password, or is empty. Names in `no_proxy` are reached directly.
    `connect_ports` are the ports to which it lets clients CONNECT.
    """

    host: str
    port: int
    tls: bool = False
    auth: str = ""
    no_proxy: tuple[Destination, ...] = ()
    connect_ports: tuple[int, ...] = ()

    def __str__(self) -> str:
        """Return `proxy.corp.example:3128`."""
        return f"{self.host}:{self.port}"

    def exemption(self, rule: Rule) -> Destination | None:
        """Return the entry of `no_proxy` that covers a rule's names, or None."""
        return next((entry for entry in self.no_proxy if _covers(entry, rule.destination)), None)

    def carries(self, rule: Rule) -> bool:
        """Whether a rule's hosts are reached through the proxy. The Docker host never is."""
        return not rule.denies and not rule.at_machine and self.exemption(rule) is None

    def closed(self) -> tuple[Rule, ...]:
        """Return deny rules for the names in `no_proxy`, which observing leaves closed."""
        return tuple(Rule(entry, None, None, action=RuleAction.DENY) for entry in self.no_proxy)

    def refused_ports(self, rule: Rule) -> tuple[int, ...]:
        """Return the rule's ports that the proxy probably refuses. Plain HTTP needs no CONNECT."""
        if not rule.proxied or rule.transport is Protocol.HTTP:
            return ()
        return tuple(port for port in rule.ports if port not in self.connect_ports)


def objections(proxy: Proxy, rules: Collection[Rule]) -> Iterator[str]:
    """Yield a sentence for each of these `proxied` rules that the proxy can't carry."""
    for rule in rules:
        if not rule.proxied:
            continue
        directly = f"add `{rule.destination}` to `upstream.no_proxy`"
        if rule.protocol is Protocol.UDP:
            yield f"{rule}{rule.located} can't pass an HTTP proxy; to reach the host directly, {directly}"
        elif rule.allow_private:
            yield (
                f"{rule}{rule.located} has `allow_private`, but the proxy looks the name up and decides; to reach "
                f"the host directly, {directly}"
            )
    for entry in proxy.no_proxy:
        covering = [rule for rule in rules if rule.destination.subtree and _covers(rule.destination, entry)]
        for rule in covering:
            nearer = [other for other in rules if _covers(rule.destination, other.destination, strictly=True)]
            nearer = [other for other in nearer if _covers(other.destination, entry)]
            if rule.proxied and not all(any(other.matches(*key) for other in nearer) for key in rule.keys):
                yield (
                    f"{rule}{rule.located} goes through the proxy, but includes `{entry}` of `upstream.no_proxy`; "
                    f"add a rule for `{entry}` with the same protocol and port"
                )


def _covers(one: Destination, other: Destination, *, strictly: bool = False) -> bool:
    if one == other:
        return not strictly
    below = other.name == one.name or other.name.endswith(f".{one.name}") or not one.name
    return one.subtree and below
