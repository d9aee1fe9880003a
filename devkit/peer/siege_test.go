package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// Every place is taken, and taken again when the other side has ended its connection.
func TestSiegeTakesPlacesAgain(t *testing.T) {
	address := startListener(t, func(conn *net.TCPConn, number int) {
		if number < 4 {
			_, _ = conn.Write([]byte("no"))
			_ = conn.Close()
			return
		}
		_, _ = io.Copy(io.Discard, conn)
	})
	got := runFor[siegeResult](t, exitDone, "siege", address, "--count", "4", "--seconds", "1", "--pause", "10ms")
	if got.Attempts != 8 || got.Opened != 8 || got.Peak != 4 || got.Ended != 4 || got.Replied != 4 {
		t.Errorf("%+v", got)
	}
}

// A connection may be ended as soon as something was received, and opened again at once.
func TestSiegeIsBrief(t *testing.T) {
	address := startListener(t, func(conn *net.TCPConn, _ int) {
		_, _ = conn.Write([]byte("no"))
		_, _ = io.Copy(io.Discard, conn)
	})
	got := runFor[siegeResult](t, exitDone, "siege", address, "--seconds", "0.5", "--brief")
	if got.Opened < 3 || got.Peak != 1 || got.Ended != 0 || got.Replied < got.Opened-1 {
		t.Errorf("%+v", got)
	}
}

// A connection that is half closed is still one: the other side reads its end, and can answer.
func TestSiegeHalfCloses(t *testing.T) {
	address := startListener(t, func(conn *net.TCPConn, _ int) {
		if sent, err := io.ReadAll(conn); err == nil && string(sent) == "x" {
			_, _ = conn.Write([]byte("seen"))
		}
		<-t.Context().Done()
	})
	got := runFor[siegeResult](t, exitDone, "siege", address, "--seconds", "0.5", "--half", "--hex", "78")
	if got.Opened != 1 || got.Peak != 1 || got.Replied != 1 || got.Ended != 0 {
		t.Errorf("%+v", got)
	}
}

// What is refused is counted and tried again.
func TestSiegeIsRefused(t *testing.T) {
	got := runFor[siegeResult](t, exitFailed, "siege", closedPort(t), "--seconds", "0.3", "--pause", "10ms")
	if got.Opened != 0 || got.Attempts < 2 || got.Errors[kindConnectRefused] != got.Attempts {
		t.Errorf("%+v", got)
	}
}

// Each hello is one that a server understands, with a name of its own.
func TestSiegeHello(t *testing.T) {
	var mutex sync.Mutex
	names := map[string]int{}
	address := startListener(t, func(conn *net.TCPConn, _ int) {
		defer conn.Close()
		_ = tls.Server(conn, &tls.Config{
			GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				mutex.Lock()
				defer mutex.Unlock()
				names[hello.ServerName]++
				return nil, io.EOF
			},
		}).Handshake()
	})
	got := runFor[siegeResult](t, exitDone, "siege", address,
		"--count", "3", "--seconds", "0.5", "--pause", "10s", "--hello", "*.a.test")
	mutex.Lock()
	defer mutex.Unlock()
	if got.Opened != 3 || len(names) != 3 {
		t.Errorf("%+v %v", got, names)
	}
	for name := range names {
		if len(name) != labelOctets+len(".a.test") || name[labelOctets:] != ".a.test" || name[:labelOctets] == anyLabel {
			t.Error(name)
		}
	}
}

// A whole request is one that a server understands. One with endless headers has as many octets as were asked for, and
// then one in each interval.
func TestSiegeRequests(t *testing.T) {
	hosts := make(chan string, 1)
	address := startListener(t, func(conn *net.TCPConn, _ int) {
		request, err := http.ReadRequest(bufio.NewReader(conn))
		if err == nil {
			hosts <- request.Host + request.URL.Path
		}
	})
	runFor[siegeResult](t, exitDone, "siege", address, "--seconds", "0.3", "--host", "a.test", "--path", "/b")
	if got := <-hosts; got != "a.test/b" {
		t.Error(got)
	}
	lengths := make(chan int64, 1)
	address = startListener(t, func(conn *net.TCPConn, _ int) {
		length, _ := io.Copy(io.Discard, conn)
		lengths <- length
	})
	runFor[siegeResult](t, exitDone, "siege", address,
		"--seconds", "0.5", "--host", "a.test", "--headers", "50000", "--drip", "20ms")
	least := int64(len(requestHead("a.test", "/", 50000, true)))
	if got := <-lengths; got <= least || got > least+30 {
		t.Errorf("%d octets, of at least %d", got, least)
	}
}

// With a name for TLS, what is sent comes after the handshake, and arrives at a server that speaks HTTP over TLS.
func TestSiegeOverTLS(t *testing.T) {
	origin := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.TLS.ServerName) }))
	defer origin.Close()
	got := runFor[siegeResult](t, exitDone, "siege", origin.Listener.Addr().String(), "--seconds", "0.5", "--brief", "--tls", "a.test", "--host", "a.test")
	if got.Opened < 1 || got.Replied < got.Opened-1 || got.Replied == 0 {
		t.Errorf("%+v", got)
	}
}
