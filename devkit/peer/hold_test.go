package main

import (
	"net"
	"testing"
)

// As many connections are open as were let, and it is told how many the other side has kept.
func TestHold(t *testing.T) {
	address := startListener(t, func(conn *net.TCPConn, number int) {
		_, _ = conn.Read(make([]byte, 1))
		if number < 2 {
			_ = conn.Close()
		}
	})
	result := runFor[holdResult](t, exitDone, "hold", address, "--count", "5", "--hex", "00", "--for", "300ms")
	if result.Opened != 5 || result.Alive != 3 || len(result.Errors) != 0 {
		t.Errorf("%+v", result)
	}
	refused := runFor[holdResult](t, exitFailed, "hold", closedPort(t), "--count", "2")
	if refused.Opened != 0 || refused.Errors[kindConnectRefused] != 2 {
		t.Errorf("%+v", refused)
	}
}
