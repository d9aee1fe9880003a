// Command coredns is the resolver sibling: CoreDNS with only the plugins that the Corefile template uses.
//
// The binary has no forward, proxy, hosts or rewrite plugin on purpose. So no configuration, even a tampered one, can
// forward an agent's query, and DNS can't become a tunnel.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	"clawker-fw/internal/listening"
	_ "clawker-fw/internal/otel"
	_ "clawker-fw/internal/policy"

	_ "github.com/coredns/coredns/plugin/errors"
)

func init() {
	// The order in which plugins handle a query. CoreDNS's default list has plugins that are not compiled in.
	dnsserver.Directives = []string{"errors", "otel", "policy"}
}

func main() {
	listening.EndWithout()
	coremain.Run()
}
