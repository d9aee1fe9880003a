package otel

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"clawker-fw/internal/resolver"
)

var agent = &net.UDPAddr{IP: net.IPv4(10, 213, 0, 7), Port: 4711}

// Each query has a record with what the policy has decided, and none has one while telemetry is off.
func TestRecording(t *testing.T) {
	began := time.Now()
	outcome := resolver.Outcome{
		Client: &net.TCPAddr{IP: agent.IP}, Name: "B.test.", Type: dns.TypeA, Began: began, Reason: "no-rule", Code: 3, Answers: 0,
	}
	for _, settings := range []*Settings{nil, {sample: 0}} {
		var found []record
		recording(func() *Settings { return settings }, func(r record) { found = append(found, r) })(outcome)
		if settings == nil {
			if len(found) > 0 {
				t.Errorf("there are %+v", found)
			}
			continue
		}
		if len(found) != 1 || found[0].took <= 0 {
			t.Fatalf("there are %+v", found)
		}
		found[0].took = 0
		if found[0] != (record{began, 0, netip.MustParseAddr("10.213.0.7"), "B.test", dns.TypeA, "no-rule", 3, 0}) {
			t.Errorf("got %+v", found[0])
		}
	}
}

// A share of the allowed queries has a record, and every refused one.
func TestRecordingSamples(t *testing.T) {
	counts := map[string]int{}
	told := recording(func() *Settings { return &Settings{sample: 0.5} }, func(r record) { counts[r.reason]++ })
	for range 1000 {
		for _, reason := range []string{"", "no-rule"} {
			told(resolver.Outcome{Client: agent, Reason: reason})
		}
	}
	if counts["no-rule"] != 1000 || counts[""] < 350 || counts[""] > 650 {
		t.Errorf("got %v", counts)
	}
}
