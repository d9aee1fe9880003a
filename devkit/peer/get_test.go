package main

import (
	"cmp"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
)

// Each flag changes the one thing it names.
func TestGetFlags(t *testing.T) {
	plain, secure, ready := startOrigin(t, "origin.test")
	_, plainPort, _ := net.SplitHostPort(strings.TrimPrefix(plain, "http://"))
	_, securePort, _ := net.SplitHostPort(strings.TrimPrefix(secure, "https://"))
	plainAddress, secureAddress := "127.0.0.1:"+plainPort, "127.0.0.1:"+securePort
	text := func(value string) *string { return &value }

	for _, test := range []struct {
		name      string
		arguments []string
		want      echo
	}{
		{"plain", []string{plain + "/x"}, echo{Target: "/x", Host: plainAddress}},
		{"connect with port", []string{"http://a.test", "--connect", plainAddress}, echo{Host: "a.test"}},
		{
			"connect without port",
			[]string{"http://a.test:" + plainPort, "--connect", "127.0.0.1"},
			echo{Host: "a.test:" + plainPort},
		},
		{"secure", []string{"https://a.test", "--connect", secureAddress}, echo{Host: "a.test", SNI: text("a.test")}},
		{
			"other server name",
			[]string{"https://a.test", "--connect", secureAddress, "--sni", "b.test"},
			echo{Host: "a.test", SNI: text("b.test")},
		},
		{
			"no server name",
			[]string{"https://a.test", "--connect", secureAddress, "--sni", ""},
			echo{Host: "a.test", SNI: text("")},
		},
		{"other host", []string{plain, "--host", "b.test"}, echo{Host: "b.test"}},
		{"method", []string{plain, "--method", "DELETE"}, echo{Method: "DELETE", Host: plainAddress}},
		{"raw path", []string{plain + "/a//..%2fb/../c"}, echo{Target: "/a//..%2fb/../c", Host: plainAddress}},
	} {
		t.Run(test.name, func(t *testing.T) {
			result := runFor[getResult](t, exitDone, append([]string{"get"}, test.arguments...)...)
			if !result.OK || result.Status != 200 || result.Address != "127.0.0.1" || result.Protocol != "HTTP/1.1" {
				t.Errorf("%+v", result)
			}
			got, want := decode[echo](t, result.Body), test.want
			want.Method, want.Target = cmp.Or(want.Method, "GET"), cmp.Or(want.Target, "/")
			port := ready.HTTP[0]
			if want.SNI != nil {
				port = ready.HTTPS[0]
			}
			if (got.SNI == nil) != (want.SNI == nil) || got.SNI != nil && *got.SNI != *want.SNI {
				t.Errorf("SNI %v", got.SNI)
			}
			if got.Name != "origin.test" || got.Method != want.Method || got.Target != want.Target ||
				got.Host != want.Host || got.Port != int(port) {
				t.Errorf("%+v", got)
			}
		})
	}
}

// Headers are sent in order, as often as they are given, and a second Host header is possible.
func TestGetRequestText(t *testing.T) {
	requests := make(chan string, 1)
	address := startListener(t, func(conn *net.TCPConn, _ int) {
		text, _ := readRequest(conn)
		requests <- text
		_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
		_ = conn.Close()
	})
	runFor[getResult](t, exitDone, "get", "http://a.test/x?y", "--connect", address, "--host", "b.test",
		"--absolute-form", "--header", "X-One:1", "--header", "Host: c.test", "--header", "X-One:  2")
	want := "GET http://a.test/x?y HTTP/1.1\r\nHost: b.test\r\nX-One: 1\r\nHost: c.test\r\nX-One: 2\r\n\r\n"
	if got := <-requests; got != want {
		t.Errorf("%q", got)
	}
}

// A name is looked up at the given server, and every request has a connection of its own.
func TestGetCount(t *testing.T) {
	plain, _, _ := startOrigin(t, "")
	location, err := url.Parse(plain)
	if err != nil {
		t.Fatal(err)
	}
	zone := zone{}
	if err := zone.Set("*.test=127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	code, lines := run(t, "get", "http://deep.a.test:"+location.Port(), "--count", "3",
		"--dns-server", startNameserver(t, serveZone(zone)))
	if code != exitDone || len(lines) != 3 {
		t.Fatalf("exit code %d: %v", code, lines)
	}
	from := map[string]bool{}
	for _, line := range lines {
		result := decode[getResult](t, line)
		from[decode[echo](t, result.Body).RemoteAddress] = true
		if result.DNS <= 0 || result.Milliseconds < result.DNS {
			t.Errorf("%+v", result)
		}
	}
	if len(from) != 3 {
		t.Errorf("connections from %v", from)
	}
}

// A status other than 2xx is a failure with a response, and a long body is cut where it is printed.
func TestGetResponses(t *testing.T) {
	plain, secure, _ := startOrigin(t, "")
	result := runFor[getResult](t, exitFailed, "get", secure+"/status?code=503")
	if result.OK || result.Status != 503 || result.Error == nil || result.Error.Kind != kindHTTP || result.Body == "" {
		t.Errorf("%+v", result)
	}
	result = runFor[getResult](t, exitDone, "get", plain+"/bytes?size=100000")
	if len(result.Body) != shownBody {
		t.Errorf("%d bytes of body", len(result.Body))
	}
}

// A request that is to succeed is repeated until one does, and only that one is printed.
func TestGetUntilOK(t *testing.T) {
	address := startListener(t, func(conn *net.TCPConn, number int) {
		defer conn.Close()
		if _, err := readRequest(conn); err == nil && number == 2 {
			answer(conn, "")
		}
	})
	code, lines := run(t, "get", "http://"+address, "--until-ok")
	if code != exitDone || len(lines) != 1 || !decode[getResult](t, lines[0]).OK {
		t.Errorf("exit code %d: %v", code, lines)
	}
}
