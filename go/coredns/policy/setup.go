package policy

import (
	"os"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
)

func init() { plugin.Register("policy", setup) }

// setup reads `policy FILE SOCKET` from the Corefile: the list, and the socket on which the process reports its status.
func setup(controller *caddy.Controller) error {
	controller.Next()
	arguments := controller.RemainingArgs()
	if len(arguments) != 2 || controller.NextBlock() {
		return plugin.Error("policy", controller.ArgErr())
	}
	source, err := Open(arguments[0])
	if err != nil {
		return plugin.Error("policy", err)
	}
	listener, err := listen(arguments[1])
	if err != nil {
		return plugin.Error("policy", err)
	}
	go source.Follow()
	go source.tell(listener)
	controller.OnShutdown(func() error {
		source.Close()
		return listener.Close()
	})
	handler := Handler{source, NewRecorder(os.Stdout), time.Now}
	dnsserver.GetConfig(controller).AddPlugin(func(plugin.Handler) plugin.Handler { return handler })
	return nil
}
