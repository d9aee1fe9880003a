package kernel

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"clawker-fw/internal/must"
	"clawker-fw/internal/nettest"
)

var embedded = netip.MustParseAddr("127.0.0.11")

// backends are the tables and chains of the engine's redirect. With iptables, OUTPUT and POSTROUTING jump to two
// others.
var backends = map[string]struct{ table, output, postrouting, dnat, snat string }{
	"iptables": {"nat", "OUTPUT", "POSTROUTING", "DOCKER_OUTPUT", "DOCKER_POSTROUTING"},
	"nftables": {"docker-dns", "dns-dnat", "dns-snat", "dns-dnat", "dns-snat"},
}

// engineRedirect is what an engine adds to a container's packet filter.
type engineRedirect struct {
	table *nftables.Table
	chain map[string]*nftables.Chain
}

// redirectAs adds a backend's rules, which lead to a resolver's ports. Its chains have further hook priorities.
func redirectAs(connection *nftables.Conn, backend string, ports map[byte]uint16, further nftables.ChainPriority) engineRedirect {
	names := backends[backend]
	table := connection.AddTable(&nftables.Table{Name: names.table, Family: nftables.TableFamilyIPv4})
	made := engineRedirect{table, map[string]*nftables.Chain{}}
	add := func(name string, hook *nftables.ChainHook, priority nftables.ChainPriority) {
		if made.chain[name] == nil {
			chain := &nftables.Chain{Table: table, Name: name}
			if hook != nil {
				priority += further
				chain.Type, chain.Hooknum, chain.Priority = nftables.ChainTypeNAT, hook, &priority
			}
			made.chain[name] = connection.AddChain(chain)
		}
	}
	add(names.output, nftables.ChainHookOutput, *nftables.ChainPriorityNATDest)
	add(names.postrouting, nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource)
	add(names.dnat, nil, 0)
	add(names.snat, nil, 0)
	for from, to := range map[string]string{names.output: names.dnat, names.postrouting: names.snat} {
		if from != to {
			made.add(connection, from, isTo(embedded), jumpTo(made.chain[to]))
		}
	}
	made.lead(connection, backend, ports)
	return made
}

// lead adds the rules with ports.
func (r engineRedirect) lead(connection *nftables.Conn, backend string, ports map[byte]uint16) {
	names := backends[backend]
	for _, protocol := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		port := ports[protocol]
		r.add(connection, names.dnat, isTo(embedded), isProtocol(protocol), isQuery, dnatTo(port))
		r.add(connection, names.snat, isFrom(embedded), isProtocol(protocol), isFromPort(port), snatTo53)
	}
}

// resolverPorts listens at the address of the engine's resolver, and returns the ports.
func resolverPorts(t *testing.T) map[byte]uint16 {
	t.Helper()
	place := netip.AddrPortFrom(embedded, 0).String()
	connections := must.Open[net.Listener](t)(net.Listen("tcp4", place))
	datagrams := must.Open[net.PacketConn](t)(net.ListenPacket("udp4", place))
	return map[byte]uint16{
		unix.IPPROTO_TCP: connections.Addr().(*net.TCPAddr).AddrPort().Port(),
		unix.IPPROTO_UDP: datagrams.LocalAddr().(*net.UDPAddr).AddrPort().Port(),
	}
}

func (r engineRedirect) rule(chain string, parts ...[]expr.Any) *nftables.Rule {
	return &nftables.Rule{Table: r.table, Chain: r.chain[chain], Exprs: slices.Concat(parts...)}
}

func (r engineRedirect) add(connection *nftables.Conn, chain string, parts ...[]expr.Any) {
	connection.AddRule(r.rule(chain, parts...))
}

func portOf(number uint16) []byte { return []byte{byte(number >> 8), byte(number)} }

func isFromPort(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: registerOne, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2},
		equal(portOf(port)...), &expr.Counter{},
	}
}

func dnatTo(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Counter{},
		&expr.Immediate{Register: registerOne, Data: embedded.AsSlice()},
		&expr.Immediate{Register: registerOne + 1, Data: portOf(port)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: registerOne, RegProtoMin: registerOne + 1},
	}
}

var snatTo53 = []expr.Any{
	&expr.Immediate{Register: registerOne, Data: portOf(53)},
	&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegProtoMin: registerOne},
}

// The redirect of each firewall backend is remembered at the installation of our tables, and every change of it is
// reported. An engine that restarts with live containers listens at other ports.
func TestRedirect(t *testing.T) {
	limits := nettest.SmallLimits()
	for backend, names := range backends {
		part := func(kind, name string) string { return fmt.Sprintf("nftables %s ip %s%s", kind, names.table, name) }
		for name, test := range map[string]struct {
			change     func(*testing.T, *nftables.Conn, engineRedirect)
			difference string // what some difference is
		}{
			"as the engine adds it": {},
			"the engine started again": {change: func(t *testing.T, c *nftables.Conn, r engineRedirect) {
				c.FlushChain(r.chain[names.dnat])
				c.FlushChain(r.chain[names.snat])
				r.lead(c, backend, resolverPorts(t))
			}},
			"another port first": {
				func(_ *testing.T, c *nftables.Conn, r engineRedirect) {
					c.InsertRule(r.rule(names.dnat, isTo(embedded), isProtocol(unix.IPPROTO_UDP), isQuery, dnatTo(9)))
				},
				part("rule", " "+names.dnat+" 3 is not ours"),
			},
			"chains that are called later": {
				func(t *testing.T, c *nftables.Conn, r engineRedirect) {
					c.DelTable(r.table)
					redirectAs(c, backend, resolverPorts(t), 7)
				},
				part("chain", " "+names.output+" is not ours"),
			},
		} {
			t.Run(backend+"/"+name, func(t *testing.T) {
				nettest.InNetwork(t)
				connection := must.Get[*nftables.Conn](t)(nftables.New())
				made := redirectAs(connection, backend, resolverPorts(t), 0)
				must.Succeed(t, connection.Flush())
				sibling := nettest.NewSibling()
				sibling.Limits, sibling.Resolver = &limits, &embedded
				must.Succeed(t, Shape(sibling))
				if test.change != nil {
					test.change(t, connection, made)
					must.Succeed(t, connection.Flush())
				}
				got, err := filterDifferences(sibling, nil)
				if err != nil || test.difference != "" && !slices.Contains(got, test.difference) || test.difference == "" && len(got) > 0 {
					t.Errorf("got %q, %v, expected %q", got, err, test.difference)
				}
			})
		}
	}
}

// A container without our tables has no redirect.
func TestRedirectOfNobody(t *testing.T) {
	nettest.InNetwork(t)
	connection := must.Get[*nftables.Conn](t)(nftables.New())
	redirectAs(connection, "nftables", resolverPorts(t), 0)
	must.Succeed(t, connection.Flush())
	got, err := filterDifferences(nettest.NewSibling(), nil)
	if err != nil || !slices.Contains(got, "nftables rule ip docker-dns dns-dnat 1 is not ours") {
		t.Errorf("got %q, %v", got, err)
	}
}

// Unreadable answers of the kernel are errors: never missing, and never empty.
func TestMalformedAttributes(t *testing.T) {
	broken := []byte{200, 0, 1, 0} // longer than it is
	nested := attributes{{Attr: syscall.RtAttr{Type: unix.NFTA_SET_ELEM_KEY}, Value: broken}}
	for name, read := range map[string]func() error{
		"a message":       func() error { _, err := readMessage(append(make([]byte, nl.SizeofNfgenmsg), broken...)); return err },
		"a short message": func() error { _, err := readMessage([]byte{1}); return err },
		"a rule":          func() error { _, err := withoutCounters(broken); return err },
		"a part of one": func() error {
			_, err := withoutCounters(nl.NewRtAttr(unix.NFTA_LIST_ELEM, broken).Serialize())
			return err
		},
		"a key": func() error { _, err := keyOf(nested); return err },
	} {
		if err := read(); err == nil {
			t.Errorf("%s was read", name)
		}
	}
	if got, err := nested.in(unix.NFTA_SET_ELEM_EXPR); err != nil || len(got) > 0 {
		t.Errorf("what is not there is %v, %v", got, err)
	}
}
