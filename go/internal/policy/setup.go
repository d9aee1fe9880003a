package policy

import (
	"errors"
	"os"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/coremain"
	"github.com/coredns/coredns/plugin"

	"clawker-fw/internal/hotfile"
	"clawker-fw/internal/resolver"
	"clawker-fw/internal/statussocket"
)

func init() { resolver.Register("policy", setup) }

// setup reads `policy FILE SOCKET` from the Corefile: the list, and the socket on which the process reports its status.
func setup(controller *caddy.Controller) error {
	controller.Next()
	arguments := controller.RemainingArgs()
	if len(arguments) != 2 || controller.NextBlock() {
		return plugin.Error("policy", controller.ArgErr())
	}
	source := hotfile.New(arguments[0], Parse)
	if _, loaded := source.Fresh(); loaded.Reason != "" {
		return plugin.Error("policy", errors.New(loaded.Reason))
	}
	listener, err := statussocket.Listen(arguments[1])
	if err != nil {
		return plugin.Error("policy", err)
	}
	go source.Follow()
	go statussocket.Tell(listener, func() any {
		_, loaded := source.Fresh()
		return statussocket.Plugin{Build: "CoreDNS-" + coremain.CoreVersion, Status: loaded}
	})
	config := resolver.ConfigOf(controller)
	handler := NewHandler(source, os.Stdout, config.Told)
	config.AddPlugin(func(plugin.Handler) plugin.Handler { return handler })
	config.UDPDecorateWriterFunc = handler.watchUDP
	config.WatchTCP = handler.watchTCP
	return nil
}
