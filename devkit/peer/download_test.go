package main

import (
	"io"
	"net"
	"testing"
)

// A download is done when all of it has come, and says how much has when it hasn't.
func TestDownload(t *testing.T) {
	plain, secure, _ := startOrigin(t, "")
	replying := func(text string) string {
		return "http://" + startListener(t, func(conn *net.TCPConn, _ int) {
			_, _ = readRequest(conn)
			_, _ = io.WriteString(conn, text)
			_ = conn.Close()
		})
	}
	length := func(value int64) *int64 { return &value }
	for _, test := range []struct {
		name, location string
		bytes          int64
		expected       *int64
		kind           string
	}{
		{"complete", plain + "/bytes?size=3000000", 3_000_000, length(3_000_000), ""},
		{"complete over TLS", secure + "/bytes?size=3000000", 3_000_000, length(3_000_000), ""},
		{"empty", plain + "/bytes?size=0", 0, length(0), ""},
		{"cut", replying("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), 4, length(10), kindClosed},
		{"without length", replying("HTTP/1.1 200 OK\r\n\r\nall"), 3, nil, kindHTTP},
		{"refused", replying("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"), 2, length(2), kindHTTP},
		{"no server", "http://" + closedPort(t), 0, nil, kindConnectRefused},
	} {
		t.Run(test.name, func(t *testing.T) {
			code := exitDone
			if test.kind != "" {
				code = exitFailed
			}
			got := runFor[downloadResult](t, code, "download", test.location)
			if got.Bytes != test.bytes || (got.Expected == nil) != (test.expected == nil) ||
				got.Expected != nil && *got.Expected != *test.expected {
				t.Errorf("%+v", got)
			}
			if got.OK != (test.kind == "") || got.Error != nil && got.Error.Kind != test.kind {
				t.Errorf("%+v, error %+v", got, got.Error)
			}
		})
	}
}
