package main

import (
	"crypto/tls"
	"net"
	"testing"
)

// Clients with kept connections open one each, and others one for each request.
func TestDrive(t *testing.T) {
	for _, kept := range []bool{true, false} {
		opened := make(chan struct{}, 1_000_000)
		address := startListener(t, func(conn *net.TCPConn, _ int) {
			defer conn.Close()
			opened <- struct{}{}
			for {
				if _, err := readRequest(conn); err != nil {
					return
				}
				answer(conn, "")
			}
		})
		arguments := []string{"drive", "http://" + address, "--clients", "2", "--seconds", "0.2"}
		if kept {
			arguments = append(arguments, "--kept")
		}
		got := runFor[driveSummary](t, exitDone, arguments...)
		connections := got.Requests
		if kept {
			connections = 2
		}
		if got.Requests < 10 || got.Failed != 0 || got.Bytes != int64(2*got.Requests) || len(opened) != connections {
			t.Errorf("kept %t: %+v on %d connections", kept, got, len(opened))
		}
		if !(0 < got.P50 && got.P50 <= got.P99 && got.P99 < 1000*got.Seconds) {
			t.Errorf("kept %t: %+v", kept, got)
		}
	}
}

// A request that fails is counted as its kind of failure, and has no duration.
func TestDriveFails(t *testing.T) {
	address := startListener(t, func(conn *net.TCPConn, _ int) { conn.Close() })
	got := runFor[driveSummary](t, exitFailed, "drive", "http://"+address, "--clients", "1", "--seconds", "0.05")
	if got.Failed == 0 || got.Failed != got.Requests || got.P50 != 0 || len(got.Errors) == 0 {
		t.Errorf("%+v", got)
	}
}

// Sessions are resumed only where that is asked for, all but the first of each client.
func TestDriveResumes(t *testing.T) {
	certificate, _, err := selfSigned([]string{"a.test"})
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{certificate}}
	address := startListener(t, func(conn *net.TCPConn, _ int) {
		secure := tls.Server(conn, config)
		defer secure.Close()
		if _, err := readRequest(secure); err == nil {
			answer(secure, "")
		}
	})
	for _, more := range [][]string{nil, {"--resume"}} {
		arguments := append([]string{"drive", "https://a.test/", "--connect", address, "--clients", "2", "--seconds", "0.2"}, more...)
		got := runFor[driveSummary](t, exitDone, arguments...)
		expected := 0
		if len(more) > 0 {
			expected = got.Requests - 2
		}
		if got.Requests < 10 || got.Resumed != expected {
			t.Errorf("%v: %+v", more, got)
		}
	}
}
