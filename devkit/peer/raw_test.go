package main

import (
	"encoding/hex"
	"io"
	"net"
	"testing"
)

// What is sent is what was written, also bytes that are no text; the answer comes back, and how it ended.
func TestRaw(t *testing.T) {
	for _, ends := range []bool{true, false} {
		arrived := make(chan string, 1)
		address := startListener(t, func(conn *net.TCPConn, _ int) {
			text, _ := readRequest(conn)
			arrived <- text
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
			if ends {
				_ = conn.Close()
			}
			t.Cleanup(func() { _ = conn.Close() }) // it would be closed when it is garbage
		})
		odd := "G\x00T / HTTP/9\r\nHost: a\r\nHost: b\r\n\r\n"
		sent := hex.EncodeToString([]byte(odd))
		result := runFor[rawResult](t, exitDone, "raw", address, "--hex", sent, "--timeout", "300ms")
		if got := <-arrived; got != odd {
			t.Errorf("%q arrived", got)
		}
		if result.Reply != "HTTP/1.1 200 OK\r\n\r\n" || result.Ended != ends {
			t.Errorf("%+v", result)
		}
	}
}

// Nobody there is a failure, and nonsense is not sent.
func TestRawRefused(t *testing.T) {
	result := runFor[rawResult](t, exitFailed, "raw", closedPort(t), "--hex", "00")
	if result.Error == nil || result.Error.Kind != kindConnectRefused {
		t.Errorf("%+v", result)
	}
	if code, _ := run(t, "raw", closedPort(t), "--hex", "xx"); code != exitUsage {
		t.Errorf("exit code %d", code)
	}
}
