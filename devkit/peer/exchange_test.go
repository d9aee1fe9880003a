package main

import (
	"io"
	"net"
	"testing"
	"time"
)

// A URL gives the port of its scheme, the Host header as written and the server name without port.
func TestRequestFor(t *testing.T) {
	to := func(host, port string, secure bool) destination {
		return destination{host: host, port: port, secure: secure, serverName: host}
	}
	for location, want := range map[string]struct {
		host, target string
		to           destination
	}{
		"http://a.test":              {"a.test", "/", to("a.test", "80", false)},
		"https://a.test/x?y=1":       {"a.test", "/x?y=1", to("a.test", "443", true)},
		"https://a.test:8443":        {"a.test:8443", "/", to("a.test", "8443", true)},
		"http://a.test/a/..%2fb//c":  {"a.test", "/a/..%2fb//c", to("a.test", "80", false)},
		"http://[::1]:8080/":         {"[::1]:8080", "/", to("::1", "8080", false)},
		"http://user@a.test/private": {"a.test", "/private", to("a.test", "80", false)},
	} {
		t.Run(location, func(t *testing.T) {
			sent, to, err := requestFor(location)
			if err != nil || sent.host != want.host || sent.target != want.target || to != want.to {
				t.Errorf("%+v to %+v, error %v", sent, to, err)
			}
		})
	}
}

// Informational responses are passed over.
func TestInformationalResponse(t *testing.T) {
	address := startListener(t, func(conn *net.TCPConn, _ int) {
		_, _ = readRequest(conn)
		_, _ = io.WriteString(conn, "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	})
	result := runFor[getResult](t, exitDone, "get", "http://"+address)
	if result.Status != 200 || result.Body != "ok" {
		t.Errorf("%+v", result)
	}
}

// The other side sees an orderly end, not a reset, although it answers the goodbye with more than was asked for.
func TestOrderlyEnd(t *testing.T) {
	ends := make(chan error, 1)
	address := startListener(t, func(conn *net.TCPConn, _ int) {
		_, _ = readRequest(conn)
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		if _, err := io.Copy(io.Discard, conn); err != nil {
			ends <- err
			return
		}
		_, _ = io.WriteString(conn, "more")
		time.Sleep(50 * time.Millisecond) // for a reset to arrive, if there is one
		_, err := io.WriteString(conn, "and more")
		_ = conn.Close()
		ends <- err
	})
	if code, lines := run(t, "get", "http://"+address); code != exitDone {
		t.Fatalf("exit code %d: %v", code, lines)
	}
	if err := <-ends; err != nil {
		t.Errorf("the server saw %v", err)
	}
}
