package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/miekg/dns"
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
		if err := decoder.Decode(&each); err != nil {
			t.Fatal(err)
		}
		found = append(found, each)
	}
	return found
}

// A flood of one client is counted after its share of lines, and costs another client none of its own.
func TestRecordFloods(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(1, 0)
	recorder := NewRecorder(&out)
	recorder.now = func() time.Time { return now }
	record := func(source net.Addr, name string) {
		t.Helper()
		if err := recorder.Record(source, refused(name), noRule); err != nil {
			t.Fatal(err)
		}
	}
	other := &net.UDPAddr{IP: net.IPv4(10, 213, 0, 8), Port: 4711}

	for range 1000 {
		record(stranger, "flood.test.")
	}
	for range 20 {
		record(other, "other.test.")
	}
	if found := lines(t, &out); len(found) != linesAtOnce+20 {
		t.Errorf("%d lines", len(found))
	}

	now = now.Add(time.Second)
	for range 1000 {
		record(stranger, "flood.test.")
	}
	found := lines(t, &out)
	if len(found) != linesPerSecond || found[0].Suppressed != 1000-linesAtOnce || found[1].Suppressed != 0 {
		t.Errorf("%d lines, the first of %+v", len(found), found[:1])
	}

	now = now.Add(time.Hour)
	record(stranger, "flood.test.")
	if found = lines(t, &out); len(found) != 1 || found[0].Suppressed != 1000-linesPerSecond {
		t.Errorf("got %+v", found)
	}
}

// No number of clients makes the recorder forget to write, or remember more than it may.
func TestRecordManyClients(t *testing.T) {
	var out bytes.Buffer
	recorder := NewRecorder(&out)
	now := time.Unix(1, 0)
	recorder.now = func() time.Time { return now }
	const clients = 3 * mostClients
	for number := range clients {
		source := &net.UDPAddr{IP: net.IPv4(10, byte(number>>16), byte(number>>8), byte(number)), Port: 1}
		if err := recorder.Record(source, refused(fmt.Sprintf("%d.test.", number)), noRule); err != nil {
			t.Fatal(err)
		}
		if len(recorder.clients) > mostClients {
			t.Fatalf("%d clients are remembered", len(recorder.clients))
		}
	}
	if found := lines(t, &out); len(found) != clients {
		t.Errorf("%d lines", len(found))
	}
}
