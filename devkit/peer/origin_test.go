package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A status is what was asked for, and nonsense in a query is 400.
func TestOriginStatus(t *testing.T) {
	plain, _, _ := startOrigin(t, "")
	for target, want := range map[string]int{
		"/":                         200,
		"/any/other/path":           200,
		"/status?code=204":          204,
		"/status?code=403":          403,
		"/status?code=101":          400,
		"/redirect?to=http://a.b/":  302,
		"/status?code=many":         400,
		"/bytes?size=-1":            400,
		"/bytes?seconds=1&rate=NaN": 400,
		"/bytes":                    200,
		"/slow?seconds=soon":        400,
	} {
		t.Run(target, func(t *testing.T) {
			_, lines := run(t, "get", plain+target)
			if got := decode[getResult](t, lines[0]); got.Status != want {
				t.Errorf("status %d, want %d: %s", got.Status, want, got.Body)
			}
		})
	}
}

// A steady stream takes the time it was asked to and announces its length.
func TestOriginSteadyStream(t *testing.T) {
	plain, _, _ := startOrigin(t, "")
	begin := time.Now()
	result := runFor[downloadResult](t, exitDone, "download", plain+"/bytes?seconds=0.5&rate=200000")
	if result.Bytes != 100_000 || *result.Expected != 100_000 || time.Since(begin) < 450*time.Millisecond {
		t.Errorf("%+v after %v", result, time.Since(begin))
	}
}

// A slow answer comes when it was asked for.
func TestOriginSlow(t *testing.T) {
	plain, _, _ := startOrigin(t, "")
	result := runFor[getResult](t, exitDone, "get", plain+"/slow?seconds=0.2")
	if result.Milliseconds < 200 {
		t.Errorf("%+v", result)
	}
}

// A client that verifies accepts the printed certificate for every name, and may speak either protocol.
func TestOriginCertificateAndProtocols(t *testing.T) {
	_, secure, ready := startOrigin(t, "a.test,b.test,127.0.0.1")
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(ready.Certificate)) {
		t.Fatal("no certificate")
	}
	for _, name := range []string{"a.test", "b.test", "127.0.0.1"} {
		for protocol, modern := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
			transport := &http.Transport{
				TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: name}, ForceAttemptHTTP2: modern,
			}
			response, err := (&http.Client{Transport: transport}).Get(secure)
			if err != nil {
				t.Fatalf("%s over %s: %v", name, protocol, err)
			}
			body, _ := io.ReadAll(response.Body)
			_ = response.Body.Close()
			transport.CloseIdleConnections()
			if got := decode[echo](t, string(body)); got.Protocol != protocol || got.Name != "a.test" {
				t.Errorf("%s: %+v", name, got)
			}
		}
	}
}

// What an origin tells is every connection, also one that says nothing, and every request, with the address it came to.
func TestOriginTells(t *testing.T) {
	origin, err := newOrigin("a.test", "127.0.0.1", ports{0}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var told bytes.Buffer
	origin.tellTo(&printer{writer: &told})
	origin.serve()
	plain := fmt.Sprintf("127.0.0.1:%d", origin.ready.HTTP[0])
	runFor[probeResult](t, exitDone, "probe-tcp", plain)
	runFor[getResult](t, exitDone, "get", "http://"+plain+"/here")
	_ = origin.server.Close()
	lines := strings.Split(strings.TrimSpace(told.String()), "\n")
	if len(lines) != 3 {
		t.Fatalf("%q", lines)
	}
	for _, line := range lines[:2] {
		if got := decode[seenConnection](t, line); got.Event != "connection" || got.Address != "127.0.0.1" {
			t.Errorf("%+v", got)
		}
	}
	last := decode[seenRequest](t, lines[2])
	if last.Event != "request" || last.Target != "/here" || last.Address != "127.0.0.1" || last.Name != "a.test" {
		t.Errorf("%+v", last)
	}
}

// A sink takes a connection and whatever is sent, and says nothing.
func TestSink(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reader, writer := io.Pipe()
	go execute(ctx, []string{"origin", "--sink", "0"}, writer, io.Discard)
	lines := bufio.NewScanner(reader)
	lines.Scan()
	ready := decode[originReady](t, lines.Text())
	if len(ready.Sink) != 1 || len(ready.HTTP)+len(ready.HTTPS) != 0 {
		t.Fatalf("%+v", ready)
	}
	address := fmt.Sprintf("127.0.0.1:%d", ready.Sink[0])
	got := runFor[siegeResult](t, exitDone, "siege", address, "--count", "3", "--seconds", "0.3", "--hello", "a.test")
	if got.Opened != 3 || got.Ended != 0 || got.Replied != 0 {
		t.Errorf("%+v", got)
	}
}
