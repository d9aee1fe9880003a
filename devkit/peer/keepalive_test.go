package main

import (
	"io"
	"net"
	"testing"
)

// answer writes the shortest response that keeps a connection, with extra header lines.
func answer(conn net.Conn, extra string) {
	_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"+extra+"\r\nok")
}

func runKeepalive(t *testing.T, wantCode int, location, interval, seconds string) keepaliveSummary {
	t.Helper()
	return runFor[keepaliveSummary](
		t, wantCode, "keepalive", location, "--interval", interval, "--seconds", seconds,
	)
}

// A server that keeps the connection sees one, plain or secure.
func TestKeepaliveUnbroken(t *testing.T) {
	plain, secure, _ := startOrigin(t, "")
	for _, location := range []string{plain, secure} {
		got := runKeepalive(t, exitDone, location, "20ms", "0.5")
		if got.Connections != 1 || got.Failed != 0 || got.PoliteCloses != 0 || got.Requests < 5 || got.FirstBreak != nil {
			t.Errorf("%+v", got)
		}
	}
}

// An announced close is polite: the next request has a new connection and nothing has failed.
func TestKeepalivePoliteClose(t *testing.T) {
	address := startListener(t, func(conn *net.TCPConn, number int) {
		defer conn.Close()
		for request := 0; ; request++ {
			if _, err := readRequest(conn); err != nil {
				return
			}
			if number == 0 && request == 2 {
				answer(conn, "Connection: close\r\n")
				return
			}
			answer(conn, "")
		}
	})
	got := runKeepalive(t, exitDone, "http://"+address, "20ms", "0.5")
	if got.Connections != 2 || got.PoliteCloses != 1 || got.Failed != 0 {
		t.Errorf("%+v", got)
	}
}

// An idle connection that is closed without a word fails the next request, which isn't repeated in secret.
func TestKeepaliveSilentClose(t *testing.T) {
	requests := make(chan struct{}, 100)
	address := startListener(t, func(conn *net.TCPConn, number int) {
		defer conn.Close()
		for {
			if _, err := readRequest(conn); err != nil {
				return
			}
			requests <- struct{}{}
			answer(conn, "")
			if number == 0 {
				return
			}
		}
	})
	got := runKeepalive(t, exitFailed, "http://"+address, "50ms", "0.5")
	if got.Connections != 2 || got.Failed != 1 || got.PoliteCloses != 0 || got.FirstBreak == nil || *got.FirstBreak < 40 {
		t.Errorf("%+v", got)
	}
	if got.Errors[kindClosed]+got.Errors[kindReset] != 1 || len(requests) != got.Requests-1 {
		t.Errorf("%d requests seen: %+v", len(requests), got)
	}
}

// A server that is away fails every request, and a status other than 2xx fails without cutting the connection.
func TestKeepaliveFailures(t *testing.T) {
	plain, _, _ := startOrigin(t, "")
	got := runKeepalive(t, exitFailed, "http://"+closedPort(t), "50ms", "0.2")
	if got.Connections != 0 || got.Failed != got.Requests || got.Errors[kindConnectRefused] != got.Failed {
		t.Errorf("%+v", got)
	}
	got = runKeepalive(t, exitFailed, plain+"/status?code=503", "50ms", "0.2")
	if got.Connections != 1 || got.Failed != got.Requests || got.Errors[kindHTTP] != got.Failed {
		t.Errorf("%+v", got)
	}
}
