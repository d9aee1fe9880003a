// Command coredns is the resolver: CoreDNS with only the plugins of the Corefile template.
//
// The binary deliberately has no forward, proxy, hosts or rewrite plugin. So no configuration, even a tampered
// one, can forward an agent's query, and DNS can't become a tunnel.
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
	// CoreDNS's own flag would start its own server type.
	flags := flag.NewFlagSet("coredns", flag.PanicOnError)
	corefile := flags.String("conf", "Corefile", "")
	flag.Lookup("conf").Value = flags.Lookup("conf").Value
	caddy.SetDefaultCaddyfileLoader("corefile", caddy.LoaderFunc(func(string) (caddy.Input, error) {
		content, err := os.ReadFile(*corefile)
		return caddy.CaddyfileInput{Filepath: *corefile, Contents: content, ServerTypeName: resolver.ServerType}, err
	}))
	coremain.Run()
}
