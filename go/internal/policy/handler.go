// Package policy is the CoreDNS plugin that answers all queries from a file with names.
//
// An allowed name has an address, and no other name exists. The list is complete, so no query is ever forwarded.
package policy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/coremain"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/log"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"

	"clawker-fw/internal/hostname"
	"clawker-fw/internal/hotfile"
	"clawker-fw/internal/reason"
	"clawker-fw/internal/resolver"
	"clawker-fw/internal/statussocket"
)

// ownPage is the name of the page about refusals, which is always in the list. Its queries are no agent's traffic.
const ownPage = "clawker.internal."

// payload is the announced UDP size (RFC 6891, DNS flag day 2020). All our answers are much shorter.
const payload = 1232

// Handler answers every query from the current list. No plugin comes after it.
type Handler struct {
	source   *hotfile.File[*List]
	refusals *Recorder
	now      func() time.Time
	report   func(resolver.Outcome) // nil without telemetry
}

// explanation returns the sentence for a reason, and the command for a person, if any. It contains only host
// names, which can't be shell syntax.
func explanation(because, name string) string {
	sentence, host := reason.Sentences[because], strings.ToLower(strings.TrimSuffix(name, "."))
	if command := reason.Command(because, host, "https://"+host); command != "" {
		return sentence + ": " + command
	}
	return sentence
}

func (h Handler) Name() string { return "policy" }

// ServeDNS answers one query (RFC 1034, section 3.7). An allowed name has one A record and no data of any other type.
// Every other name does not exist (RFC 2308). Transfers are refused; updates and notifications are not implemented.
func (h Handler) ServeDNS(_ context.Context, writer dns.ResponseWriter, query *dns.Msg) (int, error) {
	began, list := time.Now(), h.source.Value()
	reply := new(dns.Msg)
	reply.SetReply(query)
	reply.Authoritative = true
	question := request.Request{W: writer, Req: query}
	decision := list.Decide(question.Name(), h.now())
	because := reason.BadRequest
	switch {
	case query.Opcode != dns.OpcodeQuery:
		reply.Rcode = dns.RcodeNotImplemented
	case len(query.Question) != 1:
		reply.Rcode = dns.RcodeFormatError
	case question.QClass() != dns.ClassINET, question.QType() == dns.TypeAXFR, question.QType() == dns.TypeIXFR:
		reply.Rcode = dns.RcodeRefused
	case decision.Reason != "":
		because = decision.Reason
		reply.Rcode = dns.RcodeNameError
		reply.Ns = authority(list.ttl)
	case question.QType() == dns.TypeA:
		header := dns.RR_Header{Name: question.QName(), Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: list.ttl}
		because = ""
		if decision.Observed {
			because = reason.Observed
		}
		reply.Answer = []dns.RR{&dns.A{Hdr: header, A: decision.Address.AsSlice()}}
	default:
		because = ""
		reply.Ns = authority(list.ttl)
	}
	if query.IsEdns0() != nil {
		reply.SetEdns0(payload, false)
		if reply.Rcode == dns.RcodeNameError {
			blocked := &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeBlocked, ExtraText: explanation(because, question.Name())}
			reply.IsEdns0().Option = append(reply.IsEdns0().Option, blocked) // RFC 8914, code 15
		}
	}
	err := writer.WriteMsg(reply)
	forPage := because == "" && question.Name() == ownPage
	if !forPage && !isOwnCheck(writer.RemoteAddr(), question.QName()) {
		if h.report != nil {
			h.report(resolver.Outcome{
				Client: AddressOf(writer.RemoteAddr()), Name: question.QName(), Type: question.QType(), Began: began, Took: time.Since(began),
				Reason: because, Code: reply.Rcode, Answers: len(reply.Answer),
			})
		}
		if because != "" { // even if the client did not wait
			h.refusals.Record(writer.RemoteAddr(), reply, because)
		}
	}
	if err != nil {
		log.Error(plugin.Error(h.Name(), err))
	}
	return dns.RcodeSuccess, nil // with some other codes, the server would write a second answer
}

// authority returns an SOA record of the root zone, with which resolvers cache a negative answer for the TTL.
func authority(ttl uint32) []dns.RR {
	return []dns.RR{&dns.SOA{
		Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl},
		Ns:  "ns.clawker-fw.invalid.", Mbox: "hostmaster.clawker-fw.invalid.",
		Serial: 1, Refresh: 60, Retry: 60, Expire: 60, Minttl: ttl,
	}}
}

func init() { resolver.Register("policy", setup) }

// setup reads `policy FILE SOCKET` from the Corefile: the list, and the socket for the process's status.
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
	listener, err := statussocket.Listen(arguments[1], 0o666)
	if err != nil {
		return plugin.Error("policy", err)
	}
	go source.Follow()
	go statussocket.Tell(listener, func() any {
		_, loaded := source.Fresh()
		return statussocket.Plugin{Build: "CoreDNS-" + coremain.CoreVersion, Status: loaded}
	})
	config := resolver.ConfigOf(controller)
	handler := Handler{source, NewRecorder(os.Stdout), time.Now, config.Report}
	config.AddPlugin(func(plugin.Handler) plugin.Handler { return handler })
	config.UDPDecorateWriterFunc = handler.watchUDP
	config.WatchTCP = handler.watchTCP
	return nil
}

// Decisions without an address: a rule denies the name, or the name has no rule and observing excludes it.
const (
	deny   = "deny"
	noRule = "no-rule"
	envoy  = "envoy"
)

// file is the format of the list. `at` decides for the name itself, `below` for all names below it. Each is a key
// of `addresses`, `deny` or `no-rule`; without it, the nearest name above decides. An address with a time, in
// seconds since 1970, is refused from then on. A number is added to the address. Until `observe_until`, undecided
// names have Envoy's address if they can be public.
type file struct {
	TTL          uint32                `json:"ttl"`
	Addresses    map[string]netip.Addr `json:"addresses"`
	ObserveUntil int64                 `json:"observe_until"`
	Names        map[string]struct {
		At         string `json:"at"`
		AtUntil    int64  `json:"at_until"`
		AtNumber   uint32 `json:"at_number"`
		Below      string `json:"below"`
		BelowUntil int64  `json:"below_until"`
	} `json:"names"`
}

type answer struct {
	decided bool
	address netip.Addr
	until   int64
	unnamed bool // no rule
}

// Decision is a name's address, or the reason for its refusal. An observed name has an address without a rule.
type Decision struct {
	Address  netip.Addr
	Reason   string
	Observed bool
}

type entry struct{ at, below answer }

// List is a parsed, immutable policy.
type List struct {
	ttl      uint32
	names    map[string]entry
	observed answer // for names that are not in the list
}

func Parse(content []byte) (*List, error) {
	var read file
	if err := hotfile.Unmarshal(content, &read); err != nil {
		return nil, err
	}
	if read.Names == nil {
		return nil, errors.New("names is missing; write {} for an empty list")
	}
	list := &List{ttl: read.TTL, names: make(map[string]entry, len(read.Names))}
	if read.ObserveUntil != 0 {
		var err error
		if list.observed, err = read.answer(envoy, read.ObserveUntil, 0); err != nil {
			return nil, fmt.Errorf("observing: %w", err)
		}
	}
	for name, decisions := range read.Names {
		if !hostname.Is(name) {
			return nil, fmt.Errorf("%q is not a host name in lower case", name)
		}
		at, err := read.answer(decisions.At, decisions.AtUntil, decisions.AtNumber)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		below, err := read.answer(decisions.Below, decisions.BelowUntil, 0)
		if err != nil {
			return nil, fmt.Errorf("below %s: %w", name, err)
		}
		list.names[name] = entry{at, below}
	}
	return list, nil
}

func (f file) answer(text string, until int64, number uint32) (answer, error) {
	address, ok := f.Addresses[text]
	switch {
	case until < 0 || (until > 0 && !ok):
		return answer{}, fmt.Errorf("%d is not the end of an address", until)
	case number > 0 && !ok:
		return answer{}, fmt.Errorf("%d is not the number of an address", number)
	case text == "":
		return answer{}, nil
	case text == deny:
		return answer{decided: true}, nil
	case text == noRule:
		return answer{decided: true, unnamed: true}, nil
	case !ok || !address.Is4():
		return answer{}, fmt.Errorf("addresses has no IPv4 address %q", text)
	}
	first := address.As4()
	binary.BigEndian.PutUint32(first[:], binary.BigEndian.Uint32(first[:])+number)
	return answer{decided: true, address: netip.AddrFrom4(first), until: until}, nil
}

// Decide returns the decision for a name at a time. The name's own `at` comes first, then the nearest `below`,
// starting with the name itself.
func (l *List) Decide(name string, now time.Time) Decision {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if !hostname.Is(name) {
		return Decision{Reason: reason.BadName}
	}
	if answer := l.names[name].at; answer.decided {
		return answer.decision(now)
	}
	for above := range hostname.Around(name) {
		if answer := l.names[above].below; answer.decided {
			return answer.decision(now)
		}
	}
	if now.Unix() < l.observed.until && hostname.MayBePublic(name) {
		return Decision{Address: l.observed.address, Observed: true}
	}
	return Decision{Reason: reason.NoRule}
}

func (a answer) decision(now time.Time) Decision {
	switch {
	case a.unnamed:
		return Decision{Reason: reason.NoRule}
	case !a.address.IsValid():
		return Decision{Reason: reason.Denied}
	case a.until > 0 && now.Unix() >= a.until:
		return Decision{Reason: reason.Expired}
	}
	return Decision{Address: a.address}
}
