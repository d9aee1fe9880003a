// Package nettest creates a firewall container's networks for tests, in separate network namespaces.
package nettest

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/must"
	"clawker-fw/internal/statussocket"
)

// A stack's networks as Envoy sees them: its own addresses, the gateway, agents, and the service address.
var (
	AgentNet   = netip.MustParsePrefix("10.213.0.0/20")
	EgressNet  = netip.MustParsePrefix("10.214.0.0/24")
	OnAgents   = netip.MustParseAddr("10.213.8.10")
	Primary    = netip.MustParseAddr("10.214.0.138")
	Guarded    = netip.MustParseAddr("10.214.0.148")
	Exempt     = netip.MustParseAddr("10.214.0.158")
	Gateway    = netip.MustParseAddr("10.214.0.1")
	Agent      = netip.MustParseAddr("10.213.0.7")
	OtherAgent = netip.MustParseAddr("10.213.0.8")
	Service    = netip.MustParseAddr("10.213.8.53")
	Private    = netip.MustParseAddr("192.168.7.7")
	World      = netip.MustParseAddr("198.51.100.7")
	Loopback   = netip.MustParseAddr("127.0.0.1")
)

// NewSibling returns an Envoy with a guarded and an exempt source.
func NewSibling() boot.Sibling {
	special := Prefixes("0.0.0.0/8 127.0.0.0/8 169.254.0.0/16 224.0.0.0/4 240.0.0.0/4 10.213.0.0/20")
	return boot.Sibling{
		Name:       "envoy",
		Interfaces: []boot.Interface{{Address: OnAgents, Subnet: AgentNet, Gateway: nil}, {Address: Primary, Subnet: EgressNet, Gateway: &Gateway}},
		Settings:   map[string]int{"accept_source_route": 0, "arp_ignore": 1, "forwarding": 0, "rp_filter": 1},
		Sysctls:    map[string]string{"net.ipv4.ip_forward": "0"},
		Addresses:  []boot.Address{{Address: Guarded, Subnet: EgressNet}, {Address: Exempt, Subnet: EgressNet}},
		Blocks:     Prefixes("10.213.8.64/26 10.213.8.128/25"),
		Tables: []boot.Table{
			{
				Name: "guarded", From: Guarded, ID: 101, Gateway: Gateway, Subnet: EgressNet,
				Unreachable: append(Prefixes(
					"10.0.0.0/8 100.64.0.0/10 172.16.0.0/12 192.0.0.0/24 192.168.0.0/16 198.18.0.0/15 10.214.0.0/24",
				), special...),
			},
			{
				Name: "exempt", From: Exempt, ID: 102, Gateway: Gateway, Subnet: EgressNet, Connected: true,
				Unreachable: append(Prefixes("10.214.0.138/32 10.214.0.148/32 10.214.0.158/32"), special...),
			},
		},
	}
}

// Prefixes returns the prefixes in a text, separated by spaces.
func Prefixes(text string) []netip.Prefix {
	var parsed []netip.Prefix
	for _, prefix := range strings.Fields(text) {
		parsed = append(parsed, netip.MustParsePrefix(prefix))
	}
	return parsed
}

// InNetwork moves the test into a new network namespace with the two interfaces of an Envoy.
func InNetwork(t *testing.T) {
	t.Helper()
	must.BeRoot(t, "to make a network namespace with interfaces and routes")
	// Never unlocked: the thread, and with it the namespace, ends with the test.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("no network namespace: %v", err)
	}
	for name, value := range map[string]string{
		"net/ipv4/ip_forward": "0", "net/ipv6/conf/default/disable_ipv6": "1", "net/ipv6/conf/all/disable_ipv6": "1",
	} {
		must.Succeed(t, os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0))
	}
	must.Succeed(t, MakeInterfaces())
}

// MakeInterfaces creates interfaces like Docker: each has one address and a peer at its other end.
func MakeInterfaces() error {
	own, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	made := []error{netlink.LinkSetUp(own)}
	for name, address := range map[string]netip.Prefix{
		"agents": netip.PrefixFrom(OnAgents, 20), "egress": netip.PrefixFrom(Primary, 24),
	} {
		pair := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: name + "-end"}
		pair.Name = name
		made = append(made, netlink.LinkAdd(pair))
		// The peer first, so that our end can send as soon as it is up.
		for _, name := range []string{pair.PeerName, pair.Name} {
			link, err := netlink.LinkByName(name)
			if err != nil {
				return errors.Join(append(made, err)...)
			}
			made = append(made, netlink.LinkSetUp(link))
		}
		made = append(made, netlink.AddrAdd(pair, &netlink.Addr{IPNet: netOf(address)}))
	}
	made = append(made, netlink.RouteAdd(&netlink.Route{Gw: Gateway.AsSlice()}))
	return errors.Join(made...)
}

func Link(t *testing.T, name string) netlink.Link {
	t.Helper()
	return must.Get[netlink.Link](t)(netlink.LinkByName(name))
}

// Settle waits for the interfaces' carriers.
func Settle(t *testing.T) {
	t.Helper()
	must.Happen(t, "carriers", func() bool {
		return !slices.ContainsFunc([]string{"agents", "egress"}, func(name string) bool {
			return Link(t, name).Attrs().RawFlags&unix.IFF_LOWER_UP == 0
		})
	})
}

// SmallLimits are quickly reached.
func SmallLimits() boot.Limits {
	return boot.Limits{
		Subnet: AgentNet, Except: []netip.Addr{netip.MustParseAddr("10.213.8.20")},
		Connections: 5, AllConnections: 100, ConnectionsPerSecond: 1000, QueriesPerSecond: 50,
	}
}

// LimitedSibling configures a network with `shape`, and moves the agents' end of it into another namespace, with
// two agents and an address without limits. The returned function runs its argument there.
func LimitedSibling(t *testing.T, limits boot.Limits, shape func(boot.Sibling) error) (asAgent func(func())) {
	t.Helper()
	InNetwork(t)
	sibling := NewSibling()
	sibling.Limits = &limits
	sibling.Settings["arp_ignore"] = 0 // for the blocks
	asAgent = Moved(t, "agents-end", AgentNet, append(limits.Except, Agent, OtherAgent)...)
	Settle(t)
	must.Succeed(t, shape(sibling))
	return asAgent
}

// Moved moves the end of a network into another namespace, with these addresses, and returns a function that
// enters it.
func Moved(t *testing.T, name string, subnet netip.Prefix, addresses ...netip.Addr) (inside func(func())) {
	t.Helper()
	here := thisNetwork(t)
	must.Succeed(t, unix.Unshare(unix.CLONE_NEWNET))
	peerNetwork := thisNetwork(t)
	enter := func(place *os.File) {
		must.Succeed(t, unix.Setns(int(place.Fd()), unix.CLONE_NEWNET))
	}
	enter(here)
	must.Succeed(t, netlink.LinkSetNsFd(Link(t, name), int(peerNetwork.Fd())))
	enter(peerNetwork)
	end := Link(t, name)
	for _, address := range addresses {
		must.Succeed(t, netlink.AddrAdd(end, &netlink.Addr{IPNet: netOf(netip.PrefixFrom(address, 32))}))
	}
	must.Succeed(t, netlink.LinkSetUp(end))
	must.Succeed(t, netlink.RouteAdd(&netlink.Route{LinkIndex: end.Attrs().Index, Dst: netOf(subnet.Masked())}))
	enter(here)
	return func(work func()) {
		enter(peerNetwork)
		defer enter(here)
		work()
	}
}

func thisNetwork(t *testing.T) *os.File {
	t.Helper()
	return must.Open[*os.File](t)(os.Open("/proc/thread-self/ns/net"))
}

// ServeAt handles each connection to an address with a function, until the test ends.
func ServeAt(t *testing.T, network, address string, serve func(net.Conn)) net.Addr {
	t.Helper()
	listener := must.Open[net.Listener](t)(net.Listen(network, address))
	go statussocket.Serve(listener, 1000, serve)
	return listener.Addr()
}

// NewResolver returns a CoreDNS.
func NewResolver() boot.Sibling {
	return boot.Sibling{Name: "coredns", Interfaces: NewSibling().Interfaces, Service: &boot.Address{Address: Service, Subnet: AgentNet}}
}

func netOf(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), 32)}
}

// ServeDNS answers every query on a new port, over UDP or TCP, until the test ends.
func ServeDNS(t *testing.T, network string, reply dns.HandlerFunc) string {
	t.Helper()
	server := &dns.Server{Handler: reply}
	defer func() { go server.ActivateAndServe() }()
	if network == "tcp" {
		server.Listener = must.Open[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
		return server.Listener.Addr().String()
	}
	server.PacketConn = must.Open[net.PacketConn](t)(net.ListenPacket("udp", "127.0.0.1:0"))
	return server.PacketConn.LocalAddr().String()
}

// Answering answers every query with a code.
func Answering(code int) dns.HandlerFunc {
	return func(writer dns.ResponseWriter, query *dns.Msg) {
		reply := new(dns.Msg).SetRcode(query, code)
		reply.Authoritative = true
		_ = writer.WriteMsg(reply)
	}
}

// Refusing answers every query with NXDOMAIN.
var Refusing = Answering(dns.RcodeNameError)
