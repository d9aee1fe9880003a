package otel

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"
	"github.com/miekg/dns"

	"clawker-fw/internal/hotfile"
	"clawker-fw/internal/policy"
	"clawker-fw/internal/resolver"
	"clawker-fw/internal/statussocket"
)

func init() { resolver.Register("otel", setup) }

// setup reads `otel FILE SOCKET` from the Corefile: the settings, and the socket on which the plugin reports its status.
// The resolver starts without a usable file: telemetry must not keep it from answering.
func setup(controller *caddy.Controller) error {
	controller.Next()
	arguments := controller.RemainingArgs()
	if len(arguments) != 2 || controller.NextBlock() {
		return plugin.Error("otel", controller.ArgErr())
	}
	settings := hotfile.New(arguments[0], Parse)
	settings.Refresh() // the status reports an error
	listener, err := statussocket.Listen(arguments[1])
	if err != nil {
		return plugin.Error("otel", err)
	}
	exporter := NewExporter(settings.Value)
	go settings.Follow()
	go exporter.Run()
	go statussocket.Tell(listener, func() any {
		_, loaded := settings.Fresh()
		counts := statussocket.Telemetry{Sent: exporter.sent.Load(), Lost: exporter.lost.Load(), Collector: exporter.shown.Load()}
		return statussocket.Plugin{Status: loaded, Telemetry: counts}
	})
	controller.OnShutdown(func() error {
		exporter.Close()
		return nil
	})
	resolver.ConfigOf(controller).AddPlugin(func(next plugin.Handler) plugin.Handler {
		return Handler{next, settings.Value, exporter.Add}
	})
	return nil
}

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
