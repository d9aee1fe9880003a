package main

import (
	"net"
	"strconv"
	"strings"
	"testing"
)

// An origin finds the name that is hidden, and the one before it is what everybody else sees.
func TestHiding(t *testing.T) {
	_, key, err := hiding("outer.test")
	if err != nil {
		t.Fatal(err)
	}
	origin, err := newOrigin("", "127.0.0.1", nil, ports{0})
	if err != nil {
		t.Fatal(err)
	}
	origin.hides(key)
	origin.serve()
	defer origin.server.Close()
	seen := make(chan string, 1)
	address := startListener(t, func(conn *net.TCPConn, _ int) {
		hello := make([]byte, 4096)
		size, _ := conn.Read(hello)
		seen <- string(hello[:size])
		_ = conn.Close()
	})
	here := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(origin.ready.HTTPS[0])))
	answer := runFor[getResult](t, exitDone, "get", "https://inner.test/", "--connect", here, "--ech", "outer.test")
	if !strings.Contains(answer.Body, `"sni":"inner.test"`) {
		t.Errorf("%+v", answer)
	}
	_ = runFor[getResult](t, exitFailed, "get", "https://inner.test/", "--connect", address, "--ech", "outer.test")
	if hello := <-seen; !strings.Contains(hello, "outer.test") || strings.Contains(hello, "inner.test") {
		t.Errorf("%q", hello)
	}
}
