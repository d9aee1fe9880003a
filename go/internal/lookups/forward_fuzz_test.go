package lookups

import (
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// What an agent or a name server chooses the bytes of. The seeds run with every `go test`; `go test -fuzz NAME` looks for more.

// packed returns a message on the wire.
func packed(f *testing.F, message dnsmessage.Message) []byte {
	f.Helper()
	content, err := message.Pack()
	if err != nil {
		f.Fatal(err)
	}
	return content
}

// Whatever is asked, there is one answer at most, and it has the id of the question and is a response.
func FuzzForwarder(f *testing.F) {
	plain := packed(f, queryFor("a.rule.test."))
	f.Add(plain, true)
	f.Add(plain[:len(plain)-3], false)
	f.Add(packed(f, queryFor("a.rule.test.*0.")), false)
	f.Add(packed(f, queryFor(lookedUpAgain)), false)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, query []byte, works bool) {
		resolve := func(l *pendingLookup) ([]byte, error) {
			asked, err := l.query()
			if err != nil || !works {
				return nil, errors.New("it does not answer")
			}
			asked[2] |= 1 << 7
			return asked, nil
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

// Whatever a name server answers, Envoy is told of records of the type that it has asked for, under the name that it has
// asked for, for no longer than they may be kept.
func FuzzToldOfReply(f *testing.F) {
	message := queryFor("a.test.")
	message.Response = true
	message.Answers = []dnsmessage.Resource{{
		Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("b.test."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: 90},
		Body:   &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}},
	}}
	whole := packed(f, message)
	f.Add(whole)
	f.Add(whole[:len(whole)-2])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, reply []byte) {
		const keep = 60
		question := queryFor("a.test.").Questions[0]
		lookup := &pendingLookup{inquiry: inquiry{kind: question.Type, class: question.Class}, question: question}
		var told dnsmessage.Message
		if err := told.Unpack(lookup.told(reply, keep*time.Second)); err != nil {
			t.Fatalf("%x is told, which can't be read: %v", reply, err)
		}
		if len(told.Questions) != 1 || told.Questions[0] != question {
			t.Errorf("the question is %v", told.Questions)
		}
		for _, each := range told.Answers {
			header := each.Header
			if header.Name != question.Name || header.Type != question.Type || header.Class != question.Class || header.TTL > keep {
				t.Errorf("%v is told", header)
			}
		}
		_, _ = has(reply, netip.MustParsePrefix("192.0.2.0/24")), code(reply)
	})
}

// Only a response with the id and the question of a query is its answer.
func FuzzAnswers(f *testing.F) {
	query := packed(f, queryFor("a.test."))
	response := queryFor("A.test.")
	response.Response = true
	f.Add(query, packed(f, response))
	f.Add(query, query)
	f.Add(query, []byte{0, 0, 0x80})
	f.Fuzz(func(t *testing.T, query, message []byte) {
		if answers(query, message) && (query[0] != message[0] || query[1] != message[1] || message[2]>>7 != 1) {
			t.Errorf("%x is taken for the answer to %x", message, query)
		}
	})
}
