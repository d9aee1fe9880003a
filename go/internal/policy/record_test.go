package policy

import (
	"bytes"
	"encoding/json"
	"io"
	"testing"

	"github.com/miekg/dns"

	"clawker-fw/internal/must"
	"clawker-fw/internal/reason"
)

// refused returns the answer to a query for a name that no rule allows.
func refused(name string) *dns.Msg {
	query := new(dns.Msg)
	query.SetQuestion(name, dns.TypeA)
	return new(dns.Msg).SetRcode(query, dns.RcodeNameError)
}

func lines(t *testing.T, out *bytes.Buffer) []record {
	t.Helper()
	var found []record
	for decoder := json.NewDecoder(out); decoder.More(); {
		var each record
		must.Succeed(t, decoder.Decode(&each))
		found = append(found, each)
	}
	return found
}

// A reader that stalls delays no query: what waits is bounded, and the rest is counted and told when it reads again.
func TestAReaderThatStalls(t *testing.T) {
	read, write := io.Pipe()
	recorder := NewRecorder(write)
	const refusals = 3 * mostWaiting
	for range refusals {
		recorder.Record(stranger, refused("flood.test."), reason.NoRule)
	}
	told := 0
	for decoder := json.NewDecoder(read); told < refusals; {
		var each struct {
			Reason     string
			Suppressed int
		}
		must.Succeed(t, decoder.Decode(&each))
		if each.Reason != "" {
			told++
		}
		told += each.Suppressed
	}
	if told != refusals {
		t.Errorf("%d of %d are told of", told, refusals)
	}
	recorder.waiting.Wait()
}
