package main

import (
	"net"
	"testing"
)

// A port is open or there is a kind of error.
func TestProbe(t *testing.T) {
	open := startListener(t, func(conn *net.TCPConn, _ int) { _ = conn.Close() })
	if got := runFor[probeResult](t, exitDone, "probe-tcp", open); !got.OK || got.Error != nil {
		t.Errorf("%+v", got)
	}
	got := runFor[probeResult](t, exitFailed, "probe-tcp", closedPort(t))
	if got.OK || got.Error == nil || *got.Error != kindConnectRefused {
		t.Errorf("%+v", got)
	}
}
