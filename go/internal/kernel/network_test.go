package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/must"
	"clawker-fw/internal/nettest"
	"clawker-fw/internal/users"
)

// route returns the kernel's routing decision for a packet of the program.
func route(from, to netip.Addr) (netlink.Route, error) {
	user := uint32(users.Readers)
	routes, err := netlink.RouteGetWithOptions(to.AsSlice(), &netlink.RouteGetOptions{SrcAddr: from.AsSlice(), UID: &user})
	if err != nil {
		return netlink.Route{}, err
	}
	return routes[0], nil
}

// connect opens a connection from an address, like a proxy that binds its source. Its socket belongs to the
// program's user.
func connect(from, to netip.Addr, port int) error {
	unix.Setfsuid(users.Readers) // of this thread alone, which no other test has
	defer unix.Setfsuid(os.Geteuid())
	dialer := net.Dialer{
		LocalAddr: &net.TCPAddr{IP: from.AsSlice()},
		Timeout:   time.Second, // for a test that fails; what is refused is refused at once
	}
	connection, err := dialer.Dial("tcp4", netip.AddrPortFrom(to, uint16(port)).String())
	if err == nil {
		connection.Close()
	}
	return err
}

// listen accepts connections on every address of the namespace.
func listen(t *testing.T) int {
	t.Helper()
	listener := must.Open[net.Listener](t)(net.Listen("tcp4", "0.0.0.0:0"))
	return listener.Addr().(*net.TCPAddr).Port
}

func refused(err error) bool {
	return errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ENETUNREACH)
}

// From either source, connections to unreachable ranges fail at once, even with a listener. The guarded source
// reaches only the world through the gateway, not even its own container's addresses. The exempt one also reaches
// private addresses and its own network, but neither agents nor itself. Other sources work as before: health
// checks reach loopback, and DNS queries use the primary address.
func TestSources(t *testing.T) {
	nettest.InNetwork(t)
	sibling := nettest.NewSibling()
	must.Succeed(t, Shape(sibling))
	port := listen(t)

	own := []netip.Addr{nettest.Loopback, nettest.OnAgents, nettest.Primary, nettest.Guarded, nettest.Exempt, nettest.Agent}
	for _, table := range sibling.Tables {
		for _, prefix := range table.Unreachable {
			for _, address := range []netip.Addr{prefix.Addr(), lastOf(prefix)} {
				if err := connect(table.From, address, port); !refused(err) {
					t.Errorf("%s to %s in %s: %v", table.From, address, prefix, err)
				}
			}
		}
		closed := own
		if table.From == nettest.Guarded {
			closed = append(slices.Clone(own), nettest.Gateway, nettest.Private)
		}
		for _, address := range closed {
			if err := connect(table.From, address, port); !errors.Is(err, unix.EHOSTUNREACH) {
				t.Errorf("%s to %s: %v", table.From, address, err)
			}
		}
		expectRoute(t, table.From, nettest.World, "via 10.214.0.1 on")
	}
	expectRoute(t, nettest.Exempt, nettest.Private, "via 10.214.0.1 on")
	expectRoute(t, nettest.Exempt, netip.MustParseAddr("10.214.0.9"), "on")
	for _, address := range []netip.Addr{nettest.Loopback, nettest.OnAgents, nettest.Primary} {
		if err := connect(address, address, port); err != nil {
			t.Errorf("to %s: %v", address, err)
		}
	}
	expectRoute(t, nettest.Primary, nettest.World, "via 10.214.0.1 on")
	expectRoute(t, nettest.Primary, nettest.Gateway, "on")
}

// An agent reaches a program at every address of a block, and at no other. A neighbour on the way out that routes
// its packets here reaches it at no address of the agent network, but at our address on its own network.
func TestBlocks(t *testing.T) {
	neighbour := netip.MustParseAddr("10.214.0.77")
	nettest.InNetwork(t)
	sibling := nettest.NewSibling()
	limits := nettest.SmallLimits()
	sibling.Limits = &limits
	sibling.Settings["arp_ignore"] = 0 // the kernel answers for addresses that no interface has only then
	asAgent := nettest.Moved(t, "agents-end", nettest.AgentNet, nettest.Agent)
	asNeighbour := nettest.Moved(t, "egress-end", nettest.EgressNet, neighbour)
	nettest.Settle(t)
	must.Succeed(t, Shape(sibling))
	port := listen(t)

	inBlocks := []string{"10.213.8.64", "10.213.8.127", "10.213.8.128", "10.213.8.255"}
	asAgent(func() {
		for _, address := range append(inBlocks, nettest.OnAgents.String()) {
			if err := connect(nettest.Agent, netip.MustParseAddr(address), port); err != nil {
				t.Errorf("to %s: %v", address, err)
			}
		}
		if err := connect(nettest.Agent, netip.MustParseAddr("10.213.8.63"), port); err == nil {
			t.Error("an address beside the blocks was reached")
		}
	})
	asNeighbour(func() {
		way := netlink.Route{
			Dst: IPNet(nettest.AgentNet.Masked()), Gw: nettest.Primary.AsSlice(),
			LinkIndex: nettest.Link(t, "egress-end").Attrs().Index, Flags: int(netlink.FLAG_ONLINK),
		}
		must.Succeed(t, netlink.RouteAdd(&way))
		if err := connect(neighbour, nettest.Primary, port); err != nil {
			t.Fatalf("the control is not reached: %v", err)
		}
		for _, address := range append(inBlocks, nettest.OnAgents.String()) {
			if err := connect(neighbour, netip.MustParseAddr(address), port); err == nil {
				t.Errorf("%s was reached from the way out", address)
			}
		}
	})
}

// The gateway can resolve each source by ARP, although the guarded one has no route to it: its network may ignore
// announcements. The program's own packets to it from the guarded source still go nowhere.
func TestGatewayFindsSources(t *testing.T) {
	nettest.InNetwork(t)
	asGateway := nettest.Moved(t, "egress-end", nettest.EgressNet, nettest.Gateway)
	nettest.Settle(t)
	sibling := nettest.NewSibling()
	must.Succeed(t, Shape(sibling))
	port := listen(t)

	asGateway(func() {
		listen(t)
		for _, table := range sibling.Tables {
			if err := connect(nettest.Gateway, table.From, 9); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("%s: %v", table.Name, err)
			}
		}
	})
	if err := connect(nettest.Guarded, nettest.Gateway, port); !errors.Is(err, unix.EHOSTUNREACH) {
		t.Errorf("the program reaches the gateway: %v", err)
	}
}

func expectRoute(t *testing.T, from, to netip.Addr, words string) {
	t.Helper()
	taken, err := route(from, to)
	taken.Src, taken.MTU = nil, 0 // what the kernel adds to an answer
	seen, failure := readNamespace()
	if failure != nil {
		t.Fatal(failure)
	}
	text := fmt.Sprintf("route %s/32 %s egress", to, words)
	got, _, _ := strings.Cut(seen.describeRoute(taken), " in table")
	if got = strings.TrimSuffix(got, " with further attributes"); err != nil || got != text {
		t.Errorf("from %s: got %s, %v, expected %s", from, got, err, text)
	}
}

// A configured network has no differences, even after it is configured again.
func TestShapeIsIdempotent(t *testing.T) {
	nettest.InNetwork(t)
	sibling := nettest.NewSibling()
	for range 2 {
		must.Succeed(t, Shape(sibling))
		expectDifferences(t, sibling)
	}
	for _, address := range sibling.Addresses {
		if got, err := LinkHolding(address.Address); err != nil || got.Attrs().Name != "egress" {
			t.Errorf("%s: %v", address.Address, err)
		}
	}
}

func expectDifferences(t *testing.T, sibling boot.Sibling, want ...string) {
	t.Helper()
	nettest.Settle(t)
	// The peers of our interfaces, which are never in a container's namespace.
	want = append(want, "interface agents-end is not ours", "interface egress-end is not ours")
	slices.Sort(want)
	if got := Differences(sibling); !slices.Equal(got, want) {
		t.Errorf("got %q, expected %q", got, want)
	}
}

// In an unconfigured network, everything desired is missing.
func TestUnshapedNetworkDiffers(t *testing.T) {
	nettest.InNetwork(t)
	sibling := nettest.NewSibling()
	sibling.Tables = sibling.Tables[:1]
	sibling.Tables[0].Unreachable = nettest.Prefixes("10.0.0.0/8")
	sibling.Settings = nil
	sibling.Blocks = sibling.Blocks[:1]

	expectDifferences(t, sibling,
		"address 10.214.0.148/32 on egress is missing",
		"address 10.214.0.158/32 on egress is missing",
		"route default via 10.214.0.1 on egress in table 101 is missing",
		"route local 10.213.8.64/26 on agents in table 255 is missing",
		"route unreachable 10.0.0.0/8 in table 101 is missing",
		"rule 0: from all lookup 255 is not ours",
		"rule 100: from 10.214.0.148/32 lookup 101 is missing",
		"rule 200: from all lookup 255 is missing",
		"rule 90: from 10.214.0.148/32 to 10.214.0.1/32 of users 0 to 0 lookup 254 is missing",
	)
}

// Every manual change to a configured network is reported as a sentence.
func TestDifferences(t *testing.T) {
	sibling := nettest.NewSibling()
	first := sibling.Tables[0]
	ruleOf := func() *netlink.Rule { return rulesFor(first, 0)[1] }
	rule := func(change func(*netlink.Rule)) *netlink.Rule {
		changed := ruleOf()
		change(changed)
		return changed
	}
	ruleMissing := "rule 100: from 10.214.0.148/32 lookup 101 is missing"
	cases := map[string]struct {
		change      func() error
		differences []string
	}{
		"a rule deleted": {
			func() error { return netlink.RuleDel(ruleOf()) },
			[]string{ruleMissing},
		},
		"the rule for the gateway's question widened": {
			func() error {
				answer := rulesFor(first, 0)[0]
				wider := rulesFor(first, 0)[0]
				wider.UIDRange = netlink.NewRuleUIDRange(0, users.Readers)
				return errors.Join(netlink.RuleDel(answer), netlink.RuleAdd(wider))
			},
			[]string{
				"rule 90: from 10.214.0.148/32 to 10.214.0.1/32 of users 0 to 0 lookup 254 is missing",
				"rule 90: from 10.214.0.148/32 to 10.214.0.1/32 of users 0 to 65532 lookup 254 is not ours",
			},
		},
		"rules before ours: for everyone, and the local one": {
			func() error {
				return errors.Join(
					netlink.RuleAdd(rule(func(r *netlink.Rule) { r.Priority, r.Src, r.Table = 50, nil, 254 })),
					netlink.RuleAdd(localRule(0)))
			},
			[]string{"rule 0: from all lookup 255 is not ours", "rule 50: from all lookup 254 is not ours"},
		},
		"a rule turned around": {
			func() error {
				return errors.Join(
					netlink.RuleDel(ruleOf()),
					netlink.RuleAdd(rule(func(r *netlink.Rule) { r.Invert = true })))
			},
			[]string{ruleMissing, "rule 100: from 10.214.0.148/32 lookup 101 on a further condition is not ours"},
		},
		"a rule for more sources": {
			func() error {
				return errors.Join(
					netlink.RuleDel(ruleOf()),
					netlink.RuleAdd(rule(func(r *netlink.Rule) { r.Src.Mask = net.CIDRMask(30, 32) })))
			},
			[]string{"rule 100: from 10.214.0.148/30 lookup 101 is not ours", ruleMissing},
		},
		"a route added": {
			func() error {
				return netlink.RouteAdd(&netlink.Route{
					Table: 101, Dst: IPNet(netip.MustParsePrefix("10.1.2.0/24")), Gw: nettest.Gateway.AsSlice(),
				})
			},
			[]string{"route 10.1.2.0/24 via 10.214.0.1 on egress in table 101 is not ours"},
		},
		"a route by another gateway": {
			func() error {
				return netlink.RouteReplace(&netlink.Route{
					Table: 101, Dst: IPNet(netip.MustParsePrefix("0.0.0.0/0")),
					Gw: netip.MustParseAddr("10.214.0.2").AsSlice(), Type: unix.RTN_UNICAST,
				})
			},
			[]string{
				"route default via 10.214.0.1 on egress in table 101 is missing",
				"route default via 10.214.0.2 on egress in table 101 is not ours",
			},
		},
		"a refusal that passes on to the next table": {
			func() error {
				return netlink.RouteReplace(&netlink.Route{
					Table: 101, Dst: IPNet(netip.MustParsePrefix("10.0.0.0/8")), Type: unix.RTN_THROW,
				})
			},
			[]string{
				"route throw 10.0.0.0/8 in table 101 is not ours",
				"route unreachable 10.0.0.0/8 in table 101 is missing",
			},
		},
		"a refusal of some packets only": {
			func() error {
				refusal := netlink.Route{
					Table: 101, Dst: IPNet(netip.MustParsePrefix("10.0.0.0/8")), Type: unix.RTN_UNREACHABLE,
				}
				partly := refusal
				partly.Tos = 16
				return errors.Join(netlink.RouteDel(&refusal), netlink.RouteAdd(&partly))
			},
			[]string{
				"route unreachable 10.0.0.0/8 in table 101 is missing",
				"route unreachable 10.0.0.0/8 tos 16 in table 101 is not ours",
			},
		},
		"an address, a route and a rule of IPv6": {
			func() error {
				route := func(own netlink.Link, place *netlink.Addr) error {
					return netlink.RouteAdd(&netlink.Route{LinkIndex: own.Attrs().Index, Dst: place.IPNet})
				}
				rule := netlink.NewRule()
				rule.Family, rule.Priority, rule.Table = unix.AF_INET6, 50, unix.RT_TABLE_MAIN
				return errors.Join(
					withSix(netlink.AddrAdd, "fd00::1/128"), waitForLocalSix("fd00::1/128"), withSix(route, "fd00::/64"), netlink.RuleAdd(rule))
			},
			[]string{
				"IPv6 route fd00::/64 on lo metric 1024 in table 254 is not ours",
				"IPv6 route fd00::1/128 on lo metric 256 in table 254 is not ours",
				"IPv6 route local fd00::1/128 on lo in table 255 is not ours",
				"IPv6 rule 50: from all lookup 254 is not ours",
				"address fd00::1/128 on lo is not ours",
			},
		},
		"an address deleted": {
			func() error {
				link, err := LinkHolding(nettest.Guarded)
				if err != nil {
					return err
				}
				return netlink.AddrDel(link, &netlink.Addr{IPNet: IPNet(netip.PrefixFrom(nettest.Guarded, 32))})
			},
			[]string{"address 10.214.0.148/32 on egress is missing"},
		},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			nettest.InNetwork(t)
			must.Succeed(t, Shape(sibling))
			must.Succeed(t, test.change())
			expectDifferences(t, sibling, test.differences...)
		})
	}
}

// withSix turns IPv6 on for loopback, which is no difference, and adds something there.
func withSix(add func(netlink.Link, *netlink.Addr) error, place string) error {
	own, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	address, err := netlink.ParseAddr(place)
	if err != nil {
		return err
	}
	address.Flags = unix.IFA_F_NODAD // so that it is used at once
	name := filepath.Join(SystemSettings, "net/ipv6/conf/lo/disable_ipv6")
	return errors.Join(os.WriteFile(name, []byte("0"), 0), add(own, address))
}

// waitForLocalSix waits until the kernel accepts an address as its own.
func waitForLocalSix(place string) error {
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		routes, err := netlink.RouteListFiltered(unix.AF_INET6, &netlink.Route{Table: unix.RT_TABLE_LOCAL}, netlink.RT_FILTER_TABLE)
		isOwn := func(route netlink.Route) bool { return route.Dst != nil && route.Dst.String() == place }
		if err != nil || slices.ContainsFunc(routes, isOwn) {
			return err
		}
		if time.Now().After(end) {
			return errors.New("it never does")
		}
	}
}

// A missing interface is a difference, and so is everything on it.
func TestDifferencesWithoutInterface(t *testing.T) {
	nettest.InNetwork(t)
	must.Succeed(t, Shape(nettest.NewSibling()))
	must.Succeed(t, netlink.LinkDel(nettest.Link(t, "egress")))

	got := Differences(nettest.NewSibling())

	for _, text := range []string{
		"the interface with 10.214.0.138 is missing",
		"address 10.214.0.138/24 on the interface in 10.214.0.0/24 is missing",
		"route default via 10.214.0.1 in table 101 is missing",
		"route default via 10.214.0.1 in table 254 is missing",
	} {
		if !slices.Contains(got, text) {
			t.Errorf("%q is not in %q", text, got)
		}
	}
}

// A container without tables keeps the kernel's rules.
func TestShapeWithoutTables(t *testing.T) {
	nettest.InNetwork(t)
	sibling := boot.Sibling{Name: "coredns", Interfaces: nettest.NewSibling().Interfaces}
	must.Succeed(t, Shape(sibling))

	rules, err := netlink.RuleList(unix.AF_INET)
	if err != nil || len(rules) != 3 || describeRule(rules[0]) != "rule 0: from all lookup 255" {
		t.Errorf("got %v, %v", rules, err)
	}
	expectDifferences(t, sibling)
}

// An address in a network without an interface is an error that names the network.
func TestShapeWithoutInterface(t *testing.T) {
	nettest.InNetwork(t)
	elsewhere := netip.MustParsePrefix("10.215.0.0/24")

	err := Shape(boot.Sibling{Name: "envoy", Addresses: []boot.Address{{Address: netip.MustParseAddr("10.215.0.5"), Subnet: elsewhere}}})

	if !errors.Is(err, ErrNoInterface) || !strings.Contains(err.Error(), "10.215.0.0/24") {
		t.Errorf("got %v", err)
	}
}
