// One connection of an agent: name to address, TCP, TLS, and an orderly end.
//
// Nothing here is shared, cached, pooled or retried. A client library that quietly tries again would hide exactly
// what this program is there to see.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"
)

// farewell bounds how long the end of a connection waits for the other side's.
const farewell = time.Second

// destination is where a connection goes and how it introduces itself.
type destination struct {
	host       string // name or address to dial
	port       string
	nameserver string // host:port to ask instead of the servers in resolv.conf; empty for those
	secure     bool
	serverName string         // SNI; empty sends none
	behind     string         // name that everybody sees, when serverName is hidden (ECH)
	pieces     bool           // send every byte on its own
	trusted    *x509.CertPool // by which the host has to prove its name; nil for a host that need not
}

// timing is what opening a connection took, filled as far as it came.
type timing struct {
	address string // the address that was dialled last
	dns     time.Duration
	connect time.Duration // TCP and TLS together
}

// connection is an open connection with its read buffer, which lives as long as it does.
type connection struct {
	net.Conn
	raw    net.Conn // what Conn is or, with TLS, runs over
	reader *bufio.Reader
}

// open resolves, connects and sets up TLS. The timing is valid with an error too.
func open(ctx context.Context, to destination) (*connection, timing, error) {
	var took timing

	begin := time.Now()
	addresses, err := lookup(ctx, to.host, to.nameserver)
	took.dns = time.Since(begin)
	if err != nil {
		return nil, took, inStage(ctx, stageDNS, err)
	}

	begin = time.Now()
	raw, address, err := dial(ctx, addresses, to.port)
	took.address, took.connect = address, time.Since(begin)
	if err != nil {
		return nil, took, inStage(ctx, stageConnect, err)
	}
	wire := raw
	var hidden []byte
	if to.behind != "" {
		if hidden, _, err = hiding(to.behind); err != nil {
			return nil, took, inStage(ctx, stageTLS, err)
		}
	}
	if to.pieces {
		wire = inPieces{raw}
	}
	if !to.secure {
		return &connection{Conn: wire, raw: raw, reader: bufio.NewReader(wire)}, took, nil
	}

	// The origins sign their own certificates, and what is usually under test is the way there.
	secure := tls.Client(wire, &tls.Config{
		InsecureSkipVerify: to.trusted == nil, RootCAs: to.trusted, ServerName: to.serverName, NextProtos: []string{"http/1.1"},
		EncryptedClientHelloConfigList: hidden,
	})
	err = secure.HandshakeContext(ctx)
	took.connect = time.Since(begin)
	if err != nil {
		_ = raw.Close()
		return nil, took, inStage(ctx, stageTLS, err)
	}
	return &connection{Conn: secure, raw: raw, reader: bufio.NewReader(secure)}, took, nil
}

// pieceEvery is the time between two bytes that are sent on their own: each is a packet.
const pieceEvery = time.Millisecond

// inPieces is a connection that sends every byte on its own.
type inPieces struct{ net.Conn }

func (c inPieces) Write(data []byte) (int, error) {
	for i := range data {
		if _, err := c.Conn.Write(data[i : i+1]); err != nil {
			return i, err
		}
		time.Sleep(pieceEvery)
	}
	return len(data), nil
}

// lookup asks for the IPv4 addresses of a host, as it is written: no search list. One question per lookup keeps its
// failure unambiguous; asked for both families, Go reports whichever answer came first.
func lookup(ctx context.Context, host, nameserver string) ([]netip.Addr, error) {
	if address, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{address}, nil
	}
	// A new resolver each time: one that is shared joins lookups of the same name that are under way together, and
	// two hundred requests would then wait for one lost packet.
	resolver := &net.Resolver{PreferGo: true}
	if nameserver != "" {
		resolver.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, nameserver)
		}
	}
	addresses, err := resolver.LookupNetIP(ctx, "ip4", strings.TrimSuffix(host, ".")+".")
	for i := range addresses {
		addresses[i] = addresses[i].Unmap()
	}
	return addresses, err
}

// dial tries the addresses in turn, each with its share of the time that is left, and returns the address it ended
// with. The error is that of the first.
func dial(ctx context.Context, addresses []netip.Addr, port string) (net.Conn, string, error) {
	var first error
	var last string
	for i, address := range addresses {
		last = address.String()
		attempt, cancel := withShare(ctx, len(addresses)-i)
		conn, err := new(net.Dialer).DialContext(attempt, "tcp", net.JoinHostPort(last, port))
		cancel()
		if err == nil {
			return conn, last, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, last, first
}

// withShare is ctx with one part of the time it has left.
func withShare(ctx context.Context, parts int) (context.Context, context.CancelFunc) {
	deadline, limited := ctx.Deadline()
	if !limited {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Until(deadline)/time.Duration(parts))
}

// within makes reads and writes fail once ctx is done. The caller must call release before it uses the connection
// under another context.
func (c *connection) within(ctx context.Context) (release func()) {
	deadline, _ := ctx.Deadline() // without one the zero time, which lifts an earlier deadline
	_ = c.SetDeadline(deadline)
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		_ = c.SetDeadline(time.Unix(1, 0))
	})
	return func() {
		if !stop() {
			<-done
		}
	}
}

// finish ends a connection whose response was read whole. It says goodbye at every layer and reads until the other
// side has too: a socket closed over unread bytes, such as the other's close_notify, sends a reset.
func (c *connection) finish() {
	_ = c.SetDeadline(time.Now().Add(farewell))
	if secure, ok := c.Conn.(*tls.Conn); ok {
		_ = secure.CloseWrite()
	}
	if half, ok := c.raw.(*net.TCPConn); ok {
		_ = half.CloseWrite()
	}
	_, _ = io.Copy(io.Discard, c.raw)
	_ = c.raw.Close()
}

// abandon ends a connection on which something went wrong.
func (c *connection) abandon() { _ = c.raw.Close() }
