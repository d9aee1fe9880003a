package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"clawker-fw/internal/nettest"
)

var embedded = netip.MustParseAddr("127.0.0.11")

// backends are the tables and chains of the engine's redirect. With iptables, OUTPUT and POSTROUTING jump to two others.
var backends = map[string]struct{ table, output, postrouting, dnat, snat string }{
	"iptables": {"nat", "OUTPUT", "POSTROUTING", "DOCKER_OUTPUT", "DOCKER_POSTROUTING"},
	"nftables": {"docker-dns", "dns-dnat", "dns-snat", "dns-dnat", "dns-snat"},
}

// engineRedirect is what an engine adds to a container's packet filter.
type engineRedirect struct {
	table *nftables.Table
	chain map[string]*nftables.Chain
	ports map[byte]uint16
}

// redirectAs adds the rules of a backend. Its chains are at hooks with further priorities.
func redirectAs(connection *nftables.Conn, backend string, further nftables.ChainPriority) engineRedirect {
	names := backends[backend]
	table := connection.AddTable(&nftables.Table{Name: names.table, Family: nftables.TableFamilyIPv4})
	made := engineRedirect{table, map[string]*nftables.Chain{}, map[byte]uint16{unix.IPPROTO_TCP: 35589, unix.IPPROTO_UDP: 40381}}
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
	for protocol, port := range made.ports {
		made.add(connection, names.dnat, isTo(embedded), isProtocol(protocol), isQuery, dnatTo(port))
		made.add(connection, names.snat, isFrom(embedded), isProtocol(protocol), isFromPort(port), snatTo53)
	}
	return made
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

const (
	noTCP = "the rule that leads tcp to the engine's resolver is missing"
	noUDP = "the rule that leads udp to the engine's resolver is missing"
)

// The redirect of each of the engine's firewall backends is known, and every change of it is told.
func TestRedirect(t *testing.T) {
	for backend, names := range backends {
		udpTo := func(port uint16) []expr.Any {
			return slices.Concat(isTo(embedded), isProtocol(unix.IPPROTO_UDP), isQuery, dnatTo(port))
		}
		rule := func(chain, words string) string {
			return fmt.Sprintf("nftables rule ip %s %s: %s is not ours", names.table, chain, words)
		}
		const elsewhere = "protocol udp, to 127.0.0.11, to port 53, dnat to 127.0.0.11:9"
		pointless := []string{ // rules for ports that nothing chooses
			rule(names.snat, "from 127.0.0.11, from port 35589, protocol tcp, snat to :53"),
			rule(names.snat, "from 127.0.0.11, from port 40381, protocol udp, snat to :53"),
		}
		for name, each := range map[string]struct {
			further nftables.ChainPriority
			change  func(*nftables.Conn, engineRedirect) error
			found   []string
		}{
			"as the engine adds it": {},
			"no rule that chooses the ports": {
				change: func(c *nftables.Conn, r engineRedirect) error { c.FlushChain(r.chain[names.dnat]); return nil },
				found:  append(pointless, noTCP, noUDP),
			},
			"no rule that restores the port": {
				change: func(c *nftables.Conn, r engineRedirect) error { c.FlushChain(r.chain[names.snat]); return nil },
				found:  []string{noTCP, noUDP},
			},
			"another port first": {
				change: func(c *nftables.Conn, r engineRedirect) error {
					c.InsertRule(r.rule(names.dnat, udpTo(9)))
					return nil
				},
				found: []string{
					noUDP,
					rule(names.dnat, "protocol udp, to 127.0.0.11, to port 53, dnat to 127.0.0.11:40381"), pointless[1],
				},
			},
			"another port afterwards": {
				change: func(c *nftables.Conn, r engineRedirect) error { r.add(c, names.dnat, udpTo(9)); return nil },
				found:  []string{rule(names.dnat, elsewhere)},
			},
			"another address": {
				change: func(c *nftables.Conn, r engineRedirect) error {
					other := udpTo(40381)
					other[len(other)-3] = &expr.Immediate{Register: registerOne, Data: nettest.Private.AsSlice()}
					c.InsertRule(r.rule(names.dnat, other))
					return nil
				},
				found: []string{rule(names.dnat, "protocol udp, to 127.0.0.11, to port 53, dnat to 192.168.7.7:40381")},
			},
			"a rule that accepts first": {
				change: func(c *nftables.Conn, r engineRedirect) error {
					c.InsertRule(r.rule(names.output, verdict(expr.VerdictAccept)))
					return nil
				},
				found: []string{rule(names.output, "accept")},
			},
			"chains that are called later": {
				further: 7,
				found: []string{
					rule(names.output, "for nat at hook 3, priority -93"), rule(names.postrouting, "for nat at hook 4, priority 107"),
				},
			},
			"the table made dormant": {
				change: func(c *nftables.Conn, _ engineRedirect) error {
					return errors.Join(c.Flush(), makeDormant(names.table))
				},
				found: []string{fmt.Sprintf("nftables rule ip %s: flags 1 is not ours", names.table)},
			},
		} {
			t.Run(backend+"/"+name, func(t *testing.T) {
				nettest.InNetwork(t)
				connection, err := nftables.New()
				if err != nil {
					t.Fatal(err)
				}
				made := redirectAs(connection, backend, each.further)
				if err := connection.Flush(); err != nil {
					t.Fatal(err)
				}
				if each.change != nil {
					if err := errors.Join(each.change(connection, made), connection.Flush()); err != nil {
						t.Fatal(err)
					}
				}
				sibling := nettest.NewSibling()
				sibling.Resolver = &embedded
				found, err := filterDifferences(sibling, nil)
				slices.Sort(found)
				slices.Sort(each.found)
				if err != nil || !slices.Equal(found, each.found) {
					t.Errorf("got\n%s\nwanted\n%s\n%v", strings.Join(found, "\n"), strings.Join(each.found, "\n"), err)
				}
			})
		}
	}
}

// Parts of both backends' redirects lead nothing, even where they have all the rules of one together.
func TestRedirectOfTwoHalves(t *testing.T) {
	nettest.InNetwork(t)
	connection, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	connection.FlushChain(redirectAs(connection, "iptables", 0).chain["OUTPUT"])
	connection.FlushChain(redirectAs(connection, "nftables", 0).chain["dns-dnat"])
	if err := connection.Flush(); err != nil {
		t.Fatal(err)
	}
	sibling := nettest.NewSibling()
	sibling.Resolver = &embedded
	found, err := filterDifferences(sibling, nil)
	if err != nil || !slices.Contains(found, noTCP) || !slices.Contains(found, noUDP) {
		t.Errorf("got %q, %v", found, err)
	}
}

// A sibling without the engine's resolver has no redirect.
func TestRedirectOfNobody(t *testing.T) {
	nettest.InNetwork(t)
	connection, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	redirectAs(connection, "nftables", 0)
	if err := connection.Flush(); err != nil {
		t.Fatal(err)
	}
	found, err := filterDifferences(nettest.NewSibling(), nil)
	if err != nil || len(found) != 4 {
		t.Errorf("got %q, %v", found, err)
	}
}
