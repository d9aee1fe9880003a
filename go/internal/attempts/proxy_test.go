package attempts

import (
	"bufio"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/must"
	"clawker-fw/internal/nettest"
)

const connectRequest = "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\nProxy-Authorization: Basic c2VjcmV0\r\n\r\n"

var proxiedTables = []boot.Table{
	{Name: "guarded", From: nettest.Guarded}, {Name: "proxied", From: netip.MustParseAddr("127.0.0.2")},
}

// askProxy asks a proxy on loopback, from loopback, as `fwctl proxy` does.
func askProxy(t *testing.T, question ProxyQuestion) []ProxyAnswer {
	t.Helper()
	text := must.Get[[]byte](t)(json.Marshal(question))
	answers := must.Get[ProxyAnswers](t)(TryProxy(proxiedTables, int64(len(text)), strings.NewReader(string(text))))
	return answers.Answers
}

// serveProxy accepts connections until the test ends, and writes the answer after each request.
func serveProxy(t *testing.T, answer string) string {
	t.Helper()
	return nettest.ServeAt(t, "tcp4", "127.0.0.1:0", func(connection net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(connection)); err == nil {
			_, _ = io.WriteString(connection, answer)
		}
	}).String()
}

// The answer has the proxy's status, the schemes of all its challenges, and Squid's name of the error.
func TestTryProxyReportsStatus(t *testing.T) {
	const challenges = "Proxy-Authenticate: NTLM\r\nProxy-Authenticate: Basic realm=\"proxy\"\r\n"
	for answer, expected := range map[string]ProxyAnswer{
		"HTTP/1.1 200 Connection established\r\n\r\n": {Status: 200},
		"HTTP/1.1 403 Forbidden\r\nX-Squid-Error: ERR_ACCESS_DENIED 0\r\nContent-Length: 2\r\n\r\nno": {
			Status: 403, Error: "ERR_ACCESS_DENIED 0",
		},
		"HTTP/1.1 407 Proxy Authentication Required\r\n" + challenges + "\r\n": {
			Status: 407, Challenges: `NTLM, Basic realm="proxy"`,
		},
	} {
		answers := askProxy(t, ProxyQuestion{Proxy: serveProxy(t, answer), Requests: []string{connectRequest}})
		if len(answers) != 1 || answers[0].Seconds <= 0 {
			t.Fatalf("got %+v", answers)
		}
		if answers[0].Seconds = 0; answers[0] != expected {
			t.Errorf("%q: got %+v", answer, answers[0])
		}
	}
}

// Each request has its own connection, from the source address of the table `proxied`. The answers come in the
// order of the requests, although the first request is answered last.
func TestTryProxySendsAllRequestsAtOnce(t *testing.T) {
	secondAnswered := make(chan struct{})
	proxy := nettest.ServeAt(t, "tcp4", "127.0.0.1:0", func(connection net.Conn) {
		request, err := http.ReadRequest(bufio.NewReader(connection))
		if err != nil || !strings.HasPrefix(connection.RemoteAddr().String(), "127.0.0.2:") {
			return
		}
		if request.RequestURI == "first.test:443" {
			<-secondAnswered
			_, _ = io.WriteString(connection, "HTTP/1.1 200 OK\r\n\r\n")
			return
		}
		_, _ = io.WriteString(connection, "HTTP/1.1 403 Forbidden\r\n\r\n")
		close(secondAnswered)
	}).String()
	requests := []string{
		strings.ReplaceAll(connectRequest, "a.test", "first.test"), strings.ReplaceAll(connectRequest, "a.test", "second.test"),
	}

	answers := askProxy(t, ProxyQuestion{Proxy: proxy, Requests: requests})

	if len(answers) != 2 || answers[0].Status != http.StatusOK || answers[1].Status != http.StatusForbidden {
		t.Errorf("got %+v", answers)
	}
}

// A TLS proxy must prove its name, to the given CAs or else to the image's.
func TestTryProxyOverTLS(t *testing.T) {
	proxy := httptest.NewTLSServer(http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		if request.Method == http.MethodConnect && request.RequestURI == "a.test:443" {
			writer.WriteHeader(http.StatusForbidden)
		}
	}))
	defer proxy.Close()
	authorities := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: proxy.Certificate().Raw}))
	question := ProxyQuestion{Proxy: proxy.Listener.Addr().String(), TLS: true, Requests: []string{connectRequest}}

	question.Roots = authorities
	if answer := askProxy(t, question)[0]; answer.Status != http.StatusForbidden || answer.Error != "" {
		t.Errorf("got %+v", answer)
	}
	question.Roots = ""
	untrusted := "tls: failed to verify certificate: " + x509.UnknownAuthorityError{}.Error()
	if answer := askProxy(t, question)[0]; answer.Status != 0 || answer.Error != untrusted {
		t.Errorf("got %+v", answer)
	}
	question.Roots = authorities
	question.Proxy = strings.Replace(question.Proxy, "127.0.0.1", "localhost", 1)
	if answer := askProxy(t, question)[0]; answer.Status != 0 || !strings.Contains(answer.Error, "not localhost") {
		t.Errorf("got %+v", answer)
	}
}

// Without a status, the answer has the reason, and nothing of the request.
func TestTryProxyReportsWhyThereIsNoStatus(t *testing.T) {
	closed := must.Get[net.Listener](t)(net.Listen("tcp4", "127.0.0.1:0"))
	closed.Close()
	for _, sample := range []struct {
		proxy, reason string
		tls           bool
	}{
		{proxy: closed.Addr().String(), reason: "connection refused"},
		{proxy: serveProxy(t, "SSH-2.0-server\r\n\r\n"), reason: `malformed HTTP response "SSH-2.0-server"`},
		{proxy: serveProxy(t, ""), reason: "unexpected EOF"},
		{proxy: nettest.ServeAt(t, "tcp4", "127.0.0.1:0", func(connection net.Conn) {
			_, _ = io.WriteString(connection, "SSH-2.0-server\r\n")
			_, _ = io.Copy(io.Discard, connection)
		}).String(), reason: "tls: first record does not look like a TLS handshake", tls: true},
	} {
		answer := askProxy(t, ProxyQuestion{Proxy: sample.proxy, TLS: sample.tls, Requests: []string{connectRequest}})[0]
		if answer.Status != 0 || answer.Error != sample.reason || answer.Seconds <= 0 {
			t.Errorf("got %+v, expected %s", answer, sample.reason)
		}
	}
}

// A proxy that accepts connections and stays silent, in or before TLS, costs the time of one answer.
func TestTryProxyThatIsSilent(t *testing.T) {
	proxy := nettest.ServeAt(t, "tcp4", "127.0.0.1:0", func(connection net.Conn) {
		_, _ = io.Copy(io.Discard, connection)
	}).String()
	const within = 50 * time.Millisecond
	for _, overTLS := range []bool{false, true} {
		question := ProxyQuestion{Proxy: proxy, TLS: overTLS, Requests: []string{connectRequest, connectRequest}}

		answers := question.sendAll(net.Dialer{}, within)

		for _, answer := range answers {
			if answer.Status != 0 || answer.Error != unanswered || answer.Seconds < within.Seconds() {
				t.Errorf("got %+v", answer)
			}
		}
	}
}

// An Envoy without an upstream proxy has no source address. An error about an invalid question never repeats it.
func TestTryProxyWithoutAQuestion(t *testing.T) {
	if _, err := TryProxy(proxiedTables[:1], math.MaxInt64, strings.NewReader("{}")); err == nil {
		t.Error("it asked without a source address")
	}
	for _, text := range []string{`{"requests": "Basic c2VjcmV0"}`, "c2VjcmV0", `{"proxy": "c2VjcmV0`} {
		if _, err := TryProxy(proxiedTables, math.MaxInt64, strings.NewReader(text)); err == nil || strings.Contains(err.Error(), "c2Vj") {
			t.Errorf("%s: got %v", text, err)
		}
	}
}
