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

// noRule is the reason of a refusal that the whole product uses (docs/enforcement.md).
const noRule = "no-rule"

// record is one refusal, a line of JSON. Names are in presentation format, in which every odd octet is escaped.
type record struct {
	Time    string `json:"time"`
	Source  string `json:"source"`
	Name    string `json:"name"`
	Type    string `json:"type"`
	Details string `json:"details"`
}

// askedByOurselves is the name that the container asks itself for, to see that agents are refused.
const askedByOurselves = "refused.clawker-fw.invalid."

// recordRefusal writes down who was refused what.
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

// isOwn says whether an address is this container's. Where that can't be told it is not.
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
