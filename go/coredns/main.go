// Command coredns is the resolver sibling: CoreDNS with only the plugins that the Corefile template names.
//
// What is left out is the point. There is no forward, proxy, hosts or rewrite plugin in the binary, so no
// configuration, tampered or not, can send an agent's query anywhere: DNS can't become a tunnel.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "clawker-fw/coredns/policy"

	_ "github.com/coredns/coredns/plugin/errors"
)

func init() {
	// The order in which plugins see a query; CoreDNS's own list names plugins that are not here.
	dnsserver.Directives = []string{"errors", "policy"}
}

func main() {
	coremain.Run()
}
