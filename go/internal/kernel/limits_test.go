package kernel

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/must"
	"clawker-fw/internal/nettest"
)

func echoes(connection net.Conn) error {
	if err := connection.SetDeadline(time.Now().Add(3 * time.Second)); err != nil {
		return err
	}
	if _, err := connection.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(connection, make([]byte, 1))
	return err
}

func canDial(from netip.Addr, port int) bool {
	connection, err := dialFrom(from, port)
	if err == nil {
		connection.Close()
	}
	return err == nil
}

// An agent at its limit of connections gets no further one. Its older ones and those of another agent continue,
// and when one of its own ends there is room again.
func TestConnectionsAtOnceAreLimited(t *testing.T) {
	asAgent := nettest.LimitedSibling(t, nettest.SmallLimits(), Shape)
	port := serveEcho(t, "0.0.0.0:0")

	asAgent(func() {
		begun := time.Now()
		opened, refused := dialMany(t, nettest.Agent, port, 8)
		if len(opened) != 5 || refused != 3 || time.Since(begun) > time.Second {
			t.Fatalf("%d opened, %d refused, in %s", len(opened), refused, time.Since(begun))
		}
		others, refused := dialMany(t, nettest.OtherAgent, port, 5)
		if refused != 0 {
			t.Errorf("%d of another agent's were refused", refused)
		}
		for _, connection := range slices.Concat(opened, others) {
			if err := echoes(connection); err != nil {
				t.Errorf("%s: %v", connection.LocalAddr(), err)
			}
		}
		opened[0].Close()
		must.Happen(t, "room again", func() bool { return canDial(nettest.Agent, port) })
	})
}

// closeWait is the number of seconds for which the kernel's table remembers a half-closed connection after its
// last packet.
const closeWait = "net.netfilter.nf_conntrack_tcp_timeout_close_wait"

func rememberFor(t *testing.T, seconds int) {
	t.Helper()
	path := filepath.Join(SystemSettings, strings.ReplaceAll(closeWait, ".", "/"))
	if err := os.WriteFile(path, []byte(strconv.Itoa(seconds)), 0); err != nil {
		t.Fatal("this needs settings of the kernel that can be written: ", err)
	}
}

// A half-closed connection counts while the program holds it, because keepalive refreshes the kernel's entry.
// Without that, the kernel would forget it.
func TestHalfClosedConnectionsCount(t *testing.T) {
	asAgent := nettest.LimitedSibling(t, nettest.SmallLimits(), Shape)
	rememberFor(t, 2)
	asked := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second}}
	never := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: false}, KeepAlive: -1}
	for listening, want := range map[*net.ListenConfig]int{&asked: 0, &never: 5} {
		listener := must.Get[net.Listener](t)(listening.Listen(t.Context(), "tcp4", "0.0.0.0:0"))
		held := make(chan net.Conn, 100)
		go func() {
			for {
				connection, err := listener.Accept()
				if err != nil {
					return
				}
				held <- connection
			}
		}()
		port := listener.Addr().(*net.TCPAddr).Port
		asAgent(func() {
			opened, _ := dialMany(t, nettest.Agent, port, 5)
			for _, connection := range opened {
				must.Succeed(t, connection.(*net.TCPConn).CloseWrite())
			}
			further := 0
			for end := time.Now().Add(time.Duration(5+3*want) * time.Second); further < 5 && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
				if more, err := dialFrom(nettest.Agent, port); err == nil {
					t.Cleanup(func() { more.Close() })
					further++
				}
			}
			if further != want {
				t.Errorf("%d further ones, expected %d", further, want)
			}
			for _, connection := range opened {
				connection.(*net.TCPConn).SetLinger(0)
				connection.Close()
			}
		})
		listener.Close()
		for len(held) > 0 {
			connection := <-held
			connection.(*net.TCPConn).SetLinger(0)
			connection.Close()
		}
	}
}

// A half-closed connection whose agent does not read counts too. Keepalive does not run then: the kernel probes
// the agent's window, at intervals up to two minutes, and the table remembers longer.
func TestHalfClosedConnectionsThatAreNotReadCount(t *testing.T) {
	asAgent := nettest.LimitedSibling(t, nettest.SmallLimits(), Shape)
	place := nettest.ServeAt(t, "tcp4", "0.0.0.0:0", func(connection net.Conn) { _, _ = connection.Write(make([]byte, 16<<20)) })
	port := place.(*net.TCPAddr).Port
	further := func(from netip.Addr) (count int) {
		asAgent(func() {
			opened, _ := dialMany(t, from, port, 5)
			for _, connection := range opened {
				must.Succeed(t, connection.(*net.TCPConn).CloseWrite())
			}
			for end := time.Now().Add(4 * time.Second); count < 5 && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
				if more, err := dialFrom(from, port); err == nil {
					t.Cleanup(func() { more.Close() })
					count++
				}
			}
		})
		return count
	}
	if got, err := readSetting(closeWait); err != nil || got != "150" {
		t.Fatalf("%s is %q, %v", closeWait, got, err)
	}
	if count := further(nettest.Agent); count != 0 {
		t.Errorf("%d further ones", count)
	}
	rememberFor(t, 1)
	if count := further(nettest.OtherAgent); count != 5 {
		t.Errorf("%d further ones of 5 that a table forgets which remembers for a second", count)
	}
}

// An ended connection, by a reset or not, is in the table for two seconds: it no longer counts, and would fill the
// table.
func TestEndedConnectionsAreForgotten(t *testing.T) {
	limits := nettest.SmallLimits()
	limits.ConnectionsPerSecond, limits.Connections, limits.AllConnections = 1000, 100, 1000
	asAgent := nettest.LimitedSibling(t, limits, Shape)
	port := serveEcho(t, "0.0.0.0:0")
	for _, linger := range []int{-1, 0} {
		var opened []net.Conn
		asAgent(func() { opened, _ = dialMany(t, nettest.Agent, port, 50) })
		if tracked := trackedConnections(t); len(opened) != 50 || tracked < 50 {
			t.Fatalf("%d are open, %d tracked", len(opened), tracked)
		}
		for _, connection := range opened {
			_ = connection.(*net.TCPConn).SetLinger(linger)
			connection.Close()
		}
		// A listing leaves out expired entries and removes them. Otherwise the kernel does so at its next visit.
		must.Happen(t, "an empty table", func() bool {
			listed := must.Get[[]*netlink.ConntrackFlow](t)(netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET))
			return len(listed) == 0 && trackedConnections(t) == 0
		})
	}
}

// The timeout of half-closed connections is compared.
func TestForgettingHalfClosedConnectionsDiffers(t *testing.T) {
	nettest.InNetwork(t)
	sibling, limits := nettest.NewSibling(), nettest.SmallLimits()
	sibling.Limits = &limits
	must.Succeed(t, Shape(sibling))
	expectDifferences(t, sibling)
	rememberFor(t, 60)
	expectDifferences(t, sibling, "half closed connections are counted for 60 s without a packet, not 150")
}

// Private addresses, and private ports at each address, look closed to agents, although there is a listener. Only
// addresses without limits may connect, at any rate. The other ports are open to agents.
func TestPrivatePlacesAreClosedToAgents(t *testing.T) {
	for name, limit := range map[string]func(*boot.Limits){
		"address": func(l *boot.Limits) { l.Private = []netip.Addr{netip.MustParseAddr("10.213.8.31"), nettest.OnAgents} },
		"port":    func(l *boot.Limits) { l.PrivatePort = 5380 },
	} {
		t.Run(name, func(t *testing.T) {
			limits := nettest.SmallLimits()
			limit(&limits)
			asAgent := nettest.LimitedSibling(t, limits, Shape)
			private, other := serveEcho(t, "0.0.0.0:5380"), serveEcho(t, "0.0.0.0:5381")

			asAgent(func() {
				if opened, refused := dialMany(t, nettest.Agent, private, 3); len(opened) != 0 || refused != 3 {
					t.Errorf("an agent: %d opened, %d refused", len(opened), refused)
				}
				opened, refused := dialMany(t, nettest.Agent, other, 3)
				if isOpen := limits.PrivatePort != 0; (len(opened) == 3) != isOpen || (refused == 3) == isOpen {
					t.Errorf("an agent at another port: %d opened, %d refused", len(opened), refused)
				}
				opened, refused = dialMany(t, limits.Except[0], private, 2*limits.Connections)
				if len(opened) != 2*limits.Connections || refused != 0 {
					t.Fatalf("one without limits: %d opened, %d refused", len(opened), refused)
				}
				for _, connection := range opened {
					if err := echoes(connection); err != nil {
						t.Error(err)
					}
				}
			})
		})
	}
}

// All agents together can't have more connections than fit into the container's memory. The last quarter is for
// agents with few: the heaviest agent can't use it, and its older connections continue.
func TestConnectionsOfAllAgentsAreLimited(t *testing.T) {
	limits := nettest.SmallLimits()
	limits.Connections, limits.AllConnections = 200, 4*fewShare
	few, kept := 4, fewShare
	third := netip.MustParseAddr("10.213.0.9")
	limits.Except = append(limits.Except, third) // for an address there; it is an agent like the others
	asAgent := nettest.LimitedSibling(t, limits, Shape)
	limits.Except = limits.Except[:1]
	must.Succeed(t, newLimitFilter(limits).installWithSix())
	port := serveEcho(t, "0.0.0.0:0")

	asAgent(func() {
		heavy, refused := dialMany(t, nettest.Agent, port, 200)
		if len(heavy) != 4*fewShare-kept || refused != 200-len(heavy) {
			t.Fatalf("the heaviest: %d opened, %d refused", len(heavy), refused)
		}
		for _, address := range []netip.Addr{nettest.OtherAgent, third} {
			light, refused := dialMany(t, address, port, few+1)
			if len(light) != few || refused != 1 {
				t.Errorf("%s: %d opened, %d refused", address, len(light), refused)
			}
		}
		if opened, _ := dialMany(t, nettest.Agent, port, 3); len(opened) != 0 {
			t.Errorf("%d more of the heaviest", len(opened))
		}
		for _, connection := range heavy {
			if err := echoes(connection); err != nil {
				t.Fatalf("an older one: %v", err)
			}
		}
		for _, connection := range heavy[:50] {
			connection.Close()
		}
		must.Happen(t, "room again", func() bool { return canDial(nettest.OtherAgent, port) })
	})
}

// The reserve for agents with few connections is limited too.
func TestConnectionsOfManyAgentsAreLimited(t *testing.T) {
	limits := nettest.SmallLimits()
	limits.AllConnections = 4 // of which one is kept, for agents with one at most
	asAgent := nettest.LimitedSibling(t, limits, Shape)
	port := serveEcho(t, "0.0.0.0:0")

	asAgent(func() {
		if opened, refused := dialMany(t, nettest.Agent, port, 5); len(opened) != 3 || refused != 2 {
			t.Fatalf("%d opened, %d refused", len(opened), refused)
		}
		if opened, refused := dialMany(t, nettest.OtherAgent, port, 3); len(opened) != 1 || refused != 2 {
			t.Errorf("%d opened, %d refused", len(opened), refused)
		}
	})
}

// An agent beyond its rate of new connections gets no answer at first, and one later; another agent's connections
// are opened.
func TestNewConnectionsAreLimited(t *testing.T) {
	limits := nettest.SmallLimits()
	limits.Connections, limits.ConnectionsPerSecond = 100, 5
	asAgent := nettest.LimitedSibling(t, limits, Shape)
	port := serveEcho(t, "0.0.0.0:0")

	asAgent(func() {
		opened, silent := 0, 0
		for begun := time.Now(); silent == 0 && time.Since(begun) < 3*time.Second; {
			if connection, err := dialWithin(200*time.Millisecond, nettest.Agent, port); err == nil {
				t.Cleanup(func() { connection.Close() })
				opened++
			} else if os.IsTimeout(err) {
				silent++
			} else {
				t.Fatal(err)
			}
		}
		if opened < connectionBurst*5 || silent == 0 {
			t.Errorf("%d opened, %d silent", opened, silent)
		}
		if _, refused := dialMany(t, nettest.OtherAgent, port, 10); refused != 0 {
			t.Errorf("%d of another agent's were refused", refused)
		}
		late := must.Get[net.Conn](t)(dialWithin(5*time.Second, nettest.Agent, port))
		late.Close()
	})
}

// The rate of all agents' new connections and sessions to hosts is limited. Dropped ones are not tracked, and
// agents still get answers.
func TestNewConnectionsToHostsAreLimited(t *testing.T) {
	limits := nettest.SmallLimits()
	limits.ConnectionsPerSecond = 2
	asAgent := nettest.LimitedSibling(t, limits, Shape)
	port := serveEcho(t, "0.0.0.0:0")
	host := &net.UDPAddr{IP: nettest.Gateway.AsSlice(), Port: 9}
	most, passed := leavingShare*connectionBurst*limits.ConnectionsPerSecond, 0
	for range 3 * most {
		connection := must.Get[*net.UDPConn](t)(net.DialUDP("udp4", nil, host))
		if _, err := connection.Write([]byte("x")); err == nil {
			passed++
		}
		connection.Close()
	}
	if tracked := trackedConnections(t); passed < most || passed > most+most/4 || tracked > passed {
		t.Errorf("%d of %d passed, %d are tracked", passed, 3*most, tracked)
	}
	asAgent(func() {
		if !canDial(nettest.Agent, port) {
			t.Error("an agent is not answered")
		}
	})
	if _, err := net.DialTimeout("tcp4", nettest.Gateway.String()+":9", 100*time.Millisecond); !os.IsTimeout(err) {
		t.Errorf("another connection to a host: %v", err)
	}
}

// While eight agents connect as fast as they can, a ninth can connect at once.
func TestACalmAgentBeginsConnectionsBesideBusyOnes(t *testing.T) {
	limits := nettest.SmallLimits()
	limits.Connections, limits.ConnectionsPerSecond, limits.QueriesPerSecond, limits.DatagramsPerSecond = 1000, 100, 0, 10_000
	own, busy := len(limits.Except), netip.MustParseAddr("10.213.0.16")
	for range 8 {
		limits.Except, busy = append(limits.Except, busy), busy.Next() // for addresses there; they are agents like the others
	}
	asAgent := nettest.LimitedSibling(t, limits, Shape)
	agents := limits.Except[own:]
	limits.Except = limits.Except[:own]
	must.Succeed(t, newLimitFilter(limits).installWithSix())
	port := serveEcho(t, "0.0.0.0:0")

	begun := time.Now()
	asAgent(func() {
		for range 200 {
			for _, agent := range agents {
				dialer := net.Dialer{LocalAddr: &net.UDPAddr{IP: agent.AsSlice()}}
				connection := must.Get[net.Conn](t)(dialer.Dial("udp4", netip.AddrPortFrom(nettest.OnAgents, 9).String()))
				_, _ = connection.Write([]byte("x"))
				connection.Close()
			}
		}
		dialMany(t, nettest.OtherAgent, port, 20) // fails if one has no answer
	})
	shares := 8*limits.ConnectionsPerSecond/calmPart + limits.ConnectionsPerSecond
	if most := shares*(connectionBurst+int(time.Since(begun).Seconds()+1)) + 20; trackedConnections(t) > most {
		t.Errorf("%d are tracked, and %d is the most", trackedConnections(t), most)
	}
}

// Our own addresses have no limits.
func TestOurOwnAreNotLimited(t *testing.T) {
	limits := nettest.SmallLimits()
	limits.ConnectionsPerSecond = 1
	asAgent := nettest.LimitedSibling(t, limits, Shape)
	port := serveEcho(t, "0.0.0.0:0")
	openBriefly := func(from netip.Addr, within time.Duration) (opened int) {
		for range 20 {
			connection, err := dialWithin(within, from, port)
			if err == nil {
				connection.Close()
				opened++
			}
		}
		return opened
	}

	asAgent(func() {
		if opened := openBriefly(limits.Except[0], answerWithin); opened != 20 {
			t.Errorf("%d opened", opened)
		}
		if opened := openBriefly(nettest.Agent, 50*time.Millisecond); opened == 20 {
			t.Error("agents have none either")
		}
	})
}

// session sends a datagram from a new port, and returns the connection if the datagram comes back.
const (
	// answerWithin limits the wait for a required answer, generously for a busy machine.
	answerWithin = 3 * time.Second
	// silence is the wait for an answer to a dropped packet.
	silence = 300 * time.Millisecond
)

func session(t *testing.T, from netip.Addr, port int, wait time.Duration) (net.Conn, bool) {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.UDPAddr{IP: from.AsSlice()}}
	connection := must.Open[net.Conn](t)(dialer.Dial("udp4", netip.AddrPortFrom(nettest.OnAgents, uint16(port)).String()))
	return connection, comesBack(connection, wait)
}

func comesBack(connection net.Conn, wait time.Duration) bool {
	if _, err := connection.Write([]byte("x")); err != nil {
		return false
	}
	_ = connection.SetReadDeadline(time.Now().Add(wait))
	_, err := connection.Read(make([]byte, 1))
	return err == nil
}

// UDP sessions count as connections, of one agent and of all: the first datagram of one too many is dropped and
// not tracked. Existing sessions continue, and so does another agent.
func TestSessionsAreLimited(t *testing.T) {
	limits := nettest.SmallLimits()
	limits.QueriesPerSecond, limits.DatagramsPerSecond = 0, 10_000
	asAgent := nettest.LimitedSibling(t, limits, Shape)
	answerQueries(t)
	port := serveEcho(t, "0.0.0.0:0")

	asAgent(func() {
		connected, _ := dialMany(t, nettest.Agent, port, 1)
		var going []net.Conn
		for range 8 {
			wait := answerWithin
			if len(going) == 4 {
				wait = silence
			}
			if connection, answered := session(t, nettest.Agent, 53, wait); answered {
				going = append(going, connection)
			}
		}
		if len(connected) != 1 || len(going) != 4 {
			t.Errorf("%d sessions beside %d connections", len(going), len(connected))
		}
		if _, refused := dialMany(t, nettest.Agent, port, 1); refused != 1 {
			t.Error("another connection is opened")
		}
		for range 20 {
			for _, connection := range going {
				if !comesBack(connection, answerWithin) {
					t.Fatal("a session does not go on")
				}
			}
		}
		if _, answered := session(t, nettest.OtherAgent, 53, answerWithin); !answered {
			t.Error("another agent's is refused")
		}
	})
	if tracked := trackedConnections(t); tracked != 6 {
		t.Errorf("%d are tracked", tracked)
	}
	refused, err := RefusedSources()
	if err != nil || len(refused) != 1 || refused[0] != (Refused{Source: nettest.Agent, Connections: 5}) {
		t.Errorf("%v, %v", refused, err)
	}
}

// An agent beyond its rate of new sessions gets no answer, even without any listener.
func TestNewSessionsAreLimited(t *testing.T) {
	limits := nettest.SmallLimits()
	limits.QueriesPerSecond, limits.DatagramsPerSecond = 0, 10_000
	limits.Connections, limits.ConnectionsPerSecond = 100, 4
	asAgent := nettest.LimitedSibling(t, limits, Shape)

	asAgent(func() {
		for range 50 {
			connection, _ := net.DialUDP("udp4", &net.UDPAddr{IP: nettest.Agent.AsSlice()}, &net.UDPAddr{IP: nettest.OnAgents.AsSlice(), Port: 9})
			_, _ = connection.Write([]byte("x"))
			connection.Close()
		}
	})
	if tracked := trackedConnections(t); tracked < 5 || tracked > 10 {
		t.Errorf("%d are tracked", tracked)
	}
}

// Datagrams beyond an agent's rate are dropped and counted, even within a session; another agent's pass.
func TestDatagramsAreLimited(t *testing.T) {
	limits := nettest.SmallLimits()
	limits.QueriesPerSecond, limits.DatagramsPerSecond = 0, 100
	asAgent := nettest.LimitedSibling(t, limits, Shape)
	answerQueries(t)

	asAgent(func() {
		flood, answered := session(t, nettest.Agent, 53, answerWithin)
		other, too := session(t, nettest.OtherAgent, 53, answerWithin)
		if !answered || !too {
			t.Fatal("nothing is answered")
		}
		for range 300 {
			_, _ = flood.Write([]byte("x"))
		}
		answers := 0
		for _ = flood.SetReadDeadline(time.Now().Add(silence)); ; answers++ {
			if _, err := flood.Read(make([]byte, 1)); err != nil {
				break
			}
		}
		if answers < 5 || answers > 100 {
			t.Errorf("%d answers", answers)
		}
		if !comesBack(other, answerWithin) {
			t.Error("another agent is not answered")
		}
	})
	refused, err := RefusedSources()
	if err != nil || len(refused) != 1 || refused[0].Datagrams < 200 || refused[0].Queries+refused[0].Connections != 0 {
		t.Errorf("%v, %v", refused, err)
	}
}

// queryMany sends UDP queries from a new port each, and counts the answers. At least so many must arrive.
func queryMany(t *testing.T, from netip.Addr, count, mustCome int) (answers int) {
	t.Helper()
	var asked []net.Conn
	for range count {
		dialer := net.Dialer{LocalAddr: &net.UDPAddr{IP: from.AsSlice()}}
		connection := must.Get[net.Conn](t)(dialer.Dial("udp4", netip.AddrPortFrom(nettest.OnAgents, 53).String()))
		defer connection.Close()
		must.Get[int](t)(connection.Write([]byte("query")))
		asked = append(asked, connection)
	}
	deadline := time.Now().Add(answerWithin)
	for _, connection := range asked {
		if answers == mustCome {
			deadline, mustCome = time.Now().Add(silence), -1
		}
		_ = connection.SetReadDeadline(deadline)
		if _, err := connection.Read(make([]byte, 16)); err == nil {
			answers++
		}
	}
	return answers
}

func answerQueries(t *testing.T) {
	t.Helper()
	server := must.Open[net.PacketConn](t)(net.ListenPacket("udp4", "0.0.0.0:53"))
	go func() {
		for message := make([]byte, 16); ; {
			length, sender, err := server.ReadFrom(message)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(message[:length], sender)
		}
	}()
}

// Queries beyond an agent's rate get no answer, and those of another agent do. None is tracked as a connection.
func TestQueriesAreLimited(t *testing.T) {
	asAgent := nettest.LimitedSibling(t, nettest.SmallLimits(), Shape)
	answerQueries(t)

	asAgent(func() {
		if answers := queryMany(t, nettest.Agent, 100, 20); answers < 20 || answers > 60 {
			t.Errorf("%d answers", answers)
		}
		if answers := queryMany(t, nettest.OtherAgent, 5, 5); answers != 5 {
			t.Errorf("another agent got %d answers", answers)
		}
	})
	if tracked := trackedConnections(t); tracked != 0 {
		t.Errorf("%d are tracked", tracked)
	}
	asAgent(func() {
		must.Happen(t, "an answer again", func() bool { return queryMany(t, nettest.Agent, 1, 0) == 1 })
	})
}

func trackedConnections(t *testing.T) int {
	t.Helper()
	text := must.Get[[]byte](t)(os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count"))
	return must.Get[int](t)(strconv.Atoi(strings.TrimSpace(string(text))))
}

// Packets to closed UDP ports are not tracked, so an agent can't fill the table of connections; a TCP connection
// is.
func TestOnlyTCPIsTracked(t *testing.T) {
	asAgent := nettest.LimitedSibling(t, nettest.SmallLimits(), Shape)
	port := serveEcho(t, "0.0.0.0:0")

	asAgent(func() {
		for port := range 100 {
			connection := must.Get[net.Conn](t)(net.Dial("udp4", netip.AddrPortFrom(nettest.OnAgents, uint16(9000+port)).String()))
			_, _ = connection.Write([]byte("x"))
			connection.Close()
		}
	})
	if tracked := trackedConnections(t); tracked != 0 {
		t.Errorf("%d are tracked", tracked)
	}
	asAgent(func() { dialMany(t, nettest.Agent, port, 1) })
	if tracked := trackedConnections(t); tracked != 1 {
		t.Errorf("%d are tracked", tracked)
	}
}

// Over TCP, an agent's queries are slowed to its rate, however many a segment has; another agent's pass at once.
func TestQueriesOverTCPAreLimited(t *testing.T) {
	asAgent := nettest.LimitedSibling(t, nettest.SmallLimits(), Shape)
	port := serveEcho(t, "0.0.0.0:53")

	asAgent(func() {
		flood := must.Get[net.Conn](t)(dialFrom(nettest.Agent, port))
		defer flood.Close()
		go func() {
			for chunk := make([]byte, 4096); ; {
				if _, err := flood.Write(chunk); err != nil {
					return
				}
			}
		}()
		_ = flood.SetReadDeadline(time.Now().Add(time.Second))
		if came, _ := io.Copy(io.Discard, flood); came == 0 || came > 2*leastBurst {
			t.Errorf("%d octets passed", came)
		}
		other := must.Get[net.Conn](t)(dialFrom(nettest.OtherAgent, port))
		defer other.Close()
		if err := echoes(other); err != nil {
			t.Error(err)
		}
	})
}

// Limits that are installed again, as after a restart, have no differences.
func TestLimitsAreIdempotent(t *testing.T) {
	nettest.InNetwork(t)
	sibling := nettest.NewSibling()
	limits := nettest.SmallLimits()
	sibling.Limits = &limits
	for range 2 {
		must.Succeed(t, Shape(sibling))
		expectDifferences(t, sibling)
	}
	limits.QueriesPerSecond, limits.DatagramsPerSecond = 0, 50 // as for a sibling that is no resolver
	must.Succeed(t, Shape(sibling))
	expectDifferences(t, sibling)
}

// No IPv6 packet arrives or leaves, even with IPv6 on: our own table drops it.
func TestSixIsDropped(t *testing.T) {
	nettest.InNetwork(t)
	asNeighbour := nettest.Moved(t, "egress-end", nettest.EgressNet, nettest.Gateway)
	own, other := netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
	giveSix(t, "egress", own)
	asNeighbour(func() { giveSix(t, "egress-end", other) })
	if !arrivesOverSix(t, asNeighbour, own) {
		t.Fatal("nothing arrives without our table either: this test shows nothing")
	}
	limits := nettest.SmallLimits()
	must.Succeed(t, newLimitFilter(limits).installWithSix())
	if arrivesOverSix(t, asNeighbour, own) {
		t.Error("a datagram has arrived")
	}
	socket := must.Open[net.Conn](t)(net.Dial("udp6", netip.AddrPortFrom(other, 9).String()))
	if _, err := socket.Write([]byte("x")); !errors.Is(err, unix.EPERM) {
		t.Errorf("sending a datagram: %v", err)
	}
}

// giveSix turns IPv6 on for an interface of this network, and adds an address.
func giveSix(t *testing.T, name string, address netip.Addr) {
	t.Helper()
	setting := filepath.Join(SystemSettings, "net/ipv6/conf", name, "disable_ipv6")
	linkLocal := netlink.Addr{IPNet: &net.IPNet{IP: address.AsSlice(), Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD}
	must.Succeed(t, errors.Join(os.WriteFile(setting, []byte("0"), 0), netlink.AddrAdd(nettest.Link(t, name), &linkLocal)))
	must.Succeed(t, waitForLocalSix(address.String()+"/128"))
}

// arrivesOverSix reports whether a neighbour's datagrams arrive at an address of ours.
func arrivesOverSix(t *testing.T, asNeighbour func(func()), own netip.Addr) bool {
	t.Helper()
	socket := must.Open[*net.UDPConn](t)(net.ListenUDP("udp6", &net.UDPAddr{IP: own.AsSlice()}))
	for range 5 {
		asNeighbour(func() {
			out := must.Get[net.Conn](t)(net.Dial("udp6", socket.LocalAddr().String()))
			defer out.Close()
			_, _ = out.Write([]byte("x"))
		})
		must.Succeed(t, socket.SetReadDeadline(time.Now().Add(silence)))
		if _, err := socket.Read(make([]byte, 1)); err == nil {
			return true
		}
	}
	return false
}

// Refusals are counted for each source address. Sources that the kernel has added to the sets are no difference.
func TestRefusalsAreCounted(t *testing.T) {
	limits := nettest.SmallLimits()
	asAgent := nettest.LimitedSibling(t, limits, Shape)
	port := serveEcho(t, "0.0.0.0:0")
	answerQueries(t)
	if got, err := RefusedSources(); err != nil || len(got) != 0 {
		t.Errorf("before: %v, %v", got, err)
	}
	asAgent(func() {
		dialMany(t, nettest.Agent, port, 8)
		queryMany(t, nettest.OtherAgent, 100, 0)
	})
	got, err := RefusedSources()
	if err != nil || len(got) != 2 {
		t.Fatalf("%v, %v", got, err)
	}
	if got[0] != (Refused{Source: nettest.Agent, Connections: 3}) {
		t.Errorf("connections: %v", got[0])
	}
	expectFilter(t, limits)
	if other := got[1]; other.Source != nettest.OtherAgent || other.Connections != 0 || other.Queries < 40 || other.Queries > 80 {
		t.Errorf("queries: %v", other)
	}
}

// A source with another limit than its rule is reported: it keeps that limit while it sends.
func TestSourceWithAnotherLimit(t *testing.T) {
	limits := nettest.SmallLimits()
	asAgent := nettest.LimitedSibling(t, limits, Shape)
	answerQueries(t)
	connection := must.Get[*nftables.Conn](t)(nftables.New())
	filter := newLimitFilter(limits)
	for _, limit := range []*expr.Limit{perSecond(1000, 4), perSecond(limits.QueriesPerSecond, queriesAtOnce(limits.QueriesPerSecond))} {
		rules := must.Get[[]*nftables.Rule](t)(connection.GetRules(filter.table, &nftables.Chain{Name: "asking"}))
		rules[0].Exprs[1].(*expr.Dynset).Exprs = []expr.Any{limit}
		connection.AddRule(rules[0]) // which has a handle, so it is replaced
		must.Succeed(t, connection.Flush())
		asAgent(func() { queryMany(t, nettest.Agent, 1, 0) })
	}
	expectFilter(t, limits, "nftables element of set queries is not ours")
}

// Every change of our table is reported.
func TestLimitDifferences(t *testing.T) {
	limits := nettest.SmallLimits()
	filter := newLimitFilter(limits)
	set := func(name string) *nftables.Set {
		return filter.sets[slices.IndexFunc(filter.sets, func(set *nftables.Set) bool { return set.Name == name })]
	}
	chain := func(name string) *nftables.Chain {
		return filter.chains[slices.IndexFunc(filter.chains, func(chain *nftables.Chain) bool { return chain.Name == name })]
	}
	// firstRule returns the first rule of a chain, from the kernel.
	firstRule := func(connection *nftables.Conn, name string) *nftables.Rule {
		rules := must.Get[[]*nftables.Rule](t)(connection.GetRules(filter.table, chain(name)))
		return rules[0]
	}
	drop := nftables.ChainPolicyDrop
	for name, test := range map[string]struct {
		change      func(*nftables.Conn) error
		differences []string // what some difference begins with, and all differences begin with
	}{
		"what was installed forgotten": {
			func(c *nftables.Conn) error { c.FlushSet(set(installedSet)); return nil },
			[]string{"nftables table ", "nftables set ", "nftables chain ", "nftables rule "},
		},
		"the table made dormant": {
			func(*nftables.Conn) error { return makeDormant(limitTable) },
			[]string{"nftables table ip clawker-fw is not ours", "nftables table ip clawker-fw is missing"},
		},
		"a rule deleted": {
			func(c *nftables.Conn) error { return c.DelRule(firstRule(c, "receiving")) },
			[]string{"nftables rule ip clawker-fw receiving 1 is ", "nftables rule ip clawker-fw receiving 2 is ", "nftables rule ip clawker-fw receiving 3 is "},
		},
		"a limit raised": {
			func(c *nftables.Conn) error {
				rule := firstRule(c, "opening")
				for _, part := range rule.Exprs {
					if filled, ok := part.(*expr.Dynset); ok {
						filled.Exprs = []expr.Any{&expr.Connlimit{Count: 6}}
					}
				}
				c.AddRule(rule) // which has a handle, so it is replaced
				return nil
			},
			[]string{"nftables rule ip clawker-fw opening 1 is "},
		},
		"a set and a chain added": {
			func(c *nftables.Conn) error {
				c.AddChain(&nftables.Chain{Table: filter.table, Name: "other"})
				other := *set("open")
				other.Name, other.ID = "other", 0
				return c.AddSet(&other, nil)
			},
			[]string{"nftables set ip clawker-fw other is not ours", "nftables chain ip clawker-fw other is not ours"},
		},
		"another policy": {
			func(c *nftables.Conn) error {
				other := *chain("receiving")
				other.Policy = &drop
				c.AddChain(&other)
				return nil
			},
			[]string{"nftables chain ip clawker-fw receiving is not ours", "nftables chain ip clawker-fw receiving is missing"},
		},
		"a table of the same name in another family": {
			func(c *nftables.Conn) error {
				table := c.AddTable(&nftables.Table{Name: limitTable, Family: nftables.TableFamilyINet})
				other := c.AddChain(&nftables.Chain{
					Table: table, Name: "other", Type: nftables.ChainTypeFilter,
					Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter,
				})
				c.AddRule(&nftables.Rule{Table: table, Chain: other, Exprs: verdict(expr.VerdictAccept)})
				return nil
			},
			[]string{"nftables table inet clawker-fw is not ours", "nftables chain inet clawker-fw other is not ours", "nftables rule inet clawker-fw other 1 is not ours"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			nettest.InNetwork(t)
			sibling := nettest.NewSibling()
			sibling.Limits = &limits
			must.Succeed(t, Shape(sibling))
			connection := must.Get[*nftables.Conn](t)(nftables.New())
			must.Succeed(t, errors.Join(test.change(connection), connection.Flush()))
			got := must.Get[[]string](t)(filterDifferences(sibling, nil))
			for _, text := range got {
				if !slices.ContainsFunc(test.differences, func(start string) bool { return strings.HasPrefix(text, start) }) {
					t.Errorf("unexpected: %q", text)
				}
			}
			for _, start := range test.differences {
				if !slices.ContainsFunc(got, func(text string) bool { return strings.HasPrefix(text, start) }) {
					t.Errorf("%q is not in %q", start, got)
				}
			}
			must.Succeed(t, Shape(sibling)) // a restart repairs it
			expectFilter(t, limits)
		})
	}
}

// makeDormant sets the flag that disables a table's chains. The library can't.
func makeDormant(table string) error {
	socket, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	message := func(kind, flags int, header nl.Nfgenmsg, attributes ...*nl.RtAttr) []byte {
		request := nl.NewNetlinkRequest(kind, flags)
		request.AddData(&header)
		for _, attribute := range attributes {
			request.AddData(attribute)
		}
		return request.Serialize()
	}
	const dormant = 1
	batch := nl.Nfgenmsg{ResId: unix.NFNL_SUBSYS_NFTABLES << 8} // in network order
	name := nl.NewRtAttr(unix.NFTA_TABLE_NAME, nl.ZeroTerminated(table))
	flags := nl.NewRtAttr(unix.NFTA_TABLE_FLAGS, []byte{0, 0, 0, dormant})
	return unix.Sendto(socket, slices.Concat(
		message(unix.NFNL_MSG_BATCH_BEGIN, 0, batch),
		message(nftSubsystem|unix.NFT_MSG_NEWTABLE, 0, nl.Nfgenmsg{NfgenFamily: unix.NFPROTO_IPV4}, name, flags),
		message(unix.NFNL_MSG_BATCH_END, 0, batch),
	), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// Limits exist before the agents' interface, and apply to it once it exists.
func TestLimitsWithoutInterface(t *testing.T) {
	nettest.InNetwork(t)
	must.Succeed(t, netlink.LinkDel(nettest.Link(t, "agents")))
	limits := nettest.SmallLimits()
	must.Succeed(t, newLimitFilter(limits).installWithSix())
	must.Succeed(t, rememberFilter(nil))
	expectFilter(t, limits)
}

// expectFilter fails unless the packet filter has exactly these differences.
func expectFilter(t *testing.T, limits boot.Limits, want ...string) {
	t.Helper()
	if got, err := filterDifferences(boot.Sibling{Limits: &limits}, nil); err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, expected %q", got, err, want)
	}
}

// serveEcho accepts connections forever, and sends back everything it reads.
func serveEcho(t *testing.T, address string) int {
	t.Helper()
	place := nettest.ServeAt(t, "tcp4", address, func(connection net.Conn) { _, _ = io.Copy(connection, connection) })
	return place.(*net.TCPAddr).Port
}

// dialFrom connects to the container from an address.
func dialFrom(from netip.Addr, port int) (net.Conn, error) {
	return dialWithin(3*time.Second, from, port)
}

// dialWithin does so within a time.
func dialWithin(limit time.Duration, from netip.Addr, port int) (net.Conn, error) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: from.AsSlice()}, Timeout: limit}
	return dialer.Dial("tcp4", netip.AddrPortFrom(nettest.OnAgents, uint16(port)).String())
}

// dialMany opens connections, which stay open until the test ends, and counts those that were refused.
func dialMany(t *testing.T, from netip.Addr, port, count int) (opened []net.Conn, refused int) {
	t.Helper()
	for range count {
		connection, err := dialFrom(from, port)
		switch {
		case err == nil:
			t.Cleanup(func() { connection.Close() })
			opened = append(opened, connection)
		case errors.Is(err, unix.ECONNREFUSED):
			refused++
		default:
			t.Errorf("from %s: %v", from, err)
		}
	}
	return opened, refused
}
