"""Other resolvers than ours: over TLS and over HTTPS, in the internet, at the siblings, and through Envoy."""

from clawker_fw.rules.reasons import Reason
from devkit.attacks.attack import ALLOWED, DIRECT, EVIL, FETCHES, Attack, closed_port, outside, probe
from devkit.attacks.requests import NO_RULE, refused, request
from devkit.dns import query

OVER_TLS = 853
"""The port of DNS over TLS (RFC 7858)."""

_DNS = "dns.test"
_PATH = f"/dns-query?dns={query(EVIL).hex()}"
"""As in RFC 8484, but for the encoding of the question, which is nothing to those who forward it."""


def _outside(what: str, url: str) -> Attack:
    return outside(what, ("get", url, "--connect", "{nameserver}", "--timeout", "1s"))


_UNRULED = "A resolver without a rule, over"
_OVER_HTTPS = ("get", f"https://{_DNS}{_PATH}", *DIRECT)
_OVER_HTTP = request(f"GET {_PATH} HTTP/1.1", f"Host: {_DNS}")

RESOLVERS = (
    _outside("A resolver in the internet, over HTTPS", f"https://{_DNS}{_PATH}"),
    _outside("A resolver in the internet, over HTTP", f"http://{_DNS}{_PATH}"),
    _outside("A resolver in the internet, over TLS", f"https://{_DNS}:{OVER_TLS}/"),
    Attack(f"{_UNRULED} HTTPS through Envoy", _OVER_HTTPS, "closed", Reason.NO_RULE, _DNS, FETCHES),
    refused(f"{_UNRULED} HTTP through Envoy", _OVER_HTTP, *NO_RULE, _DNS),
    *(
        closed_port(what, probe(place), FETCHES)
        for what, place in {
            "A resolver over TLS, at Envoy": f"{{envoy}}:{OVER_TLS}",
            "Our resolver over TLS": f"{{resolver}}:{OVER_TLS}",
            "Our resolver over HTTPS": "{resolver}:443",
        }.items()
    ),
    Attack(
        "A resolver over HTTPS behind an allowed name",
        ("get", f"https://{ALLOWED}{_PATH}", *DIRECT),
        "200",
        control=FETCHES,
        arrives=(_PATH,),
        because="Any host can answer DNS queries. The agent learns addresses that it can't reach.",
    ),
)
