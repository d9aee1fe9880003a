// Package relay passes connections to the published ports of one agent on, and nothing else: from the network on which the
// engine publishes them to the agent's address, never the other way.
//
// What it must not do is not left to this program. Its sockets are bound to the interface of the publishing network, so that
// the kernel refuses agents; the namespace forwards nothing and has no route to anywhere but its two networks, unless who
// publishes asked to be reached from outside; and the program has no privileges.
package relay

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"clawker-fw/internal/boot"
)

// Settings are the words with which a relay is started. They are part of its container's command, so that anybody sees them.
type Settings struct {
	OnAgents     netip.Prefix // its address on the agents' network, and the size of that
	OnPublishing netip.Prefix // its address on the publishing network, and the size of that
	Gateway      *netip.Addr  // of the publishing network, if answers may leave it
	Agent        netip.Addr   // whose ports are published
	Ports        []uint16
}

// noGateway is the word of a relay that answers only on the publishing network.
const noGateway = "-"

const fewestWords = 5

// Parse reads the words: ADDRESS/BITS on the agents' network, ADDRESS/BITS on the publishing network, GATEWAY or -, the AGENT's
// address, and each PORT.
func Parse(words []string) (Settings, error) {
	var read Settings
	if len(words) < fewestWords {
		return read, errors.New("a relay needs its address on two networks, a gateway or -, an agent, and ports")
	}
	var problems [4]error
	read.OnAgents, problems[0] = netip.ParsePrefix(words[0])
	read.OnPublishing, problems[1] = netip.ParsePrefix(words[1])
	if words[2] != noGateway {
		gateway, err := netip.ParseAddr(words[2])
		read.Gateway, problems[2] = &gateway, err
	}
	read.Agent, problems[3] = netip.ParseAddr(words[3])
	if err := errors.Join(problems[:]...); err != nil {
		return read, err
	}
	if !read.OnAgents.Contains(read.Agent) {
		return read, fmt.Errorf("%s is not on the agents' network %s", read.Agent, read.OnAgents.Masked())
	}
	for _, word := range words[4:] {
		port, err := strconv.ParseUint(word, 10, 16)
		if err != nil || port == 0 {
			return read, fmt.Errorf("not a port: %q", word)
		}
		read.Ports = append(read.Ports, uint16(port))
	}
	return read, nil
}

// interfaceSettings are those of both interfaces (net.ipv4.conf): nothing is forwarded, and no packet is taken whose answer
// would leave through the other interface. Each interface answers for its own address alone.
var interfaceSettings = map[string]int{
	"accept_local": 0, "accept_source_route": 0, "arp_accept": 0, "arp_announce": 2, "arp_filter": 0, "arp_ignore": 1,
	"drop_gratuitous_arp": 0, "forwarding": 0, "proxy_arp": 0, "proxy_arp_pvlan": 0, "route_localnet": 0, "rp_filter": 1,
}

// resolver is the engine's own, to which its packet filter in the container leads. A relay asks for no name.
var resolver = netip.MustParseAddr("127.0.0.11")

// Network returns the network that a relay needs, in the form of a sibling's.
func (s Settings) Network() boot.Sibling {
	return boot.Sibling{
		Name: "relay",
		Interfaces: []boot.Interface{
			{Address: s.OnAgents.Addr(), Subnet: s.OnAgents.Masked()},
			{Address: s.OnPublishing.Addr(), Subnet: s.OnPublishing.Masked(), Gateway: s.Gateway},
		},
		Settings: interfaceSettings,
		Resolver: &resolver,
		Apart: &boot.Apart{
			Agent: boot.Pair{Subnet: s.OnAgents.Masked(), Only: s.Agent},
			// The engine's machine has the first address of the network, whether or not answers may leave it.
			Engine: boot.Pair{Subnet: s.OnPublishing.Masked(), Only: s.OnPublishing.Masked().Addr().Next()},
		},
	}
}
