package main

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// Every answer is counted, and those that never come are not waited for.
func TestInundate(t *testing.T) {
	var asked atomic.Int32
	server := startNameserver(t, func(writer dns.ResponseWriter, query *dns.Msg) {
		if asked.Add(1)%2 == 0 {
			_ = writer.WriteMsg(new(dns.Msg).SetReply(query))
		}
	})
	result := runFor[inundateResult](t, exitFailed, "inundate", "a.test", "--server", server, "--count", "40")
	if result.Sent != 40 || result.Answers != int(asked.Load()/2) || result.Answers == 0 {
		t.Errorf("%+v of %d", result, asked.Load())
	}
}

// It goes on for as long as it is asked to.
func TestInundateForSomeTime(t *testing.T) {
	server := startNameserver(t, func(writer dns.ResponseWriter, query *dns.Msg) {})
	begin := time.Now()
	result := runFor[inundateResult](t, exitFailed, "inundate", "a.test", "--server", server, "--seconds", "0.3")
	if result.Sent < 10 || result.Answers != 0 || time.Since(begin) < 300*time.Millisecond {
		t.Errorf("%+v", result)
	}
}
