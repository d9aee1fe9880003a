package kernel

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"clawker-fw/internal/must"
	"clawker-fw/internal/nettest"
)

// A connection to a host rests once the host has answered, and its program sees an orderly close. Other
// connections are ignored.
func TestConnections(t *testing.T) {
	nettest.InNetwork(t)
	rule := netlink.NewRule()
	rule.Src, rule.Table, rule.Priority = &net.IPNet{IP: net.IPv4(127, 0, 0, 2), Mask: net.CIDRMask(32, 32)}, 255, 1
	must.Succeed(t, netlink.RuleAdd(rule))
	sources := must.Get[map[string]bool](t)(Sources())
	listener := must.Get[net.Listener](t)(net.Listen("tcp4", "127.0.0.1:0"))
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	program := must.Get[net.Conn](t)(dialer.Dial("tcp4", listener.Addr().String()))
	host := must.Get[net.Conn](t)(listener.Accept())
	defer host.Close()
	say := func(from, to net.Conn) {
		must.Get[int](t)(from.Write([]byte("x")))
		must.Get[int](t)(io.ReadFull(to, make([]byte, 1)))
		time.Sleep(100 * time.Millisecond)
	}
	seen := func() Connection {
		connections := must.Get[map[Cookie]Connection](t)(Connections(sources))
		for _, connection := range connections {
			if len(connections) == 1 {
				return connection
			}
		}
		t.Fatalf("saw %v", connections)
		return Connection{}
	}
	say(program, host)
	if waiting := seen(); waiting.Rest != 0 || waiting.Sent != 1 || waiting.Received != 0 {
		t.Errorf("while the host is asked: %+v", waiting)
	}
	say(host, program)
	rested := seen()
	if rested.Rest < 50*time.Millisecond || rested.Received != 1 {
		t.Errorf("after the answer: %+v", rested)
	}
	must.Succeed(t, rested.Close())
	if _, err := program.Read(make([]byte, 1)); err == nil {
		t.Error("the program can still read")
	}
}
