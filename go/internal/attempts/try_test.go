package attempts

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"clawker-fw/internal/must"
	"clawker-fw/internal/nettest"
)

// trying tries a.test, which has a loopback address.
func trying(t *testing.T, protocol string, place netip.AddrPort) Trial {
	t.Helper()
	return speaking(t, protocol, place, speakers[protocol])
}

func speaking(t *testing.T, protocol string, place netip.AddrPort, speak *speaker, request ...string) Trial {
	t.Helper()
	if len(request) == 0 {
		request = []string{"HEAD", "/"}
	}
	resolver := nettest.ServeDNS(t, "udp", saying("a.test.", place.Addr().String()))
	return tryAt(netip.MustParseAddrPort(resolver), "a.test", protocol, place.Port(), speak, request)
}

// String returns the steps in one line: each name, `+` or `-`, and the outcome of the last one.
func (t Trial) String() string {
	var names []string
	for _, step := range t.Steps {
		names = append(names, step.Name+map[bool]string{true: "+", false: "-"}[step.OK])
	}
	return strings.Join(names, " ") + ": " + t.Steps[len(t.Steps)-1].Outcome
}

func placeOf(server *httptest.Server) netip.AddrPort {
	return netip.MustParseAddrPort(server.Listener.Addr().String())
}

// Over TCP nothing is sent. It succeeds when the host speaks, or when the connection stays open for a while.
func TestTryTCP(t *testing.T) {
	for outcome, perform := range map[string]func(net.Conn){
		"resolve+ connect+ wait+: a host answered":          func(c net.Conn) { _, _ = c.Write([]byte("SSH-2.0\r\n")) },
		"resolve+ connect+ wait+: still open":               func(net.Conn) { time.Sleep(time.Second) },
		"resolve+ connect+ wait-: closed without an answer": func(net.Conn) {},
	} {
		if got := speaking(t, "tcp", answering(t, perform), &speaker{"wait", attemptWait, 50 * time.Millisecond}); got.String() != outcome {
			t.Errorf("got %s, expected %s", got, outcome)
		}
	}
}

// Over UDP an empty datagram is sent. It fails only where no port is open.
func TestTryUDP(t *testing.T) {
	for _, answer := range []bool{true, false} {
		host := must.Get[net.PacketConn](t)(net.ListenPacket("udp4", "127.0.0.1:0"))
		sizes := make(chan int, 1)
		go func() {
			size, sender, _ := host.ReadFrom(make([]byte, 16))
			if sizes <- size; answer {
				_, _ = host.WriteTo([]byte("x"), sender)
			}
		}()
		outcome := map[bool]string{true: "a host answered", false: "no answer"}[answer]
		got := speaking(t, "udp", netip.MustParseAddrPort(host.LocalAddr().String()), &speaker{"datagram", attemptDatagram, 50 * time.Millisecond})
		if got.String() != "resolve+ connect+ datagram+: "+outcome || <-sizes != 0 {
			t.Errorf("got %s", got)
		}
		host.Close()
	}
}

// An attempt over TLS ends with the handshake: the host sees the server name, and no request. Over HTTP it sends
// one request without a body, with the name in `Host`.
func TestTry(t *testing.T) {
	asked := make(chan string, 8)
	handler := http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		asked <- request.Method + " " + request.Host + request.URL.String()
		writer.WriteHeader(http.StatusTeapot)
	})
	plain := httptest.NewServer(handler)
	defer plain.Close()
	secure := httptest.NewUnstartedServer(handler)
	names := make(chan string, 8)
	secure.TLS = &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		names <- hello.ServerName
		return nil, nil
	}}
	secure.StartTLS()
	defer secure.Close()

	overTLS := trying(t, "https", placeOf(secure))
	if overTLS.String() != "resolve+ connect+ handshake+: a host answered" || <-names != "a.test" || len(asked) > 0 {
		t.Errorf("got %s, %d requests", overTLS, len(asked))
	}
	for _, step := range overTLS.Steps {
		if _, err := netip.ParseAddrPort(step.Source); err != nil || step.Seconds <= 0 {
			t.Errorf("got %+v", step)
		}
	}

	overHTTP := trying(t, "http", placeOf(plain))
	if overHTTP.String() != "resolve+ connect+ request+: HTTP 418" || overHTTP.Steps[2].Status != http.StatusTeapot {
		t.Errorf("got %s", overHTTP)
	}
	if got, want := <-asked, fmt.Sprintf("HEAD a.test:%d/", placeOf(plain).Port()); got != want {
		t.Errorf("got %q", got)
	}
}

// A host that refuses the handshake has still been reached: Envoy's only alert is `access_denied`.
func TestTryOfAHostThatRefuses(t *testing.T) {
	refusing := httptest.NewUnstartedServer(http.NotFoundHandler())
	refusing.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return nil, fmt.Errorf("not this one")
	}}
	refusing.Config.ErrorLog = nil
	refusing.StartTLS()
	defer refusing.Close()

	if got := trying(t, "https", placeOf(refusing)).String(); got != "resolve+ connect+ handshake+: a host answered" {
		t.Errorf("got %s", got)
	}
}

// Envoy's own alert is not an answer of the host.
func TestTryThatEnvoyRefuses(t *testing.T) {
	place := answering(t, func(connection net.Conn) {
		connection.Read(make([]byte, 4096))
		connection.Write([]byte{0x15, 3, 3, 0, 2, 2, 49})
	})

	if got := trying(t, "https", place).String(); got != "resolve+ connect+ handshake-: access denied" {
		t.Errorf("got %s", got)
	}
	connection := must.Open[net.Conn](t)(net.Dial("tcp", place.String()))
	if err := refusedOverTLS(connection); err != nil {
		t.Errorf("got %v", err)
	}
}

// An attempt ends at the first step that fails, with the reason.
func TestTryThatFails(t *testing.T) {
	gone := answering(t, func(connection net.Conn) { connection.Read(make([]byte, 4096)) })
	nobody := netip.MustParseAddrPort("127.0.0.1:1")
	for _, test := range []struct {
		protocol string
		place    netip.AddrPort
		want     string
	}{
		{"https", gone, "resolve+ connect+ handshake-: closed without an answer"},
		{"http", gone, "resolve+ connect+ request-: closed without an answer"},
		{"https", nobody, "resolve+ connect-: 127.0.0.1:1: connection refused"},
		{"udp", nobody, "resolve+ connect+ datagram-: connection refused"},
	} {
		if got := trying(t, test.protocol, test.place).String(); got != test.want {
			t.Errorf("%s: got %s", test.protocol, got)
		}
	}
	for code, want := range map[int]string{
		dns.RcodeNameError: "no such name", dns.RcodeSuccess: "no record", dns.RcodeRefused: "refused", dns.RcodeServerFailure: "SERVFAIL",
	} {
		server := nettest.ServeDNS(t, "udp", nettest.Answering(code))
		got := tryAt(netip.MustParseAddrPort(server), "a.test", "https", 443, speakers["https"], nil).String()
		if got != "resolve-: "+want {
			t.Errorf("%d: got %s", code, got)
		}
	}
	if got := tryAt(nobody, "a.test", "https", 443, speakers["https"], nil).String(); got != "resolve-: connection refused" {
		t.Errorf("got %s", got)
	}
	if got := tryAt(nobody, strings.Repeat("a.", 200), "https", 443, speakers["https"], nil); got.Steps[0].OK {
		t.Errorf("got %s", got)
	}
}

// Anything except a name, a protocol and a port is an error, and so is another container.
func TestTryThatIsNone(t *testing.T) {
	for _, arguments := range [][]string{{}, {"a.test", "https"}, {"a.test", "ssh", "22"}, {"a.test", "http", "65536"}} {
		if _, err := Try(nettest.NewResolver(), arguments); err == nil {
			t.Errorf("%q was tried", arguments)
		}
	}
	if _, err := Try(nettest.NewSibling(), []string{"a.test", "https", "443"}); err == nil {
		t.Error("Envoy's container was taken for an agent")
	}
}

// A request over TLS is sent as written, and its status is reported. The TLS server need not prove its name.
// Without TLS, no request is sent.
func TestTryARequest(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked := r.Method + " " + r.RequestURI + " " + r.Host; !strings.HasPrefix(asked, "OPTIONS /v1/%2Fa?b a.test:") {
			t.Errorf("asked for %s", asked)
		}
		w.WriteHeader(http.StatusForbidden)
	}))
	defer server.Close()

	got := speaking(t, "https", placeOf(server), requesting, "OPTIONS", "/v1/%2Fa?b")

	if last := got.Steps[len(got.Steps)-1]; got.String() != "resolve+ connect+ request+: HTTP 403 of a host" || last.Status != http.StatusForbidden {
		t.Errorf("got %s, %d", got, last.Status)
	}
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was made without TLS") }))
	defer plain.Close()
	if got := speaking(t, "https", placeOf(plain), requesting, "GET", "/"); !strings.HasPrefix(got.String(), "resolve+ connect+ request-: ") {
		t.Errorf("got %s", got)
	}
}

// Words that would change the request are invalid.
func TestIsRequestLine(t *testing.T) {
	for _, words := range [][]string{{"GET", ""}, {"GET", "/ HTTP/1.1"}, {"GET\r\nX:", "/"}, {"GET", "/\xe9"}} {
		if isRequestLine(words) {
			t.Errorf("%q counts", words)
		}
	}
	if !isRequestLine([]string{"M-SEARCH", "/a?b#"}) {
		t.Error("a method and a path don't count")
	}
}
