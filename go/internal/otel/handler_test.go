package otel

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/coredns/coredns/plugin"
	"github.com/miekg/dns"

	"clawker-fw/internal/hotfile"
	"clawker-fw/internal/must"
	"clawker-fw/internal/policy"
)

// writer is a client.
type writer struct {
	dns.ResponseWriter
	from net.Addr
}

func (w writer) RemoteAddr() net.Addr { return w.from }

func (w writer) WriteMsg(*dns.Msg) error { return nil }

var agent = &net.UDPAddr{IP: net.IPv4(10, 213, 0, 7), Port: 4711}

// decider returns the policy plugin, which allows a.test.
func decider(t *testing.T) plugin.Handler {
	t.Helper()
	path := filepath.Join(t.TempDir(), "names.json")
	list := `{"ttl":1,"addresses":{"envoy":"10.213.8.10"},"names":{"a.test":{"at":"envoy"}}}`
	must.Succeed(t, os.WriteFile(path, []byte(list), 0o600))
	source := hotfile.New(path, policy.Parse)
	source.Refresh()
	return policy.NewHandler(source, io.Discard)
}

// Each query has a record with what the policy has decided, whatever the answer's code is. The container's own check has none,
// and neither has any query while telemetry is off.
func TestServeDNS(t *testing.T) {
	for what, each := range map[string]struct {
		name   string
		kind   uint16
		from   net.Addr
		wanted policy.Outcome
	}{
		"an address": {"a.test.", dns.TypeA, agent, policy.Outcome{Answered: true, Answers: 1}},
		"no data":    {"a.test.", dns.TypeAAAA, agent, policy.Outcome{Answered: true}},
		"refused":    {"B.test.", dns.TypeA, agent, policy.Outcome{Answered: true, Reason: "no-rule", Code: dns.RcodeNameError}},
		"off":        {"B.test.", dns.TypeA, agent, policy.Outcome{}},
		"our check":  {"refused.clawker-fw.invalid.", dns.TypeA, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, policy.Outcome{}},
		"over TCP":   {"a.test.", dns.TypeA, &net.TCPAddr{IP: agent.IP}, policy.Outcome{Answered: true, Answers: 1}},
	} {
		var found []record
		settings := &Settings{sample: 1}
		if what == "off" {
			settings = nil
		}
		handler := Handler{decider(t), func() *Settings { return settings }, func(r record) { found = append(found, r) }}
		query := new(dns.Msg)
		query.SetQuestion(each.name, each.kind)

		if code, err := handler.ServeDNS(context.Background(), writer{from: each.from}, query); code != 0 || err != nil {
			t.Errorf("%s: got %d, %v", what, code, err)
		}

		if len(found) != map[bool]int{true: 1}[each.wanted.Answered] {
			t.Fatalf("%s: %d records", what, len(found))
		}
		if len(found) == 0 {
			continue
		}
		one := found[0]
		if one.outcome != each.wanted || one.client.String() != "10.213.0.7" || one.name+"." != each.name || one.kind != each.kind ||
			one.took <= 0 || one.at.IsZero() {
			t.Errorf("%s: got %+v", what, one)
		}
	}
}

// A share of the allowed queries has a record, and every refused one.
func TestServeDNSSamples(t *testing.T) {
	counts := map[bool]int{}
	handler := Handler{decider(t), func() *Settings { return &Settings{sample: 0.5} }, func(r record) { counts[r.outcome.Allowed()]++ }}
	for range 1000 {
		for _, name := range []string{"a.test.", "b.test."} {
			query := new(dns.Msg)
			query.SetQuestion(name, dns.TypeA)
			must.Get[int](t)(handler.ServeDNS(context.Background(), writer{from: agent}, query))
		}
	}
	if counts[false] != 1000 || counts[true] < 350 || counts[true] > 650 {
		t.Errorf("got %v", counts)
	}
}
