package main

import (
	"bufio"
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// Requests begin on time although none of the earlier ones is answered, and the silence counts as time.
func TestLoadIsOpen(t *testing.T) {
	var accepted atomic.Int32
	mute := startListener(t, func(conn *net.TCPConn, _ int) {
		accepted.Add(1)
		_, _ = io.Copy(io.Discard, conn)
	})
	got := runFor[summary](t, exitFailed, "load", "http://"+mute, "--rate", "50", "--seconds", "1", "--timeout", "2s")
	if got.Sent != 50 || accepted.Load() != 50 || got.Errors[kindTimeout] != 50 {
		t.Errorf("%d connections: %+v", accepted.Load(), got)
	}
	if got.Longest < 2000 || got.Dead < 900 || len(got.Failures) != keptFailures {
		t.Errorf("%+v", got)
	}
}

// Every request asks for its address again; those that wait for the same name don't share an answer.
func TestLoadResolvesEachTime(t *testing.T) {
	plain, _, _ := startOrigin(t, "")
	zone := zone{}
	if err := zone.Set("a.test=127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	var queries atomic.Int32
	server := startNameserver(t, func(writer dns.ResponseWriter, query *dns.Msg) {
		queries.Add(1)
		time.Sleep(300 * time.Millisecond)
		_ = writer.WriteMsg(zone.answer(query))
	})
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(plain, "http://"))
	got := runFor[summary](t, exitDone, "load", "http://a.test:"+port,
		"--rate", "100", "--seconds", "0.5", "--dns-server", server)
	if got.Succeeded != 50 || queries.Load() != 50 || got.P50 < 300 || got.LongestDNS < 300 {
		t.Errorf("%d queries: %+v", queries.Load(), got)
	}
}

// "*" in a host is another label in each request, in the lookup as in the request itself.
func TestLoadOfNewNames(t *testing.T) {
	var mutex sync.Mutex
	names, hosts := map[string]bool{}, map[string]bool{}
	zone := zone{}
	if err := zone.Set("*.a.test=127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	server := startNameserver(t, func(writer dns.ResponseWriter, query *dns.Msg) {
		mutex.Lock()
		names[query.Question[0].Name] = true
		mutex.Unlock()
		_ = writer.WriteMsg(zone.answer(query))
	})
	listener := startListener(t, func(conn *net.TCPConn, _ int) {
		defer conn.Close()
		request, err := http.ReadRequest(bufio.NewReader(conn))
		if err != nil {
			return
		}
		mutex.Lock()
		hosts[strings.Split(request.Host, ":")[0]+"."] = true
		mutex.Unlock()
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	})
	_, port, _ := net.SplitHostPort(listener)
	got := runFor[summary](t, exitDone, "load", "http://*.a.test:"+port,
		"--rate", "20", "--seconds", "0.5", "--dns-server", server)
	mutex.Lock()
	defer mutex.Unlock()
	if got.Succeeded != 10 || len(names) != 10 || !maps.Equal(names, hosts) {
		t.Errorf("%+v %v %v", got, names, hosts)
	}
}

// URLs take turns, plain and secure, and progress is printed every second.
func TestLoadTurns(t *testing.T) {
	plain, secure, _ := startOrigin(t, "")
	code, lines := run(t, "load", plain, secure, plain+"/status?code=503", "--rate", "60", "--seconds", "1.1")
	if code != exitFailed || len(lines) < 2 {
		t.Fatalf("exit code %d: %v", code, lines)
	}
	if got := decode[progress](t, lines[0]); got.Event != "progress" || got.Second != 1 || got.Sent < 30 {
		t.Errorf("%+v", got)
	}
	got := decode[summary](t, lines[len(lines)-1])
	if got.Sent != 66 || got.Failed != 22 || got.Errors[kindHTTP] != 22 {
		t.Errorf("%+v", got)
	}
}

// SIGTERM ends the beginning of requests, not those that are under way.
func TestLoadStops(t *testing.T) {
	plain, _, _ := startOrigin(t, "")
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	var output strings.Builder
	arguments := []string{"load", plain + "/slow?seconds=0.3", "--rate", "50", "--seconds", "0"}
	code := execute(ctx, arguments, &output, io.Discard)
	lines := strings.Split(strings.TrimSpace(output.String()), "\n")
	got := decode[summary](t, lines[len(lines)-1])
	if code != exitDone || got.Sent < 5 || got.Sent > 26 || got.Succeeded != got.Sent {
		t.Errorf("exit code %d: %+v", code, got)
	}
}
