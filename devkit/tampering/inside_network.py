"""Tampering with the network namespace of a running container, and the files that the engine gives it."""

from devkit.tampering.way import COREDNS, ENVOY, Inside, Sign, Tampering

_NETWORK = "network namespace"
_TAKEN_AWAY = "taken out of the network namespace"
"""These take away what others change."""


_WAY_OUT = "set -- $(ip route show default); gateway=$3 interface=$5; "
_DIVERT = "OUTPUT -p tcp --dport 443 -j DNAT --to-destination 203.0.113.66"
_DROP = "INPUT -p tcp --dport 443 -j DROP"

REDIRECT_REMOVED = """
if nft list table ip docker-dns; then nft flush table ip docker-dns
else for filter in nft legacy; do iptables-$filter -t nat -F; done
fi
"""
"""The script that removes the engine's redirect of DNS to its resolver, whichever firewall backend it has."""


def _inside(sibling: str, what: str, script: str, says: str, beside: str = _NETWORK) -> Tampering:
    sign = Sign(sibling, "live", "network", "replace", says=says)
    return Tampering(what, Inside(sibling, script), (sign,), beside)


_SCRIPTS = {
    ENVOY: {
        "IP forwarding is enabled in envoy's network namespace": (
            "echo 1 >/proc/sys/net/ipv4/ip_forward",
            "eth0.forwarding is 1",
        ),
        "an nftables rule in envoy drops packets from agents": (
            f"iptables-nft -I {_DROP}",
            "nftables rule ip filter INPUT 1 is not ours",
        ),
        "a legacy iptables rule in envoy drops packets from agents": (
            f"iptables-legacy -I {_DROP}",
            "iptables table ip filter is not ours",
        ),
        "an nftables rule in envoy redirects upstream connections": (
            f"iptables-nft -t nat -I {_DIVERT}",
            "nftables rule ip nat OUTPUT 1 is not ours",
        ),
        "a legacy iptables rule in envoy redirects upstream connections": (
            f"iptables-legacy -t nat -I {_DIVERT}",
            "iptables table ip nat is not ours",
        ),
        "the limit of connections is bypassed in envoy": (
            "nft insert rule ip clawker-fw opening accept",
            "nftables rule ip clawker-fw opening 1 is not ours",
        ),
        "half closed connections are forgotten sooner in envoy": (
            "echo 5 >/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait",
            "half closed connections are counted for 5 s",
        ),
        "packet filter rules in envoy redirect DNS queries to another resolver": (
            (
                "for filter in nft legacy; do iptables-$filter -t nat -I OUTPUT -d 127.0.0.11 -p udp --dport 53 "
                "-j DNAT --to-destination 203.0.113.66:53; done"
            ),
            "nftables rule ip nat OUTPUT 2 is not ours",
        ),
        "a further route is added to envoy's main routing table": (
            _WAY_OUT + "ip route add 198.51.100.0/24 via $gateway",
            "route 198.51.100.0/24 via",
        ),
        "a static neighbour entry with another MAC address is set for envoy's gateway": (
            _WAY_OUT + "ip neighbour replace $gateway lladdr 02:00:00:00:00:66 nud permanent dev $interface",
            "neighbour",
        ),
        "envoy's egress interface is throttled": (
            _WAY_OUT + "tc qdisc add dev $interface root tbf rate 8kbit burst 1600 latency 1s",
            "queue tbf on",
        ),
        "a further network interface is added in envoy": (
            "ip link add extra type veth peer name further; ip link set extra up",
            "interface extra is not ours",
        ),
        "an IPsec policy in envoy blocks packets from agents": (
            "ip xfrm policy add dir in src 10.66.0.0/16 action block",
            "IPsec policy 10.66.0.0/16",
        ),
    },
    COREDNS: {
        "ARP answers are disabled on coredns' interface": (
            "echo 8 >/proc/sys/net/ipv4/conf/eth0/arp_ignore",
            "eth0.arp_ignore is 8",
        ),
        "the limit of queries is raised in coredns": (
            (
                "nft 'flush chain ip clawker-fw asking; "
                "add rule ip clawker-fw asking update @queries { ip saddr limit rate 1000000/second } return; "
                "add rule ip clawker-fw asking drop'"
            ),
            "nftables rule ip clawker-fw asking 1 is not ours",
        ),
        "a further routing rule and table are added in coredns": (
            "ip rule add priority 32000 lookup 7; ip route add blackhole 10.0.0.0/8 table 7",
            "rule 32000: from all lookup 7",
        ),
        "a further address is added to coredns' interface": (
            "ip address add 10.66.0.1/32 dev eth0",
            "address 10.66.0.1/32",
        ),
    },
}
"""What is done in the network namespace of each sibling: a script, and a part of what `drift` then says."""

_NO_REDIRECT = "the engine's packet filter rules for its resolver are removed in envoy"
_NO_ROUTE = "the default route is removed from envoy's main routing table"

NETWORK_NAMESPACE = (
    *(
        _inside(sibling, what, script, says)
        for sibling, scripts in _SCRIPTS.items()
        for what, (script, says) in scripts.items()
    ),
    Tampering(
        "the nftables input policy in coredns is set to drop",
        Inside(COREDNS, "iptables-nft -P INPUT DROP"),
        (
            Sign(COREDNS, "live", "network", "replace", says="nftables chain ip filter INPUT is not ours"),
            Sign(COREDNS, "live", "answer", "replace"),
        ),
        _TAKEN_AWAY,
    ),
    _inside(
        ENVOY,
        "the limits of agents are removed in envoy",
        "nft delete table ip clawker-fw",
        "nftables table ip clawker-fw is missing",
        _TAKEN_AWAY,
    ),
    _inside(ENVOY, _NO_REDIRECT, REDIRECT_REMOVED, "tables ", ""),
    _inside(ENVOY, _NO_ROUTE, "ip route del default", "route default via", _TAKEN_AWAY),
)


def _mounted(sibling: str, what: str, file: str, line: str) -> Tampering:
    sign = Sign(sibling, "live", "engine_files", "replace", says=f"{line} is not ours")
    return Tampering(what, lambda hand: hand.append(sibling, file, line), (sign,), _NETWORK)


MOUNTED_FILES = (
    _mounted(ENVOY, "a name is added to envoy's /etc/hosts", "HostsPath", "192.0.2.1 a.test"),
    _mounted(
        ENVOY, "a search domain is added to envoy's /etc/resolv.conf", "ResolvConfPath", "search example.com"
    ),
    _mounted(COREDNS, "a line is added to coredns' /etc/hostname", "HostnamePath", "example.com"),
)
