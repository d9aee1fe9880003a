package lookups

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/miekg/dns"

	"clawker-fw/internal/must"
	"clawker-fw/internal/statussocket"
)

// A forwarder that can be killed is another process: this test binary with this variable.
const forwards = "FWCTL_TEST_FORWARDS"

func TestMain(m *testing.M) {
	if os.Getenv(forwards) == "" {
		os.Exit(m.Run())
	}
	fmt.Fprintln(os.Stderr, Forward(os.Args[1:], []*os.File{os.NewFile(3, "datagrams"), os.NewFile(4, "streams")}))
	os.Exit(1)
}

// askPatiently asks until an answer arrives: a process may need longer to start than a query waits. A refusal is
// an error.
func askPatiently(server, network string, query *dns.Msg) error {
	client := dns.Client{Net: network, Timeout: time.Second}
	for end := time.Now().Add(20 * time.Second); ; {
		_, _, err := client.Exchange(query, server)
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Now().After(end) {
			return err
		}
	}
}

// listenAtOnePort opens sockets for UDP and TCP at the same free port, and tries again if another process has one
// of them.
func listenAtOnePort(t *testing.T) (*net.UDPConn, *net.TCPListener) {
	t.Helper()
	for range 100 {
		datagrams := must.Get[*net.UDPConn](t)(net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0"))))
		streams, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(datagrams.LocalAddr().(*net.UDPAddr).AddrPort()))
		if err == nil {
			return datagrams, streams
		}
		datagrams.Close()
	}
	t.Fatal("no port is free for both")
	return nil, nil
}

// A killed forwarder is restarted with the same sockets, and answers the queries since then, over UDP and TCP,
// without refusing any.
func TestForwarderKeepsItsSockets(t *testing.T) {
	upstream, streams := listenAtOnePort(t)
	defer upstream.Close()
	defer streams.Close()
	resolver := newForwarder(func(l *pendingLookup) (*dns.Msg, error) {
		return new(dns.Msg).SetReply(l.asked), nil
	}, func(string) string { return "" })
	go func() { _ = forwardDatagrams(resolver, upstream) }()
	go statussocket.Serve(streams, mostStreams, func(connection net.Conn) { forwardStream(resolver, connection) })
	place := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.54"), upstream.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	sockets, err := Listen(place)
	must.Succeed(t, err)
	subtrees := filepath.Join(t.TempDir(), "subtrees.json")
	for range 2 {
		answered := make(chan error, 2)
		for _, network := range []string{"udp", "tcp"} { // it is not there yet, or no more
			go func() {
				answered <- askPatiently(place.String(), network, queryFor("b.a.test."))
			}()
		}
		process := exec.Command(
			os.Args[0], place.String(), upstream.LocalAddr().String(), subtrees, "192.0.2.0/25", "192.0.2.128/25",
		)
		process.Env, process.ExtraFiles = append(os.Environ(), forwards+"=1"), sockets
		process.Stderr = os.Stderr
		must.Succeed(t, process.Start())
		for range 2 {
			if err := <-answered; err != nil {
				t.Error(err)
			}
		}
		if err := process.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = process.Wait()
	}
}

// A connection that does not read its answers delays no other lookups, and is closed.
func TestAStreamThatIsNotRead(t *testing.T) {
	under := newForwarderUnderTest(t)
	client, server := net.Pipe()
	defer client.Close()
	ended := make(chan struct{})
	go func() {
		forwardStream(under.forwarder, server)
		close(ended)
	}()
	must.Succeed(t, (&dns.Conn{Conn: client}).WriteMsg(queryFor("stalled.test.")))
	under.answer("stalled.test.", dns.RcodeSuccess)
	if _, err := client.Read(make([]byte, 1)); err != nil { // the first octet of the answer, of which no more is read
		t.Fatal(err)
	}
	began := time.Now()
	under.ask("quick.test.", "*1.", 7)
	under.answer("quick.test.", dns.RcodeSuccess)
	under.expect("7 NOERROR")
	if took := time.Since(began); took > writeTime/2 { // with the forwarder locked, it would be all of it
		t.Errorf("another lookup took %s", took)
	}
	select {
	case <-ended:
	case <-time.After(10 * writeTime):
		t.Error("the connection was not ended")
	}
}

// Unread answers of one connection are limited: beyond that, it is closed.
func TestRepliesAreBounded(t *testing.T) {
	forwarder := newForwarder(func(l *pendingLookup) (*dns.Msg, error) { return new(dns.Msg).SetReply(l.asked), nil }, func(string) string { return "" })
	client, server := net.Pipe()
	defer client.Close()
	ended := make(chan struct{})
	go func() {
		forwardStream(forwarder, server)
		close(ended)
	}()
	asked := 0
	for ; asked < 2*mostUnread/leastReply; asked++ {
		if (&dns.Conn{Conn: client}).WriteMsg(queryFor(lookedUpAgain)) != nil {
			break
		}
	}
	<-ended
	if asked > mostUnread/leastReply+1 {
		t.Errorf("it has taken %d questions", asked)
	}
}
