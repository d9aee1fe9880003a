package policy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin/pkg/log"
	"github.com/miekg/dns"

	"clawker-fw/internal/hotfile"
	"clawker-fw/internal/must"
	"clawker-fw/internal/reason"
	"clawker-fw/internal/resolver"
)

// writer is a client that records the reply.
type writer struct {
	dns.ResponseWriter
	from  net.Addr
	reply *dns.Msg
	fails error
}

func (w *writer) RemoteAddr() net.Addr { return w.from }

func (w *writer) WriteMsg(reply *dns.Msg) error {
	w.reply = reply
	return w.fails
}

var (
	stranger = &net.UDPAddr{IP: net.IPv4(10, 213, 0, 7), Port: 4711}
	ourself  = &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4711}
)

// handler answers from the example list and records its refusals.
func handler(t *testing.T) (Handler, *bytes.Buffer) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "names.json")
	must.Put(t, path, example)
	source := hotfile.New(path, Parse)
	source.Refresh()
	var refusals bytes.Buffer
	return Handler{source, NewRecorder(&refusals), func() time.Time { return then }, nil}, &refusals
}

// ask returns the reply to one query in wire format, and its record.
func ask(t *testing.T, from net.Addr, query *dns.Msg) (*dns.Msg, string) {
	t.Helper()
	asked, refusals := handler(t)
	who := &writer{from: from}
	if code, err := asked.ServeDNS(context.Background(), who, query); code != dns.RcodeSuccess || err != nil {
		t.Fatalf("got %d, %v", code, err)
	}
	packed := must.Get[[]byte](t)(who.reply.Pack())
	reply := new(dns.Msg)
	must.Succeed(t, reply.Unpack(packed))
	if reply.Id != query.Id || !reply.Response || !reply.Authoritative || reply.RecursionAvailable {
		t.Errorf("the header is %+v", reply.MsgHdr)
	}
	asked.refusals.waiting.Wait()
	return reply, refusals.String()
}

// An allowed name has its address and no data of another type. Every other name does not exist, for any type. Transfers
// and queries of another class are refused.
func TestServeDNS(t *testing.T) {
	const address, none = "10.213.8.10", ""
	for what, test := range map[string]struct {
		name    string
		kind    uint16
		class   uint16
		code    int
		address string
		soa     bool
	}{
		"the address":          {"a.test.", dns.TypeA, dns.ClassINET, dns.RcodeSuccess, address, false},
		"in another case":      {"A.tEsT.", dns.TypeA, dns.ClassINET, dns.RcodeSuccess, address, false},
		"below a name":         {"x.w.test.", dns.TypeA, dns.ClassINET, dns.RcodeSuccess, address, false},
		"IPv6":                 {"a.test.", dns.TypeAAAA, dns.ClassINET, dns.RcodeSuccess, none, true},
		"HTTPS":                {"a.test.", dns.TypeHTTPS, dns.ClassINET, dns.RcodeSuccess, none, true},
		"text":                 {"x.w.test.", dns.TypeTXT, dns.ClassINET, dns.RcodeSuccess, none, true},
		"the authority":        {"a.test.", dns.TypeSOA, dns.ClassINET, dns.RcodeSuccess, none, true},
		"anything":             {"a.test.", dns.TypeANY, dns.ClassINET, dns.RcodeSuccess, none, true},
		"an unknown type":      {"a.test.", 65280, dns.ClassINET, dns.RcodeSuccess, none, true},
		"a denied name":        {"no.w.test.", dns.TypeA, dns.ClassINET, dns.RcodeNameError, none, true},
		"text of another":      {"b.test.", dns.TypeTXT, dns.ClassINET, dns.RcodeNameError, none, true},
		"another":              {"b.test.", dns.TypeA, dns.ClassINET, dns.RcodeNameError, none, true},
		"the root":             {".", dns.TypeNS, dns.ClassINET, dns.RcodeNameError, none, true},
		"an odd name":          {`x\.y.w.test.`, dns.TypeA, dns.ClassINET, dns.RcodeNameError, none, true},
		"a name of octets":     {`\000\255.w.test.`, dns.TypeA, dns.ClassINET, dns.RcodeNameError, none, true},
		"a transfer":           {"a.test.", dns.TypeAXFR, dns.ClassINET, dns.RcodeRefused, none, false},
		"a part of a transfer": {"a.test.", dns.TypeIXFR, dns.ClassINET, dns.RcodeRefused, none, false},
		"another class":        {"a.test.", dns.TypeA, dns.ClassCHAOS, dns.RcodeRefused, none, false},
		"any class":            {"a.test.", dns.TypeA, dns.ClassANY, dns.RcodeRefused, none, false},
		"the build":            {"version.bind.", dns.TypeTXT, dns.ClassCHAOS, dns.RcodeRefused, none, false},
	} {
		query := new(dns.Msg)
		query.SetQuestion(test.name, test.kind)
		query.Question[0].Qclass = test.class

		reply, _ := ask(t, stranger, query)

		if reply.Rcode != test.code || len(reply.Question) != 1 || reply.Question[0] != query.Question[0] {
			t.Errorf("%s: got %v", what, reply)
		}
		explanation := ""
		for _, answer := range reply.Answer {
			if header := answer.Header(); header.Name != test.name || header.Ttl != 1 {
				t.Errorf("%s: the answer is %v", what, answer)
			}
			explanation += answer.(*dns.A).A.String()
		}
		if explanation != test.address || len(reply.Ns) > 1 || (len(reply.Ns) == 1) != test.soa || len(reply.Extra) > 0 {
			t.Errorf("%s: got %v", what, reply)
		}
		for _, authority := range reply.Ns {
			soa := authority.(*dns.SOA)
			if soa.Hdr.Ttl != 1 || soa.Minttl != 1 || soa.Hdr.Name != "." {
				t.Errorf("%s: it may be kept by %v", what, soa)
			}
		}
	}
}

// Updates, notifications and other operations are not implemented, even for an allowed name.
func TestServeDNSOperations(t *testing.T) {
	for _, operation := range []int{dns.OpcodeIQuery, dns.OpcodeStatus, dns.OpcodeNotify, dns.OpcodeUpdate, 15} {
		for _, name := range []string{"a.test.", "b.test."} {
			query := new(dns.Msg)
			query.SetQuestion(name, dns.TypeA)
			query.Opcode = operation

			reply, _ := ask(t, stranger, query)

			if reply.Rcode != dns.RcodeNotImplemented || reply.Opcode != operation || len(reply.Answer)+len(reply.Ns) > 0 {
				t.Errorf("%d of %s: got %v", operation, name, reply)
			}
		}
	}
}

// A query with EDNS gets EDNS with our UDP size, and only then does a refusal have the reason (RFC 6891, RFC
// 8914).
func TestServeDNSExtensions(t *testing.T) {
	for name, explanation := range map[string]string{
		"a.test.":      "",
		"B.test.":      "no rule allows this host: clawker-fw explain https://b.test",
		"metadata.":    "no rule allows this host",
		"no.w.test.":   "a rule denies this host: clawker-fw explain https://no.w.test",
		`x\.y.w.test.`: "this is not a host name",
	} {
		for _, extended := range []bool{false, true} {
			query := new(dns.Msg)
			query.SetQuestion(name, dns.TypeA)
			if extended {
				query.SetEdns0(4096, true)
			}

			reply, _ := ask(t, stranger, query)

			option := reply.IsEdns0()
			if (option != nil) != extended {
				t.Fatalf("%s, %t: got %v", name, extended, reply)
			}
			if option == nil {
				continue
			}
			if option.UDPSize() != 1232 || option.Version() != 0 || (len(option.Option) == 1) != (explanation != "") {
				t.Errorf("%s: got %v", name, option)
			}
			for _, extra := range option.Option {
				if why := extra.(*dns.EDNS0_EDE); why.InfoCode != 15 || why.ExtraText != explanation {
					t.Errorf("%s: got %v", name, why)
				}
			}
		}
	}
}

// Each refusal is logged as one line of JSON, with escaped unusual bytes in names. Nothing else is logged.
func TestServeDNSRecordsRefusals(t *testing.T) {
	for what, test := range map[string]struct {
		from   net.Addr
		name   string
		kind   uint16
		opcode int
		reason string
	}{
		"an allowed name":    {stranger, "a.test.", dns.TypeA, dns.OpcodeQuery, ""},
		"without data":       {stranger, "a.test.", dns.TypeAAAA, dns.OpcodeQuery, ""},
		"another":            {stranger, "B.test.", dns.TypeAAAA, dns.OpcodeQuery, "no-rule"},
		"a denied one":       {stranger, "no.w.test.", dns.TypeA, dns.OpcodeQuery, "denied"},
		"an odd one":         {stranger, `x\"\010.test.`, dns.TypeA, dns.OpcodeQuery, "bad-name"},
		"the root":           {stranger, ".", dns.TypeNS, dns.OpcodeQuery, "bad-name"},
		"a transfer":         {stranger, "a.test.", dns.TypeAXFR, dns.OpcodeQuery, "bad-request"},
		"an update":          {stranger, "a.test.", dns.TypeSOA, dns.OpcodeUpdate, "bad-request"},
		"what fwctl asks":    {ourself, askedByOurselves, dns.TypeA, dns.OpcodeQuery, ""},
		"from another place": {stranger, askedByOurselves, dns.TypeA, dns.OpcodeQuery, "no-rule"},
		"below that":         {stranger, "x." + askedByOurselves, dns.TypeA, dns.OpcodeQuery, "no-rule"},
		"another from us":    {ourself, "b.test.", dns.TypeA, dns.OpcodeQuery, "no-rule"},
	} {
		query := new(dns.Msg)
		query.SetQuestion(test.name, test.kind)
		query.Opcode = test.opcode

		_, line := ask(t, test.from, query)

		if test.reason == "" {
			if line != "" {
				t.Errorf("%s: got %s", what, line)
			}
			continue
		}
		var got record
		if err := json.Unmarshal([]byte(line), &got); err != nil || strings.Count(line, "\n") != 1 {
			t.Fatalf("%s: got %q, %v", what, line, err)
		}
		name := strings.TrimSuffix(test.name, ".")
		want := record{got.Time, test.from.String(), "dns", 53, name, dns.TypeToString[test.kind], test.reason}
		if got != want || len(got.Time) != len("2026-01-02T03:04:05.678Z") {
			t.Errorf("%s: got %+v, expected %+v", what, got, want)
		}
	}
}

// Telemetry gets the decision itself: the response code does not tell whether a query was refused.
func TestServeDNSTellsTheOutcome(t *testing.T) {
	type outcome struct {
		reason        string
		code, answers int
	}
	for what, test := range map[string]struct {
		from net.Addr
		name string
		kind uint16
		want *outcome
	}{
		"the address":      {stranger, "a.test.", dns.TypeA, &outcome{"", dns.RcodeSuccess, 1}},
		"no data":          {stranger, "a.test.", dns.TypeAAAA, &outcome{"", dns.RcodeSuccess, 0}},
		"another":          {stranger, "b.test.", dns.TypeA, &outcome{reason.NoRule, dns.RcodeNameError, 0}},
		"a denied one":     {stranger, "no.w.test.", dns.TypeA, &outcome{reason.Denied, dns.RcodeNameError, 0}},
		"a transfer":       {stranger, "a.test.", dns.TypeAXFR, &outcome{reason.BadRequest, dns.RcodeRefused, 0}},
		"the page":         {stranger, "Clawker.INTERNAL.", dns.TypeA, nil},
		"no data of it":    {stranger, "clawker.internal.", dns.TypeAAAA, nil},
		"a transfer of it": {stranger, "clawker.internal.", dns.TypeAXFR, &outcome{reason.BadRequest, dns.RcodeRefused, 0}},
		"what fwctl asks":  {ourself, askedByOurselves, dns.TypeA, nil},
	} {
		asked, _ := handler(t)
		var got *outcome
		asked.report = func(o resolver.Outcome) { got = &outcome{o.Reason, o.Code, o.Answers} }
		query := new(dns.Msg)
		query.SetQuestion(test.name, test.kind)

		must.Get[int](t)(asked.ServeDNS(context.Background(), &writer{from: test.from}, query))

		if !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: got %+v, expected %+v", what, got, test.want)
		}
	}
}

// A failure to send an answer is logged, and the refusal is recorded: over TCP, a client need not wait for it.
func TestServeDNSErrors(t *testing.T) {
	asked, refusals := handler(t)
	query := new(dns.Msg)
	query.SetQuestion("b.test.", dns.TypeA)
	gone := &writer{from: stranger, fails: errors.New("gone away")}
	var logged bytes.Buffer
	log.SetOutput(&logged)
	defer log.SetOutput(os.Stdout)
	code, err := asked.ServeDNS(context.Background(), gone, query)
	if code != dns.RcodeSuccess || err != nil || !strings.Contains(logged.String(), "plugin/policy: gone away") {
		t.Errorf("got %d, %v, and in the log %q", code, err, &logged)
	}
	asked.refusals.waiting.Wait()
	if got := lines(t, refusals); len(got) != 1 || got[0].Name != "b.test" {
		t.Errorf("got %+v", got)
	}
}
