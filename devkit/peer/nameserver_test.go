package main

import (
	"bufio"
	"context"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func testZone(t *testing.T) zone {
	t.Helper()
	zone := zone{}
	for _, text := range []string{
		"a.test=10.0.0.1+10.0.0.2,B.Test=10.0.0.3", "*.wild.test=10.0.0.4, *.deep.wild.test=10.0.0.5", "six.test=fd00::1",
		"one.test=10.0.0.6/10.0.0.7+10.0.0.8,alias.test=One.test.,lost.test=none.test.",
	} {
		if err := zone.Set(text); err != nil {
			t.Fatal(err)
		}
	}
	return zone
}

// A name is found exactly or below its longest wildcard, in any case; its own wildcard doesn't cover it.
func TestZone(t *testing.T) {
	zone := testZone(t)
	for _, test := range []struct {
		name   string
		record uint16
		rcode  int
		want   []string
	}{
		{"a.test.", dns.TypeA, dns.RcodeSuccess, []string{"10.0.0.1", "10.0.0.2"}},
		{"A.tEsT.", dns.TypeA, dns.RcodeSuccess, []string{"10.0.0.1", "10.0.0.2"}},
		{"b.test.", dns.TypeA, dns.RcodeSuccess, []string{"10.0.0.3"}},
		{"x.a.test.", dns.TypeA, dns.RcodeNameError, nil},
		{"test.", dns.TypeA, dns.RcodeNameError, nil},
		{".", dns.TypeA, dns.RcodeNameError, nil},
		{"wild.test.", dns.TypeA, dns.RcodeNameError, nil},
		{"x.wild.test.", dns.TypeA, dns.RcodeSuccess, []string{"10.0.0.4"}},
		{"x.y.wild.test.", dns.TypeA, dns.RcodeSuccess, []string{"10.0.0.4"}},
		{"x.deep.wild.test.", dns.TypeA, dns.RcodeSuccess, []string{"10.0.0.5"}},
		{"a.test.", dns.TypeAAAA, dns.RcodeSuccess, nil},
		{"a.test.", dns.TypeTXT, dns.RcodeSuccess, nil},
		{"six.test.", dns.TypeAAAA, dns.RcodeSuccess, []string{"fd00::1"}},
		{"six.test.", dns.TypeA, dns.RcodeSuccess, nil},
	} {
		t.Run(test.name+dns.TypeToString[test.record], func(t *testing.T) {
			reply := zone.answer(new(dns.Msg).SetQuestion(test.name, test.record))
			var got []string
			for _, record := range reply.Answer {
				if record.Header().Name != test.name || record.Header().Ttl != answerTTL {
					t.Errorf("%v", record)
				}
				got = append(got, dns.Field(record, 1))
			}
			if reply.Rcode != test.rcode || !slices.Equal(got, test.want) || (len(got) == 0) != (len(reply.Ns) == 1) {
				t.Errorf("%v", reply)
			}
		})
	}
}

// An alias comes with the addresses of what it stands for; a slash separates those of one answer from those of the next.
func TestZoneThatChanges(t *testing.T) {
	zone := testZone(t)
	for _, want := range []string{
		"one.test. 10.0.0.6", "one.test. 10.0.0.7 10.0.0.8", "one.test. 10.0.0.6",
	} {
		reply := zone.answer(new(dns.Msg).SetQuestion("alias.test.", dns.TypeA))
		var got []string
		for _, record := range reply.Answer {
			got = append(got, dns.Field(record, 1))
		}
		if strings.Join(got, " ") != want || reply.Answer[0].Header().Name != "alias.test." {
			t.Errorf("%v, want %s", reply, want)
		}
	}
	if reply := zone.answer(new(dns.Msg).SetQuestion("lost.test.", dns.TypeA)); reply.Rcode != dns.RcodeNameError {
		t.Errorf("%v", reply)
	}
	if err := zone.Set("nowhere.test="); err == nil {
		t.Error("a name without an address")
	}
}

// A wildcard alone covers every name.
func TestZoneOfEverything(t *testing.T) {
	zone := zone{}
	if err := zone.Set("*=10.0.0.1"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"test.", "a.b.test."} {
		if reply := zone.answer(new(dns.Msg).SetQuestion(name, dns.TypeA)); len(reply.Answer) != 1 {
			t.Errorf("%v", reply)
		}
	}
}

// A name may be answered late or never, with all that is below it, while others are answered at once.
func TestDelays(t *testing.T) {
	delays := delays{"fast.slow.test.": 0, "silent.test.": never}
	if err := delays.Set("Slow.test=3s"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]time.Duration{
		"slow.test.": 3 * time.Second, "a.b.SLOW.test.": 3 * time.Second, "a.fast.slow.test.": 0,
		"x.silent.test.": never, "notslow.test.": 0, ".": 0,
	} {
		if got := delays.of(new(dns.Msg).SetQuestion(name, dns.TypeA)); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// The server is as late as it was told to be, and says when each query came.
func TestASlowNameserver(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reader, writer := io.Pipe()
	lines := bufio.NewScanner(reader)
	go execute(ctx, []string{
		"dns", "--listen", "127.0.0.1:0", "--zone", "*.test=10.0.0.1", "--slow", "slow.test=1s",
		"--silent", "silent.test", "--verbose",
	}, writer, io.Discard)
	next := func() string {
		lines.Scan()
		return lines.Text()
	}
	server := decode[map[string]string](t, next())["listen"]
	for _, test := range []struct {
		name        string
		code        int
		least, most time.Duration
	}{
		{"a.fast.test", exitDone, 0, time.Second},
		{"a.slow.test", exitDone, time.Second, 3 * time.Second},
		{"a.silent.test", exitFailed, 3 * time.Second, runBound},
	} {
		begin := time.Now()
		asked := make(chan queryEvent, 1)
		go func() { asked <- decode[queryEvent](t, next()) }()
		runFor[resolveResult](t, test.code, "resolve", test.name, "--server", server, "--timeout", "3s")
		took, event := time.Since(begin), <-asked
		if took < test.least || took > test.most {
			t.Errorf("%s: %v", test.name, took)
		}
		if came := event.At - begin.UnixMilli(); event.Name != test.name+"." || came < 0 || came > took.Milliseconds()+1 {
			t.Errorf("%+v", event)
		}
	}
}
