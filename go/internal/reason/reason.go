// Package reason has the reasons for refusals, as in clawker_fw/rules/reasons.py and docs/enforcement.md.
package reason

import (
	"strings"

	"clawker-fw/internal/hostname"
)

// The reasons in this program's decisions. Envoy's configuration has the others.
const (
	NoRule     = "no-rule"
	Observed   = "observed"
	WrongPort  = "wrong-port"
	Denied     = "denied"
	Expired    = "expired"
	BadName    = "bad-name"
	BadRequest = "bad-request"
	Limit      = "limit"
)

// Sentences explain each reason to agents.
var Sentences = map[string]string{
	NoRule:             "no rule allows this host",
	Observed:           "no rule allows this host, and it passes because this stack is observing",
	WrongPort:          "rules allow this host only on another port or over another protocol",
	Denied:             "a rule denies this host",
	"path":             "a rule allows this host, but not this path with this method",
	"no-websocket":     "a rule allows this request, but not as a WebSocket",
	Expired:            "the rule for this host has ended",
	"no-server-name":   "there is no server name",
	BadName:            "this is not a host name",
	BadRequest:         "this is not TLS, nor a request that can be forwarded",
	"timeout":          "no TLS hello or complete request headers arrived in time",
	Limit:              "this is over the limit of this agent, or of all agents",
	"private-address":  "this host may be reached, but none of its addresses",
	"not-trusted":      "a rule inspects TLS of this host, and the agent refused Envoy's certificate",
	"host-not-trusted": "a rule allows this host, but Envoy does not trust its certificate",
	"no-address":       "this host may be reached, but it has no address",
	"no-secret":        "a rule allows this request, but the secret for it is not there",
	"secret-refused":   "the host did not accept the secret of this request",
	"unreachable":      "this host may be reached, but the server did not answer",

	"proxy-refused":     "a rule allows this host, but the upstream proxy refuses it",
	"proxy-auth":        "a rule allows this host, but the upstream proxy wants other credentials",
	"proxy-failed":      "a rule allows this host, but the upstream proxy did not get there",
	"proxy-unreachable": "a rule allows this host, but the upstream proxy does not answer",
	"proxy-no-address":  "a rule allows this host, but the upstream proxy has no address",
}

// byRules are the reasons that rules cause.
var byRules = map[string]bool{
	NoRule: true, Observed: true, WrongPort: true, Denied: true, "path": true, "no-websocket": true, Expired: true, "private-address": true,
}

// Command returns a person's command for a refused host name in lower case, or "". The URL has that name and no
// shell syntax. Only `explain` knows the rules, and suggests the command that allows just this.
func Command(because, name, url string) string {
	if byRules[because] && hostname.Is(name) && strings.Contains(name, ".") {
		return "clawker-fw explain " + url
	}
	return ""
}
