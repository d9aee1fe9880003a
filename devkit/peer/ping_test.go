package main

import (
	"os"
	"strings"
	"testing"
)

// Loopback answers an echo, wherever such sockets are allowed.
func TestPing(t *testing.T) {
	allowed, err := os.ReadFile("/proc/sys/net/ipv4/ping_group_range")
	if err != nil {
		t.Fatal(err)
	}
	want, code := kindConnectOther, exitFailed
	if strings.HasPrefix(string(allowed), "0\t") {
		want, code = "", exitDone
	}
	result := runFor[probeResult](t, code, "ping", "127.0.0.1")
	if got := result.Error; (got == nil) != (want == "") || got != nil && *got != want {
		t.Errorf("%+v", result)
	}
}

// What is no address is not sent to.
func TestPingOfAName(t *testing.T) {
	if code, _ := run(t, "ping", "a.test"); code != exitUsage {
		t.Errorf("exit code %d", code)
	}
}
