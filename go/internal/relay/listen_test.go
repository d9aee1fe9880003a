package relay

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"clawker-fw/internal/kernel"
	"clawker-fw/internal/must"
	"clawker-fw/internal/nettest"
	"clawker-fw/internal/statussocket"
)

// inNamespace returns a relay's settings in a new network, between an agent and the publishing network's gateway.
func inNamespace(t *testing.T) Settings {
	t.Helper()
	nettest.InNetwork(t)
	return Settings{
		OnAgents:     netip.PrefixFrom(nettest.OnAgents, nettest.AgentNet.Bits()),
		OnPublishing: netip.PrefixFrom(nettest.Primary, nettest.EgressNet.Bits()),
		Agent:        nettest.Agent,
		Ports:        []uint16{8080},
	}
}

func try(place netip.AddrPort, within time.Duration) error {
	connection, err := net.DialTimeout("tcp4", place.String(), within)
	if err == nil {
		connection.Close()
	}
	return err
}

// Limits for connections that must succeed, and for those that must not.
const (
	soon    = 10 * time.Second
	notSoon = time.Second
)

// The gateway of the publishing network can connect. An agent can't, at either address, even without the relay's
// table: the kernel refuses it, even if it routes packets for the publishing network to the relay. Nothing that it
// routes through the relay reaches the other network.
func TestOnlyThePublishingNetworkConnects(t *testing.T) {
	settings := inNamespace(t)
	network := settings.Network()
	network.Apart = nil
	must.Succeed(t, kernel.Shape(network))
	sockets := must.Get[[]int](t)(settings.Listen())
	listening := must.Get[[]net.Listener](t)(listeners([]string{strconv.Itoa(sockets[0])}))
	defer listening[0].Close()
	asAgent := nettest.Moved(t, "agents-end", nettest.AgentNet, nettest.Agent)
	asGateway := nettest.Moved(t, "egress-end", nettest.EgressNet, nettest.Gateway, nettest.World)
	published := netip.AddrPortFrom(nettest.Primary, 8080)
	asGateway(func() {
		if err := try(published, soon); err != nil {
			t.Errorf("from the publishing network: %v", err)
		}
	})
	var beyond net.Addr
	asGateway(func() { must.Succeed(t, netlink.LinkSetUp(nettest.Link(t, "lo"))) })
	asGateway(func() { beyond = nettest.ServeAt(t, "tcp4", nettest.World.String()+":0", func(net.Conn) {}) })
	asGateway(func() {
		if err := try(beyond.(*net.TCPAddr).AddrPort(), soon); err != nil {
			t.Errorf("the witness does not listen: %v", err)
		}
	})
	asAgent(func() {
		if err := try(netip.AddrPortFrom(nettest.OnAgents, 8080), soon); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("an agent at the agents' address: %v", err)
		}
		through := &netlink.Route{
			Gw: nettest.OnAgents.AsSlice(), Dst: kernel.IPNet(netip.MustParsePrefix("0.0.0.0/0")),
			LinkIndex: nettest.Link(t, "agents-end").Attrs().Index, Flags: int(netlink.FLAG_ONLINK),
		}
		must.Succeed(t, netlink.RouteAdd(through))
		if err := try(published, soon); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("an agent at the published address: %v", err)
		}
		for _, place := range []netip.AddrPort{beyond.(*net.TCPAddr).AddrPort(), netip.AddrPortFrom(nettest.Gateway, beyond.(*net.TCPAddr).AddrPort().Port())} {
			if err := try(place, notSoon); err == nil {
				t.Errorf("an agent reached %s through the relay", place)
			}
		}
	})
}

// A relay exchanges packets only with its agent and the gateway: other relays and agents reach none of its
// addresses, and it reaches none of theirs. Its agent can't connect to it, and may send only TCP segments.
func TestARelayIsKeptApart(t *testing.T) {
	settings := inNamespace(t)
	anotherAgent, anotherRelay := nettest.Agent.Next(), nettest.Primary.Next()
	asAgents := nettest.Moved(t, "agents-end", nettest.AgentNet, nettest.Agent, anotherAgent)
	asPublishing := nettest.Moved(t, "egress-end", nettest.EgressNet, nettest.Gateway, anotherRelay)
	echo := func(connection net.Conn) { connection.Close() }
	var served []netip.AddrPort
	listen := func(address netip.Addr) {
		served = append(served, nettest.ServeAt(t, "tcp4", address.String()+":0", echo).(*net.TCPAddr).AddrPort())
	}
	asAgents(func() { listen(anotherAgent) })
	asPublishing(func() { listen(anotherRelay) })
	here := nettest.ServeAt(t, "tcp4", "0.0.0.0:0", echo).(*net.TCPAddr).AddrPort().Port()
	heard := make(chan netip.AddrPort, 16)
	datagrams, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.IPv4Unspecified(), here)))
	must.Succeed(t, err)
	defer datagrams.Close()
	go func() {
		for {
			_, from, err := datagrams.ReadFromUDPAddrPort(make([]byte, 1))
			if err != nil {
				return
			}
			heard <- from
		}
	}()
	begins := func(from, to netip.Addr) bool {
		dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: notSoon}
		connection, err := dialer.Dial("tcp4", netip.AddrPortFrom(to, here).String())
		if err == nil {
			connection.Close()
		}
		return err == nil
	}
	sends := func(from netip.Addr) {
		socket, err := net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)),
			net.UDPAddrFromAddrPort(netip.AddrPortFrom(nettest.OnAgents, here)))
		must.Succeed(t, err)
		defer socket.Close()
		_, err = socket.Write([]byte("x"))
		must.Succeed(t, err)
	}
	attempts := func() []bool {
		var reached []bool
		asAgents(func() {
			reached = append(reached, begins(anotherAgent, nettest.OnAgents), begins(nettest.Agent, nettest.OnAgents))
			sends(nettest.Agent)
		})
		asPublishing(func() { reached = append(reached, begins(anotherRelay, nettest.Primary)) })
		for _, place := range served {
			reached = append(reached, try(place, notSoon) == nil)
		}
		select {
		case <-heard:
			return append(reached, true)
		case <-time.After(notSoon):
			return append(reached, false)
		}
	}
	network := settings.Network()
	network.Apart = nil
	must.Succeed(t, kernel.Shape(network))
	must.Happen(t, "all of this gets through without the table", func() bool { return !slices.Contains(attempts(), false) })
	for len(heard) > 0 {
		<-heard
	}
	must.Succeed(t, kernel.Shape(settings.Network()))
	if got := attempts(); slices.Contains(got, true) {
		t.Errorf("this gets through: %v", got)
	}
	asPublishing(func() {
		if !begins(nettest.Gateway, nettest.Primary) {
			t.Error("the gateway does not get through")
		}
	})
	var agent netip.AddrPort
	asAgents(func() {
		agent = nettest.ServeAt(t, "tcp4", nettest.Agent.String()+":0", echo).(*net.TCPAddr).AddrPort()
	})
	if err := try(agent, soon); err != nil {
		t.Errorf("the relay does not reach its agent: %v", err)
	}
}

// A relay without its table has a difference.
func TestTheTableIsCompared(t *testing.T) {
	settings := inNamespace(t)
	must.Succeed(t, kernel.Shape(settings.Network()))
	before := kernel.Differences(settings.Network())
	connection := must.Get[*nftables.Conn](t)(nftables.New())
	connection.DelTable(&nftables.Table{Name: "clawker-fw", Family: nftables.TableFamilyIPv4})
	must.Succeed(t, connection.Flush())
	got := kernel.Differences(settings.Network())
	if slices.ContainsFunc(before, func(text string) bool { return strings.Contains(text, "nftables") }) || len(got) <= len(before) {
		t.Errorf("%q, then %q", before, got)
	}
}

// A relay has no route beyond its networks, unless it may answer beyond the publishing network.
func TestRoutes(t *testing.T) {
	settings := inNamespace(t)
	hasDefault := func() bool {
		routes := must.Get[[]netlink.Route](t)(netlink.RouteList(nil, netlink.FAMILY_V4))
		return slices.ContainsFunc(routes, func(route netlink.Route) bool {
			return route.Gw != nil && route.Gw.Equal(nettest.Gateway.AsSlice())
		})
	}
	gateway := nettest.Gateway
	settings.Gateway = &gateway
	must.Succeed(t, kernel.Shape(settings.Network()))
	if !hasDefault() {
		t.Error("it has no way to answer")
	}
	settings.Gateway = nil
	must.Succeed(t, kernel.Shape(settings.Network()))
	if hasDefault() {
		t.Error("it has a way out")
	}
}

// Differences inside are reported: in the network, and ports without a listener.
func TestInspection(t *testing.T) {
	settings := inNamespace(t)
	must.Succeed(t, kernel.Shape(settings.Network()))
	before, err := settings.Inspect() // the ends of both networks are here as well, and there is no resolver of an engine
	if err != nil || !slices.Equal(before.Closed, []uint16{8080}) {
		t.Errorf("before it listens: %+v, %v", before, err)
	}
	must.Get[[]int](t)(settings.Listen())
	if report, err := settings.Inspect(); err != nil || len(report.Closed) != 0 || !slices.Equal(report.Network, before.Network) {
		t.Errorf("%+v, %v", report, err)
	}
	route := &netlink.Route{Gw: nettest.Gateway.AsSlice(), Dst: kernel.IPNet(netip.MustParsePrefix("0.0.0.0/0"))}
	must.Succeed(t, netlink.RouteAdd(route))
	report, err := settings.Inspect()
	if err != nil || len(report.Network) != len(before.Network)+1 || !strings.Contains(strings.Join(report.Network, "\n"), "route default via 10.214.0.1") {
		t.Errorf("with a way out: %+v, %v", report, err)
	}
}

// A program that answers is alive. A missing or hung one is not, and neither is one with another answer.
func TestWhetherAlive(t *testing.T) {
	const within = 200 * time.Millisecond
	if err := askWhetherAlive(within); err == nil {
		t.Error("nobody is there, and answers")
	}
	for answer, alive := range map[any]bool{"ok": true, 1: false, nil: false} {
		listener := must.Get[net.Listener](t)(net.Listen("unix", aliveAt))
		if answer != nil {
			go statussocket.Tell(listener, func() any { return answer })
		}
		if err := askWhetherAlive(within); (err == nil) != alive {
			t.Errorf("%v: %v", answer, err)
		}
		listener.Close()
	}
}

// A relay's arguments are parsed, and invalid ones are refused.
func TestWords(t *testing.T) {
	read, err := Parse(strings.Fields("10.213.1.128/23 10.214.1.128/24 10.214.1.1 10.213.1.129 80 443"))
	if err != nil || read.Gateway == nil || read.Agent.String() != "10.213.1.129" || !slices.Equal(read.Ports, []uint16{80, 443}) {
		t.Errorf("%+v, %v", read, err)
	}
	if read, err := Parse(strings.Fields("10.213.1.128/23 10.214.1.128/24 - 10.213.1.129 80")); err != nil || read.Gateway != nil {
		t.Errorf("%+v, %v", read, err)
	}
	for _, wrong := range []string{
		"", "10.213.1.128/23 10.214.1.128/24 - 10.213.1.129", "10.213.1.128 10.214.1.128/24 - 10.213.1.129 80",
		"10.213.1.128/23 10.214.1.128/24 - 192.0.2.1 80", "10.213.1.128/23 10.214.1.128/24 x 10.213.1.129 80",
		"10.213.1.128/23 10.214.1.128/24 - 10.213.1.129 0", "10.213.1.128/23 10.214.1.128/24 - 10.213.1.129 65536",
	} {
		if _, err := Parse(strings.Fields(wrong)); err == nil {
			t.Errorf("%q was read", wrong)
		}
	}
}
