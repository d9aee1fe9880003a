// Command coredns is the resolver sibling: CoreDNS with only the plugins that the Corefile template uses.
//
// The binary has no forward, proxy, hosts or rewrite plugin on purpose. So no configuration, even a tampered one, can
// forward an agent's query, and DNS can't become a tunnel.
package main

import (
	"flag"
	"os"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/coremain"

	_ "clawker-fw/internal/otel"
	_ "clawker-fw/internal/policy"
	"clawker-fw/internal/resolver"
)

func main() {
	// With its own flag, CoreDNS would start its own type of server.
	flags := flag.NewFlagSet("coredns", flag.PanicOnError)
	corefile := flags.String("conf", "Corefile", "")
	flag.Lookup("conf").Value = flags.Lookup("conf").Value
	caddy.SetDefaultCaddyfileLoader("corefile", caddy.LoaderFunc(func(string) (caddy.Input, error) {
		content, err := os.ReadFile(*corefile)
		return caddy.CaddyfileInput{Filepath: *corefile, Contents: content, ServerTypeName: resolver.ServerType}, err
	}))
	coremain.Run()
}
