package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/miekg/dns"
)

// What the server says is printed, over UDP and over TCP.
func TestResolve(t *testing.T) {
	server := startNameserver(t, serveZone(testZone(t)))
	for _, test := range []struct {
		name      string
		code      int
		rcode     string
		answers   []string
		arguments []string
	}{
		{"two addresses", exitDone, "NOERROR", []string{"10.0.0.1", "10.0.0.2"}, []string{"a.test"}},
		{"TCP", exitDone, "NOERROR", []string{"10.0.0.3"}, []string{"b.test.", "--tcp"}},
		{"AAAA", exitDone, "NOERROR", []string{"fd00::1"}, []string{"six.test", "--type", "aaaa"}},
		{"no such type", exitFailed, "NOERROR", []string{}, []string{"a.test", "--type", "AAAA"}},
		{"another class", exitFailed, "NOERROR", []string{}, []string{"a.test", "--class", "ch"}},
		{"another operation", exitFailed, "NOTIMP", []string{}, []string{"a.test", "--opcode", "5"}},
		{"no such name", exitFailed, "NXDOMAIN", []string{}, []string{"none.test"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := runFor[resolveResult](t, test.code, append([]string{"resolve", "--server", server}, test.arguments...)...)
			if got.Rcode != test.rcode || !slices.Equal(got.Answers, test.answers) || got.Error != nil {
				t.Errorf("%+v", got)
			}
			if (got.TTL != nil) != (len(test.answers) > 0) || got.TTL != nil && *got.TTL != answerTTL {
				t.Errorf("TTL %v", got.TTL)
			}
		})
	}
}

// Why there is no answer is told by kind.
func TestResolveFailures(t *testing.T) {
	silent := startNameserver(t, func(dns.ResponseWriter, *dns.Msg) {})
	for _, test := range []struct {
		want      string
		arguments []string
	}{
		{kindDNSTimeout, []string{"--server", silent}},
		{kindDNSTimeout, []string{"--server", silent, "--tcp"}},
		{kindConnectRefused, []string{"--server", closedDatagramPort(t)}},
		{kindConnectRefused, []string{"--server", closedPort(t), "--tcp"}},
	} {
		arguments := append([]string{"resolve", "a.test", "--timeout", "300ms"}, test.arguments...)
		got := runFor[resolveResult](t, exitFailed, arguments...)
		if got.Error == nil || got.Error.Kind != test.want || got.Rcode != "" {
			t.Errorf("%v: %+v, error %+v", arguments, got, got.Error)
		}
	}
}

// An extended error is shown, and only an EDNS query asks for it.
func TestResolveExtendedError(t *testing.T) {
	server := startNameserver(t, func(writer dns.ResponseWriter, query *dns.Msg) {
		reply := new(dns.Msg).SetRcode(query, dns.RcodeNameError)
		if query.IsEdns0() != nil {
			reply.SetEdns0(dns.DefaultMsgSize, false)
			reply.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeBlocked, ExtraText: "no rule"}}
		}
		_ = writer.WriteMsg(reply)
	})
	got := runFor[resolveResult](t, exitFailed, "resolve", "a.test", "--server", server, "--edns")
	if !slices.Equal(got.ExtendedErrors, []extendedError{{15, "no rule"}}) {
		t.Errorf("%+v", got)
	}
	got = runFor[resolveResult](t, exitFailed, "resolve", "a.test", "--server", server)
	if len(got.ExtendedErrors) != 0 {
		t.Errorf("%+v", got)
	}
}

// The first server of a resolv.conf is the one to ask.
func TestFirstNameserver(t *testing.T) {
	for text, want := range map[string]string{
		"# made by hand\nsearch test\nnameserver 10.0.0.1\nnameserver 10.0.0.2\n": "10.0.0.1:53",
		"nameserver fd00::1\n": "[fd00::1]:53",
		"search test\n":        "",
	} {
		path := filepath.Join(t.TempDir(), "resolv.conf")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := firstNameserver(path); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, error %v", text, got, err)
		}
	}
}
