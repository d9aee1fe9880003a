package attempts

import (
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"clawker-fw/internal/must"
	"clawker-fw/internal/nettest"
)

// answering handles each connection to a loopback port with a function, and closes it.
func answering(t *testing.T, serve func(net.Conn)) netip.AddrPort {
	t.Helper()
	return netip.MustParseAddrPort(nettest.ServeAt(t, "tcp4", "127.0.0.1:0", serve).String())
}

// likeEnvoy refuses as Envoy does: it answers TLS with an alert, and HTTP with a message.
func likeEnvoy(words string) func(net.Conn) {
	return func(connection net.Conn) {
		buffer := make([]byte, 4096)
		size, _ := connection.Read(buffer)
		if size > 0 && buffer[0] == 'G' {
			io.WriteString(connection, "HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n"+words)
		} else if size > 0 {
			io.WriteString(connection, "\x15\x03\x03\x00\x02\x02\x31") // the alert access_denied (RFC 8446, section 6.2)
		}
	}
}

func entranceAt(place netip.AddrPort) Entrance {
	return Entrance{place.Addr(), []int{int(place.Port())}}
}

// An Envoy that refuses over both protocols has no problem.
func TestViewOnARefusal(t *testing.T) {
	place := answering(t, likeEnvoy(refusalWords+" over http on port 80\n"))

	if got, _ := seenOfEnvoy(entranceAt(place)); len(got) > 0 {
		t.Errorf("got %q", got)
	}
}

// Anything except the refusal is reported: no listener, silence, another server's response, or access.
func TestViewOnAnythingElse(t *testing.T) {
	gone := answering(t, func(connection net.Conn) {
		_ = connection.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, connection) // what is not read would make a reset of it, which may be a refusal
	})
	silent := answering(t, func(connection net.Conn) { io.Copy(io.Discard, connection) })
	other := answering(t, likeEnvoy("forbidden by somebody else: go away and do not come back here"))
	server := http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	listener := must.Get[net.Listener](t)(net.Listen("tcp4", "127.0.0.1:0"))
	t.Cleanup(func() { server.Close() })
	go server.Serve(listener)

	for name, test := range map[string]struct {
		place netip.AddrPort
		words []string
	}{
		"closes at once": {gone, []string{"over http: ", "over https: "}},
		"silent":         {silent, []string{"over http: no answer", "over https: no answer"}},
		"another":        {other, []string{"over http: status 403, not Envoy's refusal, for a name that no rule allows"}},
		"lets through": {
			netip.MustParseAddrPort(listener.Addr().String()),
			[]string{"over http: status 200, not Envoy's refusal, for a name that no rule allows", "over https: "},
		},
		"nobody": {
			netip.MustParseAddrPort("127.0.0.1:1"),
			[]string{"over http: connection refused", "over https: connection refused"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, _ := seenOfEnvoy(entranceAt(test.place))
			if len(got) != len(test.words) {
				t.Fatalf("got %q", got)
			}
			for index, words := range test.words {
				if !strings.Contains(got[index], words) {
					t.Errorf("got %q, expected %q", got[index], words)
				}
			}
		})
	}
}

// A resolver that resolves the refused name, or does not answer over UDP or TCP, is reported.
func TestViewOnAResolver(t *testing.T) {
	server := nettest.ServeDNS(t, "udp", nettest.Refusing)

	got := seenOfResolver(netip.MustParseAddrPort(server))

	if !slices.Equal(got, []string{server + " over tcp: connection refused"}) {
		t.Errorf("got %q", got)
	}
	knowing := nettest.ServeDNS(t, "udp", nettest.Answering(dns.RcodeSuccess))
	got = seenOfResolver(netip.MustParseAddrPort(knowing))
	if len(got) != 2 || !strings.Contains(got[0], "was answered with NOERROR") {
		t.Errorf("got %q", got)
	}
}

// An unreadable file with Envoy's address is reported, and every health check fails.
func TestViewThatIsUnreadable(t *testing.T) {
	root := t.TempDir()
	all, dropped := AgentsSee(root, nettest.NewResolver(), true)
	if seen := all["envoy"]; len(seen) != 1 || !strings.HasPrefix(seen[0], "unreadable: ") || dropped != nil {
		t.Errorf("got %q", seen)
	}
	if err := AgentsAreServed(root, nettest.NewResolver()); err == nil {
		t.Error("healthy")
	}
	if err := AgentsAreServed(root, nettest.NewSibling()); err != nil {
		t.Errorf("Envoy has no entrance: %v", err)
	}
}

// Without a route to Envoy's network there is no waiting. Linux has no TCP route to this address.
func TestViewThatNeedNotWait(t *testing.T) {
	begin := time.Now()
	got, dropped := seenForAWhile(entranceAt(netip.MustParseAddrPort("255.255.255.255:80")))
	if len(got) != 2 || dropped || time.Since(begin) > patience/2 {
		t.Errorf("got %q after %s", got, time.Since(begin))
	}
	if !strings.HasSuffix(got[0], "over http: network is unreachable") {
		t.Errorf("got %q", got)
	}
}

// A probe may leave Envoy out.
func TestViewWithoutEnvoy(t *testing.T) {
	if seen, _ := AgentsSee(t.TempDir(), nettest.NewResolver(), false); len(seen) != 1 || seen["coredns"] == nil {
		t.Errorf("got %q", seen)
	}
}
