package main

import (
	"slices"
	"testing"

	"github.com/miekg/dns"
)

func testZone(t *testing.T) zone {
	t.Helper()
	zone := zone{}
	for _, text := range []string{
		"a.test=10.0.0.1+10.0.0.2,B.Test=10.0.0.3", "*.wild.test=10.0.0.4, *.deep.wild.test=10.0.0.5", "six.test=fd00::1",
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
