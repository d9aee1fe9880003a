package attempts

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"clawker-fw/internal/must"
	"clawker-fw/internal/nettest"
)

func perform(t *testing.T, want []Attempt) map[string]string {
	t.Helper()
	root := t.TempDir()
	content, _ := json.Marshal(want)
	must.Succeed(t, os.MkdirAll(filepath.Join(root, "boot"), 0o755))
	must.Succeed(t, os.WriteFile(filepath.Join(root, "boot", "attempts.json"), content, 0o644))
	var output bytes.Buffer
	must.Succeed(t, Do(root, &output))
	outcomes := map[string]string{}
	for decoder := json.NewDecoder(&output); decoder.More(); {
		var outcome Outcome
		must.Succeed(t, decoder.Decode(&outcome))
		outcomes[outcome.ID] = outcome.Outcome
	}
	return outcomes
}

func TestAttempts(t *testing.T) {
	listening := answering(t, func(connection net.Conn) {
		buffer := make([]byte, 64)
		size, _ := connection.Read(buffer)
		if bytes.HasPrefix(buffer[:size], []byte("GET")) {
			connection.Write([]byte("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"))
		}
	}).String()
	got := perform(t, []Attempt{
		{ID: "open", Kind: "connect", Network: "tcp", Address: listening},
		{ID: "shut", Kind: "connect", Network: "tcp", Address: "127.0.0.1:1"},
		{ID: "http", Kind: "send", Network: "tcp", Address: listening, Text: "GET / HTTP/1.1\r\nHost: a\r\n\r\n"},
		{ID: "other", Kind: "send", Network: "tcp", Address: listening, Text: "SSH-2.0-x\r\n"},
		{ID: "tls", Kind: "tls", Network: "tcp", Address: listening, Name: "a.test"},
		{ID: "ask", Kind: "ask", Network: "tcp", Address: listening, Name: "a.test.", Type: 1, Class: 1},
		{ID: "datagram", Kind: "datagram", Network: "udp", Address: "127.0.0.1:1", Text: "x"},
	})
	for id, want := range map[string]string{
		"open": "connected", "shut": "connection refused", "http": "HTTP 403", "other": "closed without an answer",
		"tls": "closed without an answer", "ask": "closed without an answer", "datagram": "connection refused",
	} {
		if got[id] != want {
			t.Errorf("%s: %q, not %q", id, got[id], want)
		}
	}
}

// An alert is Envoy's refusal, and any other TLS message is a host's.
func TestAttemptsAtTLS(t *testing.T) {
	for want, answer := range map[string][]byte{
		"access denied":   {21, 3, 3, 0, 2, 2, byte(accessDenied)},
		"a host answered": {21, 3, 3, 0, 2, 2, 40},
	} {
		place := answering(t, func(connection net.Conn) {
			connection.Read(make([]byte, 4096))
			connection.Write(answer)
		})
		attempt := Attempt{ID: "tls", Kind: "tls", Network: "tcp", Address: place.String(), Name: "a.test"}
		if got := perform(t, []Attempt{attempt})["tls"]; got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
}

// A host may refuse as well as Envoy, and only Envoy's own words start with our name.
func TestAttemptsInTLS(t *testing.T) {
	for want, answer := range map[string]string{
		"HTTP 403 of Envoy":  "HTTP/1.1 403 Forbidden\r\nContent-Length: 16\r\n\r\nclawker-fw: no\r\n",
		"HTTP 403 of a host": "HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nno\r\n",
		"HTTP 200 of a host": "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
	} {
		server := httptest.NewUnstartedServer(nil)
		server.Config.Handler = http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
			connection, _, err := http.NewResponseController(response).Hijack()
			if err != nil || request.URL.Path != "/x" || request.TLS.ServerName != "a.test" {
				t.Error(err, request.URL, request.TLS.ServerName)
				return
			}
			defer connection.Close()
			connection.Write([]byte(answer))
		})
		server.StartTLS()
		defer server.Close()
		attempt := Attempt{
			ID: "it", Kind: "request", Network: "tcp", Address: server.Listener.Addr().String(), Name: "a.test",
			Text: "GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n",
		}
		if got := perform(t, []Attempt{attempt})["it"]; got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
}

func TestAttemptsAtCertificates(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	own := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	attempt := Attempt{Kind: "certificate", Network: "tcp", Address: server.Listener.Addr().String()}
	known, other, unknown := attempt, attempt, attempt
	known.ID, known.Name, known.Roots = "known", "example.com", own
	other.ID, other.Name, other.Roots = "other", "a.test", own
	unknown.ID, unknown.Name = "unknown", "example.com"
	got := perform(t, []Attempt{known, other, unknown})
	for id, want := range map[string]string{
		"known": "a certificate of the stack", "other": "another certificate", "unknown": "another certificate",
	} {
		if got[id] != want {
			t.Errorf("%s: %q, not %q", id, got[id], want)
		}
	}
}

func TestAnUnknownKindOfAttemptIsAnError(t *testing.T) {
	root := t.TempDir()
	os.MkdirAll(filepath.Join(root, "boot"), 0o755)
	os.WriteFile(filepath.Join(root, "boot", "attempts.json"), []byte(`[{"id": "1", "kind": "dance"}]`), 0o644)
	if err := Do(root, &bytes.Buffer{}); err == nil {
		t.Error("it should be refused")
	}
}

// A gateway exists if it answers ARP.
func TestGateways(t *testing.T) {
	for want, neighbour := range map[string]netip.Addr{
		"no gateway answers": netip.MustParseAddr("10.214.0.9"), "a gateway answers: 10.214.0.1": nettest.Gateway,
	} {
		t.Run(want, func(t *testing.T) {
			nettest.InNetwork(t)
			nettest.Moved(t, "egress-end", nettest.EgressNet, neighbour)
			nettest.Settle(t)
			if got := attemptGateway(Attempt{}); got != want {
				t.Error(got)
			}
		})
	}
}
