package otel

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/miekg/dns"

	"clawker-fw/internal/resolver"
)

var agent = netip.MustParseAddr("10.213.0.7")

// Each query has a record with the policy's decision, and none has one while telemetry is off.
func TestRecording(t *testing.T) {
	outcome := resolver.Outcome{Client: agent, Name: "B.test.", Type: dns.TypeA, Took: 1, Reason: "no-rule", Code: 3}
	for _, settings := range []*Settings{nil, {sample: 0}} {
		var got, want []resolver.Outcome
		recording(func() *Settings { return settings }, func(o resolver.Outcome) { got = append(got, o) })(outcome)
		if settings != nil {
			want = []resolver.Outcome{outcome}
			want[0].Name = "B.test"
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %+v", got)
		}
	}
}

// A share of the allowed queries has a record, and every refused one.
func TestRecordingSamples(t *testing.T) {
	counts := map[string]int{}
	report := recording(func() *Settings { return &Settings{sample: 0.5} }, func(o resolver.Outcome) { counts[o.Reason]++ })
	for range 1000 {
		for _, reason := range []string{"", "no-rule"} {
			report(resolver.Outcome{Client: agent, Reason: reason})
		}
	}
	if counts["no-rule"] != 1000 || counts[""] < 350 || counts[""] > 650 {
		t.Errorf("got %v", counts)
	}
}
