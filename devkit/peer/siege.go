// The verb siege: one client that takes as many connections as it can get, and wants each one back that it loses.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"
)

const (
	// labelOctets is the length of a random label. All are equally long, so that a hello is made once and then only
	// changed: making one costs more than sending it.
	labelOctets = 12
	// anyLabel stands for "*" in what is sent until a random label takes its place.
	anyLabel = "any-label-00"

	dialWithin = 5 * time.Second
)

// siegeResult is printed at the end.
type siegeResult struct {
	Attempts int            `json:"attempts"`
	Opened   int            `json:"opened"`
	Peak     int            `json:"peak"`    // most at the same time
	Ended    int            `json:"ended"`   // of the opened ones, those that the other side ended
	Replied  int            `json:"replied"` // of the opened ones, those on which something was received
	Errors   map[string]int `json:"errors"`  // of the attempts that failed, by kind
}

// siege is a plan for connections. In each of its places there is at most one at a time.
type siege struct {
	address string
	places  int
	rise    time.Duration // the first connections of all places are begun evenly within this time
	pause   time.Duration // before a place is taken again
	drip    time.Duration // between single octets after what is sent at once; 0 is none
	unread  bool          // nothing is ever received
	half    bool          // after what is sent, a connection is ended in this direction
	brief   bool          // a connection is ended as soon as something was received
	tls     string        // the server name of a TLS handshake before anything is sent; "" is none

	sent []byte // with anyLabel where each connection has a label of its own

	mutex  sync.Mutex
	open   int
	result siegeResult
}

func declareSiege(flags *flag.FlagSet) action {
	places := flags.Int("count", 1, "how many connections at the same time")
	seconds := flags.Float64("seconds", 1, "for how long")
	rise := flags.Duration("rise", 0, "begin the first connections evenly within this time, not all at once")
	pause := flags.Duration("pause", 0, "wait for this long before a refused or ended connection is opened again")
	octets := flags.String("hex", "", "send these bytes, in `HEXADECIMAL`")
	hello := flags.String("hello", "", "send a TLS client hello with this server `NAME`; *.NAME is another one each time")
	secure := flags.String("tls", "", "agree on TLS first, with this server `NAME`, whatever the certificate")
	host := flags.String("host", "", "send an HTTP request with this Host, `NAME` or *.NAME as above")
	path := flags.String("path", "/", "the request's `PATH`")
	headers := flags.Int("headers", 0, "the request's headers go on for this many `OCTETS` and never end")
	drip := flags.Duration("drip", 0, "after that, send one octet in each interval")
	unread := flags.Bool("unread", false, "receive nothing")
	half := flags.Bool("half", false, "then end each connection in this direction")
	brief := flags.Bool("brief", false, "end a connection as soon as something was received")
	return func(ctx context.Context, arguments []string, out *printer) (bool, error) {
		sent, err := hex.DecodeString(*octets)
		if err != nil {
			return false, err
		}
		switch {
		case *hello != "":
			if sent, err = clientHello(withAnyLabel(*hello)); err != nil {
				return false, err
			}
		case *host != "":
			sent = []byte(requestHead(withAnyLabel(*host), *path, *headers, given(flags, "headers")))
		}
		siege := &siege{
			address: arguments[0], places: *places, rise: *rise, pause: *pause, drip: *drip, unread: *unread,
			half: *half, brief: *brief, tls: *secure, sent: sent, result: siegeResult{Errors: map[string]int{}},
		}
		ctx, cancel := context.WithTimeout(ctx, time.Duration(*seconds*float64(time.Second)))
		defer cancel()
		result := siege.run(ctx)
		out.print(result)
		return result.Opened > 0, nil
	}
}

func withAnyLabel(name string) string {
	if rest, any := strings.CutPrefix(name, "*."); any {
		return anyLabel + "." + rest
	}
	return name
}

// requestHead is the head of a GET request, or the beginning of one whose headers don't end.
func requestHead(host, path string, octets int, endless bool) string {
	head := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\n", path, host)
	if endless {
		return head + "X: " + strings.Repeat("x", octets)
	}
	return head + "\r\n"
}

// clientHello is the first flight of a TLS client.
func clientHello(name string) ([]byte, error) {
	recorder := &recordingConn{}
	_ = tls.Client(recorder, &tls.Config{ServerName: name, MinVersion: tls.VersionTLS12}).Handshake()
	if len(recorder.written) == 0 {
		return nil, fmt.Errorf("no hello can be made for %q", name)
	}
	return recorder.written, nil
}

// recordingConn keeps what is written and has nothing to read.
type recordingConn struct {
	net.Conn
	written []byte
}

func (r *recordingConn) Write(data []byte) (int, error) {
	r.written = append(r.written, data...)
	return len(data), nil
}
func (*recordingConn) Read([]byte) (int, error)         { return 0, io.EOF }
func (*recordingConn) SetReadDeadline(time.Time) error  { return nil }
func (*recordingConn) SetWriteDeadline(time.Time) error { return nil }
func (*recordingConn) SetDeadline(time.Time) error      { return nil }
func (*recordingConn) Close() error                     { return nil }

func (s *siege) run(ctx context.Context) siegeResult {
	var all sync.WaitGroup
	for place := range s.places {
		first := time.Duration(float64(s.rise) * float64(place) / float64(s.places))
		all.Go(func() {
			for wait := first; sleep(ctx, wait); wait = s.pause {
				s.take(ctx)
			}
		})
	}
	all.Wait()
	return s.result
}

// sleep waits, and reports whether there is still time.
func sleep(ctx context.Context, duration time.Duration) bool {
	if duration > 0 {
		select {
		case <-ctx.Done():
		case <-time.After(duration):
		}
	}
	return !over(ctx)
}

// over reports whether the time has passed. On a busy machine, ctx is done later than that.
func over(ctx context.Context) bool {
	deadline, limited := ctx.Deadline()
	return ctx.Err() != nil || limited && !time.Now().Before(deadline)
}

// take opens one connection and keeps it until either side's end. It is then reset: an orderly end would keep its port
// for a minute.
func (s *siege) take(ctx context.Context) {
	dialer := net.Dialer{Timeout: dialWithin}
	conn, err := dialer.DialContext(ctx, "tcp4", s.address)
	if err == nil {
		defer conn.Close()
		_ = conn.(*net.TCPConn).SetLinger(0)
		stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
		defer stop()
	}
	if over(ctx) {
		return
	}
	s.opened(err)
	if err != nil {
		return
	}
	received, err := s.keep(ctx, conn)
	s.ended(received, err != nil && !over(ctx))
}

func (s *siege) opened(err error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.result.Attempts++
	if err != nil {
		s.result.Errors[kindOf(err)]++
		return
	}
	s.result.Opened++
	s.open++
	s.result.Peak = max(s.result.Peak, s.open)
}

func (s *siege) ended(received int64, byOther bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.open--
	if received > 0 {
		s.result.Replied++
	}
	if byOther {
		s.result.Ended++
	}
}

// keep sends what there is to send, and returns when either side ends the connection.
func (s *siege) keep(ctx context.Context, conn net.Conn) (received int64, err error) {
	if s.tls != "" {
		agreed := tls.Client(conn, &tls.Config{ServerName: s.tls, InsecureSkipVerify: true})
		if err := agreed.HandshakeContext(ctx); err != nil {
			return 0, err
		}
		conn = agreed
	}
	if _, err := conn.Write(s.message()); err != nil {
		return 0, err
	}
	if s.half {
		if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			return 0, err
		}
	}
	if s.drip > 0 {
		go func() {
			for sleep(ctx, s.drip) {
				if _, err := conn.Write([]byte("x")); err != nil {
					return
				}
			}
		}()
	}
	if s.unread {
		<-ctx.Done()
		return 0, nil
	}
	for buffer := make([]byte, 512); ; { // io.Copy takes 8 KiB for each of thousands
		count, err := conn.Read(buffer)
		received += int64(count)
		if err != nil || s.brief {
			return received, err
		}
	}
}

// message is what the next connection sends.
func (s *siege) message() []byte {
	if !bytes.Contains(s.sent, []byte(anyLabel)) {
		return s.sent
	}
	return bytes.Replace(s.sent, []byte(anyLabel), []byte(randomLabel()), 1)
}

func randomLabel() string {
	label := make([]byte, labelOctets)
	for i := range label {
		label[i] = byte('a' + rand.IntN(26))
	}
	return string(label)
}
