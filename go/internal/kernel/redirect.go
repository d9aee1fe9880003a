package kernel

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The engine leads what is sent to its embedded resolver to the two random ports on which it listens in this namespace.
// Depending on its firewall backend, it does so with chains of iptables or with an nftables table. Each is known rule by
// rule, so that one more, one less or another one is a difference.

// redirects are the rules with which a backend leads one protocol to the resolver: first those in which the port is
// chosen. PLACE is the resolver's address.
var redirects = [][]string{
	{
		"ip nat DOCKER_OUTPUT: protocol PROTOCOL, to PLACE, to port 53, dnat to PLACE:PORT",
		"ip nat DOCKER_POSTROUTING: from PLACE, from port PORT, protocol PROTOCOL, snat to :53",
		"ip nat OUTPUT: to PLACE, jump DOCKER_OUTPUT",
		"ip nat POSTROUTING: to PLACE, jump DOCKER_POSTROUTING",
	},
	{
		"ip docker-dns dns-dnat: protocol PROTOCOL, to PLACE, to port 53, dnat to PLACE:PORT",
		"ip docker-dns dns-snat: from PLACE, from port PORT, protocol PROTOCOL, snat to :53",
	},
}

// redirectHooks says where the kernel calls the chains of an nftables redirect. At another hook, it would lead nothing.
var redirectHooks = map[string]string{
	"ip nat OUTPUT":          describeHook("nat", unix.NF_INET_LOCAL_OUT, -100),
	"ip nat POSTROUTING":     describeHook("nat", unix.NF_INET_POST_ROUTING, 100),
	"ip docker-dns dns-dnat": describeHook("nat", unix.NF_INET_LOCAL_OUT, -100),
	"ip docker-dns dns-snat": describeHook("nat", unix.NF_INET_POST_ROUTING, 100),
}

func describeHook(kind string, hook, priority int) string {
	return fmt.Sprintf("for %s at hook %d, priority %d", kind, hook, priority)
}

// redirectDifferences finds rules that do not belong to the engine's redirect, and missing ones. Without a resolver,
// every rule is a difference.
func redirectDifferences(resolver *netip.Addr, found []filterRule) []string {
	texts := make([]string, 0, len(found))
	for _, rule := range found {
		texts = append(texts, rule.text())
	}
	var differences []string
	known := map[string]bool{}
	if resolver != nil {
		for _, protocol := range []string{"tcp", "udp"} {
			if !isLed(protocol, resolver.String(), texts, known) {
				differences = append(differences, fmt.Sprintf("the rule that leads %s to the engine's resolver is missing", protocol))
			}
		}
	}
	for index, rule := range found {
		if !known[texts[index]] {
			differences = append(differences, fmt.Sprintf("%s is not ours", rule))
		}
	}
	return differences
}

// isLed reports whether a protocol is led to the resolver by all the rules of a backend, and notes those that are there.
// Rules with another port than that of the first one, which decides, are not noted.
func isLed(protocol, resolver string, texts []string, known map[string]bool) bool {
	led := false
	for _, redirect := range redirects {
		rules := strings.NewReplacer("PROTOCOL", protocol, "PLACE", resolver).Replace(strings.Join(redirect, "\n"))
		first, _, _ := strings.Cut(regexp.QuoteMeta(rules), "\n")
		chosen := regexp.MustCompile("^" + strings.Replace(first, "PORT", `(\d+)`, 1) + "$")
		port := "PORT"
		for _, text := range texts {
			if match := chosen.FindStringSubmatch(text); match != nil {
				port = match[1]
				break
			}
		}
		complete := true
		for _, rule := range strings.Split(strings.ReplaceAll(rules, "PORT", port), "\n") {
			there := slices.Contains(texts, rule)
			known[rule] = known[rule] || there
			complete = complete && there
		}
		led = led || complete
	}
	return led
}
