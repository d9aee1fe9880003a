package main

import (
	"maps"
	"net"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// serveDNS answers every query with what the function makes of it, until the test ends.
func serveDNS(t *testing.T, reply func(query dnsmessage.Message) dnsmessage.Message) coredns {
	t.Helper()
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	go func() {
		buffer := make([]byte, 1232)
		for {
			size, from, err := socket.ReadFrom(buffer)
			if err != nil {
				return
			}
			var query dnsmessage.Message
			if err := query.Unpack(buffer[:size]); err != nil {
				t.Errorf("a query that is none: %v", err)
				return
			}
			answer := reply(query)
			packed, err := answer.Pack()
			if err != nil {
				t.Errorf("packing the answer: %v", err)
				return
			}
			socket.WriteTo(packed, from)
		}
	}()
	return coredns{server: socket.LocalAddr().String()}
}

// resolver knows TXT records by class and name; other names do not exist.
func resolver(records map[string][]string) func(dnsmessage.Message) dnsmessage.Message {
	return func(query dnsmessage.Message) dnsmessage.Message {
		question := query.Questions[0]
		reply := dnsmessage.Message{
			Header:    dnsmessage.Header{ID: query.ID, Response: true, Authoritative: true},
			Questions: query.Questions,
		}
		texts, known := records[question.Class.String()+" "+question.Name.String()]
		switch {
		case !known:
			reply.RCode = dnsmessage.RCodeNameError
		case question.Type == dnsmessage.TypeTXT && len(texts) > 0:
			reply.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: question.Name, Class: question.Class},
				Body:   &dnsmessage.TXTResource{TXT: texts},
			}}
		}
		return reply
	}
}

const inZone = "ClassINET " + versionName

// The zone's version is what its last record says.
func TestCorednsVersions(t *testing.T) {
	program := serveDNS(t, resolver(map[string][]string{inZone: {"9f86d081884c7d65"}}))

	versions, err := program.Versions()

	if err != nil || !maps.Equal(versions, map[string]string{"zone": "9f86d081884c7d65"}) {
		t.Errorf("got %v, %v", versions, err)
	}
}

// A record in several strings is one text.
func TestCorednsJoinsStrings(t *testing.T) {
	program := serveDNS(t, resolver(map[string][]string{inZone: {"9f86", "d081"}}))

	if versions, err := program.Versions(); err != nil || versions["zone"] != "9f86d081" {
		t.Errorf("got %v, %v", versions, err)
	}
}

// The build is what CoreDNS answers to version.bind in class CHAOS, and to no other class.
func TestCorednsBuild(t *testing.T) {
	program := serveDNS(t, resolver(map[string][]string{"ClassCHAOS version.bind.": {"CoreDNS-1.15.0"}}))

	if build, err := program.Build(); err != nil || build != "CoreDNS-1.15.0" {
		t.Errorf("got %q, %v", build, err)
	}
}

// A zone without the record is an error that names it and the answer's code: it was not read whole.
func TestCorednsWithoutVersion(t *testing.T) {
	for code, records := range map[string]map[string][]string{"NameError": {}, "Success": {inZone: nil}} {
		program := serveDNS(t, resolver(records))

		_, err := program.Versions()

		if err == nil || !strings.Contains(err.Error(), versionName) || !strings.Contains(err.Error(), code) {
			t.Errorf("got %v, expected %s in it", err, code)
		}
	}
}

// An answer to another query is not taken for ours.
func TestCorednsAnswersThisQuery(t *testing.T) {
	answer := resolver(map[string][]string{inZone: {"9f86d081884c7d65"}})
	program := serveDNS(t, func(query dnsmessage.Message) dnsmessage.Message {
		query.ID++
		return answer(query)
	})

	if versions, err := program.Versions(); err == nil {
		t.Errorf("got %v", versions)
	}
}

// Without a CoreDNS, every question to it is an error.
func TestCorednsAbsent(t *testing.T) {
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	program := coredns{server: socket.LocalAddr().String()}
	socket.Close()

	if versions, err := program.Versions(); err == nil {
		t.Errorf("got %v", versions)
	}
	if build, err := program.Build(); err == nil {
		t.Errorf("got %q", build)
	}
}

// CoreDNS has one resource, refuses nothing in a way that could be counted, and keeps no connections.
func TestCorednsHasOneResource(t *testing.T) {
	expected, err := coredns{}.Expected(t.TempDir())
	if err != nil || !slices.Equal(expected, []string{"zone"}) {
		t.Errorf("expected %v, %v", expected, err)
	}
	if rejections, err := (coredns{}).Rejections(); err != nil || len(rejections) > 0 {
		t.Errorf("rejections %v, %v", rejections, err)
	}
	if connections, err := (coredns{}).Connections(); err != nil || connections != 0 {
		t.Errorf("connections %d, %v", connections, err)
	}
	if reason := (coredns{}).Reason(); !strings.Contains(reason, "log") {
		t.Errorf("reason %q", reason)
	}
}
