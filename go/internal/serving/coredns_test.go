package serving

import (
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/must"
	"clawker-fw/internal/nettest"
	"clawker-fw/internal/statussocket"
)

var policyResources = []boot.Resource{{Name: "policy", Path: "policy/names.json", Hashed: true}, {Name: "notes", Path: "notes"}}

// socketPath returns a path for the policy's socket.
func socketPath(t *testing.T) string {
	return filepath.Join(filepath.Dir(must.SocketPath(t)), "policy.sock")
}

// tells opens a status socket that sends a text to every client, until the test ends.
func tells(t *testing.T, text string) string {
	t.Helper()
	path := socketPath(t)
	nettest.ServeAt(t, "unix", path, func(connection net.Conn) { io.WriteString(connection, text) })
	return path
}

// silentSocket accepts connections and sends nothing.
func silentSocket(t *testing.T) string {
	t.Helper()
	path := socketPath(t)
	listener := must.Get[net.Listener](t)(net.Listen("unix", path))
	t.Cleanup(func() { listener.Close() }) // the kernel takes connections until it is closed
	return path
}

const status = `{"build": "CoreDNS-1.15.0", "digest": "9f86d081", "names": 3, "refused": 2, "reason": "no list"}` + "\n"

// asked returns a CoreDNS with a policy socket, and a server.
func asked(socket, server string) coredns {
	return coredns{filepath.Dir(socket), server, policyResources}
}

// Live digests, rejections, reason and build come from the process's status, and only hashed resources have a digest.
func TestCoredns(t *testing.T) {
	program := asked(tells(t, status), nettest.ServeDNS(t, "udp", nettest.Refusing))

	if live, err := program.Live(policyResources); err != nil || !maps.Equal(live, map[string]string{"policy": "9f86d081"}) {
		t.Errorf("live %v, %v", live, err)
	}
	if counts, err := program.Rejections(policyResources); err != nil || !maps.Equal(counts, map[string]int{"policy": 2}) {
		t.Errorf("rejections %v, %v", counts, err)
	}
	if versions, err := program.Versions(policyResources); err != nil || versions == nil || len(versions) > 0 {
		t.Errorf("versions %#v, %v", versions, err)
	}
	if build, err := program.Build(); err != nil || build != "CoreDNS-1.15.0" {
		t.Errorf("build %q, %v", build, err)
	}
	if reason := program.Reason(); reason != "no list" {
		t.Errorf("reason %q", reason)
	}
	if telemetry, err := program.Telemetry(); err != nil || telemetry != (statussocket.Telemetry{}) {
		t.Errorf("telemetry %v, %v", telemetry, err)
	}
}

// Each resource has its own status, and that of telemetry also counts records.
func TestCorednsWithTelemetry(t *testing.T) {
	program := asked(tells(t, status), nettest.ServeDNS(t, "udp", nettest.Refusing))
	program.resources = append(slices.Clip(policyResources), boot.Resource{Name: "telemetry", Path: "telemetry", Hashed: true})
	if telemetry, err := program.Telemetry(); err == nil || telemetry != (statussocket.Telemetry{}) {
		t.Errorf("without a socket: %v, %v", telemetry, err)
	}
	other := tells(t, `{"digest": "60303ae2", "refused": 1, "reason": "no key", "sent": 7, "lost": 3,
 "collector": {"subject": "CN=c", "names": ["c"], "begins": 1, "ends": 2, "sha256": "c0ffee"}}`)
	must.Succeed(t, os.Symlink(other, filepath.Join(program.folder, "telemetry.sock")))

	live, err := program.Live(program.resources)
	if err != nil || !maps.Equal(live, map[string]string{"policy": "9f86d081", "telemetry": "60303ae2"}) {
		t.Errorf("live %v, %v", live, err)
	}
	counts, err := program.Rejections(program.resources)
	if err != nil || !maps.Equal(counts, map[string]int{"policy": 2, "telemetry": 1}) {
		t.Errorf("rejections %v, %v", counts, err)
	}
	if reason := program.Reason(); reason != "no list; no key" {
		t.Errorf("reason %q", reason)
	}
	telemetry, err := program.Telemetry()
	want := statussocket.Telemetry{Sent: 7, Lost: 3, Collector: &statussocket.Certificate{Subject: "CN=c", Names: []string{"c"}, Begins: 1, Ends: 2, Digest: "c0ffee"}}
	if err != nil || !reflect.DeepEqual(telemetry, want) {
		t.Errorf("telemetry %v, %v", telemetry, err)
	}
}

// Without a status in time and as one JSON object, every request is an error, and never an empty result.
func TestCorednsWithoutStatus(t *testing.T) {
	resolver := nettest.ServeDNS(t, "udp", nettest.Refusing)
	for name, test := range map[string]struct{ socket, want string }{
		"absent":     {socketPath(t), "no such file"},
		"silent":     {silentSocket(t), "i/o timeout"},
		"nothing":    {tells(t, ""), "EOF"},
		"garbage":    {tells(t, "OK\n"), "invalid character"},
		"half of it": {tells(t, status[:40]), "unexpected EOF"},
		"a list":     {tells(t, "[]\n"), "cannot unmarshal array"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			program := asked(test.socket, resolver)

			live, notLive := program.Live(policyResources)
			counts, notCounted := program.Rejections(policyResources)
			_, notBuilt := program.Build()

			for _, err := range []error{notLive, notCounted, notBuilt} {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("got %v, expected %q in it", err, test.want)
				}
			}
			if live != nil || counts != nil {
				t.Errorf("got %v and %v beside the error", live, counts)
			}
			if reason := program.Reason(); !strings.Contains(reason, test.want) {
				t.Errorf("the reason is %q", reason)
			}
		})
	}
}

// A process that loads lists but does not refuse over DNS is not live.
func TestCorednsMustAnswerQueries(t *testing.T) {
	program := asked(tells(t, status), nettest.ServeDNS(t, "udp", nettest.Answering(dns.RcodeSuccess)))

	if live, err := program.Live(policyResources); err == nil || live != nil {
		t.Errorf("got %v, %v", live, err)
	}
}

// The refusal is checked over UDP and over TCP. The query is for an A record.
func TestRefuses(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		server := nettest.ServeDNS(t, network, func(writer dns.ResponseWriter, query *dns.Msg) {
			if question := query.Question[0]; question != (dns.Question{Name: refusedName, Qtype: dns.TypeA, Qclass: dns.ClassINET}) {
				t.Errorf("asked %v", question)
			}
			nettest.Refusing(writer, query)
		})
		if err := Refuses(server, network); err != nil {
			t.Errorf("%s: %v", network, err)
		}
	}
}

// Anything except NXDOMAIN for this very query is an error that names the server and the network.
func TestRefusesNothingElse(t *testing.T) {
	garbage := func(writer dns.ResponseWriter, _ *dns.Msg) { _, _ = writer.Write([]byte("OK")) }
	nothing := func(writer dns.ResponseWriter, _ *dns.Msg) { _ = writer.Close() }
	other := func(writer dns.ResponseWriter, query *dns.Msg) {
		query.Id++
		nettest.Refusing(writer, query)
	}
	for name, test := range map[string]struct {
		reply    dns.HandlerFunc
		networks string
		want     string
	}{
		"an answer":            {nettest.Answering(dns.RcodeSuccess), "udp tcp", "NOERROR"},
		"a failure":            {nettest.Answering(dns.RcodeServerFailure), "udp tcp", "SERVFAIL"},
		"a refusal to answer":  {nettest.Answering(dns.RcodeRefused), "udp tcp", "REFUSED"},
		"an answer to another": {other, "tcp", "id mismatch"},
		"only one to another":  {other, "udp", "i/o timeout"},
		"garbage":              {garbage, "udp tcp", "short read"},
		"silence":              {nothing, "udp", "i/o timeout"},
		"an end":               {nothing, "tcp", "EOF"},
	} {
		for network := range strings.FieldsSeq(test.networks) {
			t.Run(name+" over "+network, func(t *testing.T) {
				t.Parallel()
				server := nettest.ServeDNS(t, network, test.reply)

				err := Refuses(server, network)

				if err == nil || !strings.Contains(err.Error(), test.want) ||
					!strings.HasPrefix(err.Error(), "querying "+server+" over "+network+": ") {
					t.Errorf("got %v, expected %q in it", err, test.want)
				}
			})
		}
	}
}

// CoreDNS serves only if it answers over UDP and over TCP.
func TestCorednsServesOverEachTransport(t *testing.T) {
	for served, missing := range map[string]string{"udp": "tcp", "tcp": "udp"} {
		t.Run("only "+served, func(t *testing.T) {
			t.Parallel()
			err := asked(socketPath(t), nettest.ServeDNS(t, served, nettest.Refusing)).Serves()
			if err == nil || !strings.Contains(err.Error(), "over "+missing) || strings.Contains(err.Error(), "over "+served) {
				t.Errorf("got %v", err)
			}
		})
	}
}
