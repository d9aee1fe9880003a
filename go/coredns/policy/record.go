package policy

import (
	"encoding/json"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// noRule is the reason logged for a name that no rule allows (docs/enforcement.md).
const noRule = "no-rule"

// record is the JSON log line of one refusal. Names are in presentation format, with special octets escaped.
type record struct {
	Time    string `json:"time"`
	Source  string `json:"source"`
	Name    string `json:"name"`
	Type    string `json:"type"`
	Details string `json:"details"`
}

// askedByOurselves is the name that fwctl queries in this container to check that agents are refused.
const askedByOurselves = "refused.clawker-fw.invalid."

// recordRefusal logs a refusal, except for our own check.
func recordRefusal(out io.Writer, source net.Addr, reply *dns.Msg) error {
	details := noRule
	if reply.Rcode != dns.RcodeNameError {
		details = dns.RcodeToString[reply.Rcode]
	}
	question := dns.Question{Name: "."}
	if len(reply.Question) > 0 {
		question = reply.Question[0]
	}
	if question.Name == askedByOurselves && isOwn(source) {
		return nil
	}
	return json.NewEncoder(out).Encode(record{
		Time:    time.Now().UTC().Format("2006-01-02T15:04:05.000Z"),
		Source:  source.String(),
		Name:    strings.TrimSuffix(question.Name, "."),
		Type:    dns.Type(question.Qtype).String(),
		Details: details,
	})
}

// isOwn reports whether an address is known to be this container's own.
func isOwn(source net.Addr) bool {
	from, err := netip.ParseAddrPort(source.String())
	if err != nil {
		return false
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(own, func(address net.Addr) bool {
		prefix, err := netip.ParsePrefix(address.String())
		return err == nil && prefix.Addr() == from.Addr().Unmap()
	})
}
