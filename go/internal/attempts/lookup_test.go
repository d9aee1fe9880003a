package attempts

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"clawker-fw/internal/kernel"
	"clawker-fw/internal/must"
	"clawker-fw/internal/nettest"
)

// resolverAt returns a resolver that asks one server, whatever the host's files say.
func resolverAt(server string) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "udp", server)
	}}
}

// saying answers every query for an A record of a name with addresses, and with NXDOMAIN for any other name.
func saying(name string, addresses ...string) dns.HandlerFunc {
	return func(writer dns.ResponseWriter, query *dns.Msg) {
		question := query.Question[0]
		if question.Name != name || question.Qtype != dns.TypeA {
			nettest.Refusing(writer, query)
			return
		}
		reply := new(dns.Msg).SetReply(query)
		reply.Authoritative = true
		for _, address := range addresses {
			header := dns.RR_Header{Name: question.Name, Rrtype: question.Qtype, Class: question.Qclass}
			reply.Answer = append(reply.Answer, &dns.A{Hdr: header, A: net.ParseIP(address)})
		}
		_ = writer.WriteMsg(reply)
	}
}

// A lookup reports all addresses of the name itself, sorted and without duplicates, and ignores search domains.
func TestLookup(t *testing.T) {
	server := resolverAt(nettest.ServeDNS(t, "udp", saying("a.test.", "198.51.100.9", "198.51.100.7", "198.51.100.9")))

	got, err := Resolve(nil, server, "a.test")

	if err != nil || got.Error != "" || len(got.Addresses) != 2 {
		t.Fatalf("got %+v, %v", got, err)
	}
	if first, second := got.Addresses[0], got.Addresses[1]; first.Address != nettest.World ||
		second.Address != netip.MustParseAddr("198.51.100.9") || first.Closed == nil {
		t.Errorf("got %+v", got)
	}
	if got, err = Resolve(nil, server, "a"); err != nil || len(got.Addresses) > 0 {
		t.Errorf("got %+v, %v", got, err)
	}
}

// An address needs no query.
func TestLookupOfAnAddress(t *testing.T) {
	got, err := Resolve(nil, resolverAt("127.0.0.1:9"), "198.51.100.7")
	if err != nil || got.Error != "" || len(got.Addresses) != 1 || got.Addresses[0].Address != nettest.World {
		t.Errorf("got %+v, %v", got, err)
	}
}

// A name without an address is reported with the reason, without the resolver's address.
func TestLookupOfNothing(t *testing.T) {
	nobody := nettest.ServeDNS(t, "udp", saying("a.test."))
	broken := nettest.ServeDNS(t, "udp", nettest.Answering(dns.RcodeServerFailure))
	for server, want := range map[string]string{
		nobody: "no such name, or none with an IPv4 address", broken: "server misbehaving",
	} {
		for _, name := range []string{"a.test", "b.test"} {
			got, err := Resolve(nil, resolverAt(server), name)
			if err != nil || got.Addresses == nil || len(got.Addresses) > 0 || got.Error != want {
				t.Errorf("%s: got %+v, %v", name, got, err)
			}
		}
	}
}

// The kernel knows which sources reach an address: both reach the world, only the exempt one private addresses,
// and neither loopback, agents or Envoy itself.
func TestClosedTo(t *testing.T) {
	nettest.InNetwork(t)
	must.Succeed(t, kernel.Shape(nettest.NewSibling()))
	for _, test := range []struct {
		address netip.Addr
		closed  string
	}{
		{nettest.World, ""},
		{nettest.Private, "guarded"},
		{nettest.Gateway, "guarded"},
		{netip.MustParseAddr("10.99.0.1"), "guarded"},
		{netip.MustParseAddr("169.254.169.254"), "guarded exempt"},
		{nettest.Loopback, "guarded exempt"},
		{nettest.Agent, "guarded exempt"},
		{nettest.Exempt, "guarded exempt"},
		{netip.MustParseAddr("0.0.0.0"), "guarded exempt"},
	} {
		closed, err := closedTo(nettest.NewSibling().Tables, test.address)
		if err != nil || !slices.Equal(closed, strings.Fields(test.closed)) {
			t.Errorf("%s: got %q, %v", test.address, closed, err)
		}
	}
}

// A missing source reaches nothing.
func TestClosedToAMissingSource(t *testing.T) {
	nettest.InNetwork(t)
	if closed, err := closedTo(nettest.NewSibling().Tables, nettest.World); err != nil || !slices.Equal(closed, []string{"guarded", "exempt"}) {
		t.Errorf("got %q, %v", closed, err)
	}
}
