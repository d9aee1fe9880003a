package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// A kind follows from the type of an error and the stage it happened in.
func TestKindOf(t *testing.T) {
	system := func(errno syscall.Errno) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", errno)}
	}
	for _, test := range []struct {
		stage stage
		err   error
		want  string
	}{
		{stageDNS, &net.DNSError{IsNotFound: true}, kindDNSNotFound},
		{stageDNS, &net.DNSError{IsTimeout: true}, kindDNSTimeout},
		{stageDNS, &net.DNSError{IsTemporary: true}, kindDNSOther},
		{stageDNS, context.DeadlineExceeded, kindDNSTimeout},
		{stageDNS, system(syscall.ECONNREFUSED), kindDNSOther},
		{stageConnect, system(syscall.ECONNREFUSED), kindConnectRefused},
		{stageConnect, system(syscall.EHOSTUNREACH), kindConnectUnreachable},
		{stageConnect, system(syscall.ENETUNREACH), kindConnectUnreachable},
		{stageConnect, system(syscall.ETIMEDOUT), kindConnectTimeout},
		{stageConnect, context.DeadlineExceeded, kindConnectTimeout},
		{stageConnect, system(syscall.ECONNRESET), kindReset},
		{stageConnect, system(syscall.EADDRNOTAVAIL), kindConnectOther},
		{stageTLS, system(syscall.ECONNRESET), kindReset},
		{stageTLS, io.EOF, kindClosed},
		{stageTLS, os.ErrDeadlineExceeded, kindTimeout},
		{stageTLS, tls.RecordHeaderError{Msg: "not TLS"}, kindTLS},
		{stageTLS, errors.New("anything else"), kindTLS},
		{stageHTTP, system(syscall.ECONNRESET), kindReset},
		{stageHTTP, system(syscall.EPIPE), kindReset},
		{stageHTTP, fmt.Errorf("body: %w", io.ErrUnexpectedEOF), kindClosed},
		{stageHTTP, os.ErrDeadlineExceeded, kindTimeout},
		{stageHTTP, &net.OpError{Op: "remote error", Err: errors.New("an alert")}, kindTLS},
		{stageHTTP, errors.New("malformed"), kindHTTP},
		{stageHTTP, context.Canceled, kindInterrupted},
	} {
		t.Run(fmt.Sprintf("%d %v", test.stage, test.err), func(t *testing.T) {
			if got := kindOf(inStage(t.Context(), test.stage, test.err)); got != test.want {
				t.Errorf("kind %s, want %s", got, test.want)
			}
		})
	}
	if got := kindOf(statusError("503 Service Unavailable")); got != kindHTTP {
		t.Errorf("a status is %s", got)
	}
}

// Real failures, made on loopback, get the kind they should.
func TestKindsOfRealFailures(t *testing.T) {
	zone := zone{}
	if err := zone.Set("six.test=::1"); err != nil {
		t.Fatal(err)
	}
	answering := startNameserver(t, serveZone(zone))
	silent := startNameserver(t, func(dns.ResponseWriter, *dns.Msg) {})
	failing := startNameserver(t, func(writer dns.ResponseWriter, query *dns.Msg) {
		_ = writer.WriteMsg(new(dns.Msg).SetRcode(query, dns.RcodeServerFailure))
	})
	mute := startListener(t, func(conn *net.TCPConn, _ int) { _, _ = io.Copy(io.Discard, conn) })
	closing := startListener(t, func(conn *net.TCPConn, _ int) {
		_, _ = readRequest(conn)
		_ = conn.Close()
	})
	resetting := startListener(t, func(conn *net.TCPConn, _ int) {
		_, _ = readRequest(conn)
		_ = conn.SetLinger(0)
		_ = conn.Close()
	})
	talking := startListener(t, func(conn *net.TCPConn, _ int) {
		_, _ = conn.Write([]byte("220 this is no HTTP and no TLS\r\n"))
		_, _ = io.Copy(io.Discard, conn)
	})
	hangingUp := startListener(t, func(conn *net.TCPConn, _ int) {
		_, _ = conn.Read(make([]byte, 4096)) // the client hello, all of it, so that the close is no reset
		_ = conn.Close()
	})
	truncating := startListener(t, func(conn *net.TCPConn, _ int) {
		_, _ = readRequest(conn)
		_, _ = conn.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"))
		_ = conn.Close()
	})

	for _, test := range []struct {
		name, want string
		arguments  []string
	}{
		{"name that isn't there", kindDNSNotFound, []string{"http://none.test", "--dns-server", answering}},
		{"name without IPv4 address", kindDNSNotFound, []string{"http://six.test", "--dns-server", answering}},
		{"silent resolver", kindDNSTimeout, []string{"http://a.test", "--dns-server", silent}},
		{"failing resolver", kindDNSOther, []string{"http://a.test", "--dns-server", failing}},
		{"no resolver", kindDNSOther, []string{"http://a.test", "--dns-server", closedDatagramPort(t)}},
		{"closed port", kindConnectRefused, []string{"http://" + closedPort(t)}},
		{"mute server", kindTimeout, []string{"http://" + mute}},
		{"mute TLS server", kindTimeout, []string{"https://" + mute}},
		{"closing server", kindClosed, []string{"http://" + closing}},
		{"hanging up TLS server", kindClosed, []string{"https://" + hangingUp}},
		{"resetting server", kindReset, []string{"http://" + resetting}},
		{"other protocol", kindHTTP, []string{"http://" + talking}},
		{"other protocol for TLS", kindTLS, []string{"https://" + talking}},
		{"half a body", kindClosed, []string{"http://" + truncating}},
	} {
		t.Run(test.name, func(t *testing.T) {
			arguments := append([]string{"get", "--timeout", "500ms"}, test.arguments...)
			result := runFor[getResult](t, exitFailed, arguments...)
			if result.OK || result.Error == nil || result.Error.Kind != test.want {
				t.Errorf("%+v, error %+v, want %s", result, result.Error, test.want)
			}
		})
	}
}

// A request that SIGTERM ends is interrupted, not timed out.
func TestInterruptedRequest(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	mute := startListener(t, func(conn *net.TCPConn, _ int) {
		_, _ = readRequest(conn)
		cancel()
		_, _ = io.Copy(io.Discard, conn)
	})
	sent, to, err := requestFor("http://" + mute)
	if err != nil {
		t.Fatal(err)
	}
	result := get(ctx, to, sent, 10*time.Second)
	if result.Error == nil || result.Error.Kind != kindInterrupted {
		t.Errorf("%+v", result.Error)
	}
}
