package policy

import (
	"bytes"
	"net"
	"testing"

	"github.com/miekg/dns"

	"clawker-fw/internal/must"
	"clawker-fw/internal/reason"
)

// socket is a UDP client.
type socket struct{ bytes.Buffer }

func (*socket) RemoteAddr() net.Addr { return stranger }

// watchedAnswer returns the record of CoreDNS's own answer.
func watchedAnswer(t *testing.T, answer []byte) []record {
	t.Helper()
	var refusals bytes.Buffer
	handler, client := Handler{refusals: NewRecorder(&refusals)}, &socket{}
	must.Get[int](t)(handler.watchUDP(nil)(client).Write(answer))
	if !bytes.Equal(client.Bytes(), answer) {
		t.Errorf("got %x", client.Bytes())
	}
	handler.refusals.waiting.Wait()
	return lines(t, &refusals)
}

func packed(t *testing.T, message *dns.Msg) []byte {
	t.Helper()
	return must.Get[[]byte](t)(message.Pack())
}

// CoreDNS's answers without the policy are recorded.
func TestAnswersBeforeThePolicy(t *testing.T) {
	query := new(dns.Msg).SetQuestion("a.test.", dns.TypeTXT)
	version := new(dns.Msg).SetRcode(query, dns.RcodeSuccess)
	version.SetEdns0(payload, false)
	version.IsEdns0().SetExtendedRcode(dns.RcodeBadVers)
	update := new(dns.Msg).SetRcode(query, dns.RcodeNotImplemented)
	update.Opcode = dns.OpcodeUpdate
	chaos := new(dns.Msg).SetRcode(query, dns.RcodeRefused)
	chaos.Question = []dns.Question{{Name: "a.test.", Qtype: dns.TypeTXT, Qclass: dns.ClassCHAOS}}
	for what, answer := range map[string]*dns.Msg{
		"another version": version, "an update": update, "another class": chaos,
		"a failure": new(dns.Msg).SetRcode(query, dns.RcodeServerFailure),
	} {
		got := watchedAnswer(t, packed(t, answer))
		if len(got) != 1 || got[0].Name != "a.test" || got[0].Type != "TXT" || got[0].Reason != reason.BadRequest || got[0].Source != stranger.String() {
			t.Errorf("%s: got %+v", what, got)
		}
	}
	got := watchedAnswer(t, packed(t, &dns.Msg{MsgHdr: dns.MsgHdr{Response: true, Rcode: dns.RcodeFormatError}}))
	if len(got) != 1 || got[0].Name != "" || got[0].Reason != reason.BadRequest {
		t.Errorf("without a question: got %+v", got)
	}
}

// The policy's answers are not recorded twice.
func TestAnswersOfThePolicy(t *testing.T) {
	question := func(kind uint16, operation int) *dns.Msg {
		query := new(dns.Msg).SetQuestion("a.test.", kind)
		query.Opcode = operation
		query.SetEdns0(payload, false)
		return query
	}
	unknown := question(dns.TypeA, dns.OpcodeQuery)
	unknown.Question[0].Name = "b.test."
	for what, query := range map[string]*dns.Msg{
		"an address": question(dns.TypeA, dns.OpcodeQuery), "no data": question(dns.TypeAAAA, dns.OpcodeQuery),
		"no rule": unknown, "a transfer": question(dns.TypeAXFR, dns.OpcodeQuery),
		"a notification": question(dns.TypeSOA, dns.OpcodeNotify),
	} {
		reply, _ := ask(t, stranger, query)
		if got := watchedAnswer(t, packed(t, reply)); len(got) > 0 {
			t.Errorf("%s: got %+v", what, got)
		}
	}
	if undecided([]byte("short")) {
		t.Error("what is no message counts")
	}
}
