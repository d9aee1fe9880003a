package otel

import (
	"math/rand/v2"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"

	"clawker-fw/internal/hotfile"
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
func recording(settings func() *Settings, add func(resolver.Outcome)) func(resolver.Outcome) {
	return func(outcome resolver.Outcome) {
		if settings := settings(); settings != nil && (outcome.Reason != "" || isSampled(settings.sample)) {
			outcome.Name = shortened(outcome.Name)
			add(outcome)
		}
	}
}

func isSampled(share float64) bool {
	return share == 1 || rand.Float64() < share
}
