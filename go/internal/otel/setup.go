package otel

import (
	"math/rand/v2"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"

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
	resolver.ConfigOf(controller).Told = recording(settings.Value, exporter.Add)
	return nil
}

// recording returns what records queries. Every refused one has a record, and of the allowed ones the share in the settings.
func recording(settings func() *Settings, add func(record)) func(resolver.Outcome) {
	return func(outcome resolver.Outcome) {
		settings := settings()
		if settings == nil || outcome.Reason == "" && !isSampled(settings.sample) {
			return
		}
		add(record{
			at: outcome.Began, took: time.Since(outcome.Began), client: policy.AddressOf(outcome.Client), name: shortened(outcome.Name),
			kind: outcome.Type, reason: outcome.Reason, code: outcome.Code, answers: outcome.Answers,
		})
	}
}

func isSampled(share float64) bool {
	return share == 1 || rand.Float64() < share
}
