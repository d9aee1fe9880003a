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

// refused returns the answer to a query for a name without a rule.
func refused(name string) *dns.Msg {
	query := new(dns.Msg)
	query.SetQuestion(name, dns.TypeA)
	return new(dns.Msg).SetRcode(query, dns.RcodeNameError)
}

func lines(t *testing.T, out *bytes.Buffer) []record {
	t.Helper()
	var records []record
	for decoder := json.NewDecoder(out); decoder.More(); {
		var entry record
		must.Succeed(t, decoder.Decode(&entry))
		records = append(records, entry)
	}
	return records
}

// A stalled reader delays no query: waiting lines are limited, and the rest is counted and reported later.
func TestAReaderThatStalls(t *testing.T) {
	read, write := io.Pipe()
	recorder := NewRecorder(write)
	const refusals = 3 * mostWaiting
	for range refusals {
		recorder.Record(stranger, refused("flood.test."), reason.NoRule)
	}
	lines := 0
	for decoder := json.NewDecoder(read); lines < refusals; {
		var entry struct {
			Reason     string
			Suppressed int
		}
		must.Succeed(t, decoder.Decode(&entry))
		if entry.Reason != "" {
			lines++
		}
		lines += entry.Suppressed
	}
	if lines != refusals {
		t.Errorf("%d of %d are told of", lines, refusals)
	}
	recorder.waiting.Wait()
}
