package lookups

import (
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// Bytes that an agent or a name server chooses. The seeds run with every `go test`; `go test -fuzz NAME` looks for
// more.

// Any query gets at most one answer, which has the query's id and is a response.
func FuzzForwarder(f *testing.F) {
	plain := packed(f, queryFor("a.rule.test."))
	f.Add(plain, true)
	f.Add(plain[:len(plain)-3], false)
	f.Add(packed(f, queryFor("a.rule.test.*0.")), false)
	f.Add(packed(f, queryFor(lookedUpAgain)), false)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, query []byte, works bool) {
		resolve := func(l *pendingLookup) (*dns.Msg, error) {
			if !works {
				return nil, errors.New("it does not answer")
			}
			return new(dns.Msg).SetReply(l.query()), nil
		}
		var lock sync.Mutex
		var replies [][]byte
		forwarder := newForwarder(resolve, func(string) string { return "rule" })
		forwarder.sleep = func(time.Duration) {}
		forwarder.take(query, false, func(reply []byte) {
			lock.Lock()
			defer lock.Unlock()
			replies = append(replies, reply)
		})
		idle := func() bool {
			forwarder.lock.Lock()
			defer forwarder.lock.Unlock()
			return forwarder.running == 0 && len(forwarder.pending) == 0
		}
		for end := time.Now().Add(5 * time.Second); !idle(); time.Sleep(10 * time.Microsecond) {
			if time.Now().After(end) {
				t.Fatal("it never ends")
			}
		}
		lock.Lock()
		defer lock.Unlock()
		if len(replies) > 1 {
			t.Fatalf("%d answers", len(replies))
		}
		for _, reply := range replies {
			if len(reply) < 12 || reply[0] != query[0] || reply[1] != query[1] || reply[2]>>7 != 1 {
				t.Errorf("%x is no answer to %x", reply, query)
			}
		}
	})
}

// From any reply of a name server, Envoy gets only records of the requested type, under the requested name, with a
// TTL within the limit.
func FuzzToldOfReply(f *testing.F) {
	whole := packed(f, resolvedTo("a.test.", "192.0.2.1", 90))
	f.Add(whole)
	f.Add(whole[:len(whole)-2])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, reply []byte) {
		const keep = 60
		lookup, read := asking(queryFor("a.test.")), new(dns.Msg)
		if read.Unpack(reply) != nil {
			return
		}
		_ = has(read, netip.MustParsePrefix("192.0.2.0/24"))
		lookup.askers = []asker{{7, func(answer []byte) {
			reply, question := unpacked(t, answer), lookup.asked.Question[0]
			if len(reply.Question) != 1 || reply.Question[0] != question {
				t.Errorf("the question is %v", reply.Question)
			}
			for _, record := range reply.Answer {
				if header := record.Header(); header.Name != question.Name || header.Rrtype != question.Qtype || header.Class != question.Qclass || header.Ttl > keep {
					t.Errorf("%v is told", header)
				}
			}
		}}}
		lookup.answer(lookup.answerFrom(read, keep*time.Second))
	})
}
