package otel

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/miekg/dns"

	"clawker-fw/internal/policy"
)

// Handler has the next plugin answer each query, and records what the policy has decided.
type Handler struct {
	next     plugin.Handler
	settings func() *Settings
	add      func(record)
}

// Name returns the plugin's name in the Corefile.
func (h Handler) Name() string { return "otel" }

// ServeDNS passes one query on. Every refused one has a record, and of the allowed ones the share in the settings.
func (h Handler) ServeDNS(ctx context.Context, writer dns.ResponseWriter, query *dns.Msg) (int, error) {
	settings := h.settings()
	if settings == nil {
		return plugin.NextOrFailure(h.Name(), h.next, ctx, writer, query)
	}
	start := time.Now()
	ctx, outcome := policy.WithOutcome(ctx)
	code, err := plugin.NextOrFailure(h.Name(), h.next, ctx, writer, query)
	if outcome.Answered && (!outcome.Allowed() || isSampled(settings.sample)) {
		question := dns.Question{Name: "."}
		if len(query.Question) > 0 {
			question = query.Question[0]
		}
		h.add(record{
			at:      start,
			took:    time.Since(start),
			client:  policy.AddressOf(writer.RemoteAddr()),
			name:    shortened(question.Name),
			kind:    question.Qtype,
			outcome: *outcome,
		})
	}
	return code, err
}

func isSampled(share float64) bool {
	return share == 1 || rand.Float64() < share
}
