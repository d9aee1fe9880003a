package resolver

import (
	"context"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/log"
	"github.com/miekg/dns"
)

// reporter writes the errors of all plugins to the log. CoreDNS's plugin `errors` works with its own type of server alone.
type reporter struct{ next plugin.Handler }

func reportErrors(next plugin.Handler) plugin.Handler { return reporter{next} }

// Name returns what the plugin is called.
func (reporter) Name() string { return "errors" }

// ServeDNS passes one query on.
func (r reporter) ServeDNS(ctx context.Context, writer dns.ResponseWriter, query *dns.Msg) (int, error) {
	code, err := plugin.NextOrFailure(r.Name(), r.next, ctx, writer, query)
	if err != nil {
		log.Error(err)
	}
	return code, err
}
