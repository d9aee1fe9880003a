// What the tests share: running a command line, and the servers it talks to, all on loopback.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// runBound is more than any command line of the tests takes.
const runBound = 20 * time.Second

// run executes a command line and returns its exit code and lines of output.
func run(t *testing.T, arguments ...string) (int, []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), runBound)
	defer cancel()
	var stdout, stderr bytes.Buffer
	code := execute(ctx, arguments, &stdout, &stderr)
	if ctx.Err() != nil {
		t.Fatalf("peer %v didn't end", arguments)
	}
	if stderr.Len() > 0 {
		t.Logf("peer %v: %s", arguments, stderr.String())
	}
	return code, strings.FieldsFunc(stdout.String(), func(char rune) bool { return char == '\n' })
}

// decode parses one line of output.
func decode[T any](t *testing.T, line string) T {
	t.Helper()
	var value T
	if err := json.Unmarshal([]byte(line), &value); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return value
}

// runFor executes a command line that must exit with a code, and decodes the last line of its output.
func runFor[T any](t *testing.T, wantCode int, arguments ...string) T {
	t.Helper()
	code, lines := run(t, arguments...)
	if code != wantCode {
		t.Fatalf("peer %v: exit code %d, want %d: %v", arguments, code, wantCode, lines)
	}
	if len(lines) == 0 {
		t.Fatalf("peer %v printed nothing", arguments)
	}
	return decode[T](t, lines[len(lines)-1])
}

// startOrigin serves one HTTP and one HTTPS port and returns the beginnings of their URLs.
func startOrigin(t *testing.T, names string) (plain, secure string, ready originReady) {
	t.Helper()
	origin, err := newOrigin(names, "", ports{0}, ports{0})
	if err != nil {
		t.Fatal(err)
	}
	origin.serve()
	t.Cleanup(func() { _ = origin.server.Close() })
	plain = fmt.Sprintf("http://127.0.0.1:%d", origin.ready.HTTP[0])
	secure = fmt.Sprintf("https://127.0.0.1:%d", origin.ready.HTTPS[0])
	return plain, secure, origin.ready
}

// startNameserver serves a handler over UDP and TCP and returns its address.
func startNameserver(t *testing.T, handler dns.HandlerFunc) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	started, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		ended <- serveDNS(ctx, "127.0.0.1:0", handler, func(address string) { started <- address })
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	select {
	case address := <-started:
		return address
	case err := <-ended:
		ended <- err
		t.Fatal(err)
		return ""
	}
}

// serveZone is a handler that answers from a zone.
func serveZone(zone zone) dns.HandlerFunc {
	return func(writer dns.ResponseWriter, query *dns.Msg) { _ = writer.WriteMsg(zone.answer(query)) }
}

// startListener accepts connections, hands each to serve with its number, and returns the address.
func startListener(t *testing.T, serve func(conn *net.TCPConn, number int)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for number := 0; ; number++ {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go serve(conn.(*net.TCPConn), number)
		}
	}()
	return listener.Addr().String()
}

// closedPort is an address that nobody listens on, nor will before the end of the test.
func closedPort(t *testing.T) string {
	t.Helper()
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(socket) })
	if err := syscall.Bind(socket, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	address, err := syscall.Getsockname(socket)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", address.(*syscall.SockaddrInet4).Port)
}

// closedDatagramPort is the same for datagrams: one socket has it, which takes them from nobody who sends to it.
func closedDatagramPort(t *testing.T) string {
	t.Helper()
	local, remote := net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}
	socket, err := net.DialUDP("udp", &local, &remote)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = socket.Close() })
	return socket.LocalAddr().String()
}

// readRequest reads one request without a body and returns its text.
func readRequest(conn net.Conn) (string, error) {
	var text []byte
	one := make([]byte, 1)
	for !bytes.HasSuffix(text, []byte("\r\n\r\n")) {
		if _, err := conn.Read(one); err != nil {
			return string(text), err
		}
		text = append(text, one[0])
	}
	return string(text), nil
}
