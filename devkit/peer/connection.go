// One connection of an agent: name to address, TCP, TLS, requests, and an orderly end.
//
// Nothing here is shared, cached, pooled or retried. A client library that quietly tries again would hide exactly
// what this program is there to see. A request is written by hand, so that what is sent is what was asked for, odd or
// not.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"
)

const farewell = time.Second

// destination is where a connection goes and how it introduces itself.
type destination struct {
	host       string // name or address to dial
	port       string
	nameserver string // host[:port] to ask instead of the servers in resolv.conf; empty for those
	secure     bool
	serverName string         // SNI; empty sends none
	behind     string         // name that everybody sees, when serverName is hidden (ECH)
	pieces     bool           // send every byte on its own
	trusted    *x509.CertPool // by which the host has to prove its name; nil for a host that need not
}

// dialTo has the connection opened elsewhere than at the host of the URL: at an ADDRESS[:PORT], if there is one.
func (d *destination) dialTo(address string) {
	if address != "" {
		d.host, d.port, _ = net.SplitHostPort(withDefaultPort(address, d.port))
	}
}

// trust has the host prove its name, by authorities as PEM or by those of the system, if there are any.
func (d *destination) trust(authorities string) (err error) {
	switch authorities {
	case "":
	case "system":
		d.trusted, err = x509.SystemCertPool()
	default:
		d.trusted = x509.NewCertPool()
		if !d.trusted.AppendCertsFromPEM([]byte(authorities)) {
			return errors.New("there is no certificate to trust")
		}
	}
	return err
}

// timing is what opening a connection took, filled as far as it came.
type timing struct {
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
	resolved := begin
	tracing := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		DNSDone: func(httptrace.DNSDoneInfo) { resolved = time.Now() },
	})
	// A name is asked for as it is written, without a search list, and for IPv4 alone: asked for both families, Go
	// reports whichever answer came first.
	network, host := "tcp4", strings.TrimSuffix(to.host, ".")+"."
	if _, err := netip.ParseAddr(to.host); err == nil {
		network, host = "tcp", to.host
	}
	raw, err := dialerFor(to.nameserver).DialContext(tracing, network, net.JoinHostPort(host, to.port))
	took.dns, took.connect = resolved.Sub(begin), time.Since(resolved)
	if err != nil {
		return nil, took, err
	}
	wire := raw
	if to.pieces {
		wire = inPieces{raw}
	}
	if !to.secure {
		return &connection{Conn: wire, raw: raw, reader: bufio.NewReader(wire)}, took, nil
	}

	// The origins sign their own certificates, and what is usually under test is the way there.
	config := &tls.Config{
		InsecureSkipVerify: to.trusted == nil, RootCAs: to.trusted, ServerName: to.serverName, NextProtos: []string{"http/1.1"},
	}
	if to.behind != "" {
		config.EncryptedClientHelloConfigList, _, err = hiding(to.behind)
	}
	secure := tls.Client(wire, config)
	if err == nil {
		err = secure.HandshakeContext(ctx)
	}
	took.connect = time.Since(resolved)
	if err != nil {
		_ = raw.Close()
		return nil, took, handshakeError{err}
	}
	return &connection{Conn: secure, raw: raw, reader: bufio.NewReader(secure)}, took, nil
}

// dialerFor has a new resolver each time: one that is shared joins lookups of the same name that are under way
// together, and two hundred requests would then wait for one lost packet.
func dialerFor(nameserver string) *net.Dialer {
	resolver := &net.Resolver{PreferGo: true}
	if nameserver != "" {
		resolver.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, withDefaultPort(nameserver, "53"))
		}
	}
	return &net.Dialer{Resolver: resolver, FallbackDelay: -1}
}

const pieceEvery = time.Millisecond

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

// within makes reads and writes fail once ctx is done, until the caller releases the connection.
func (c *connection) within(ctx context.Context) (release func() bool) {
	deadline, _ := ctx.Deadline() // without one the zero time, which lifts an earlier deadline
	_ = c.SetDeadline(deadline)
	return context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
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

func (c *connection) abandon() { _ = c.raw.Close() }

// open reports whether an idle connection has neither ended nor sent anything that nobody asked for.
func (c *connection) open() bool {
	_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := c.reader.Peek(1)
	return isTimeout(err)
}

// request is what is sent: no body, and no header but Host and those listed.
type request struct {
	method  string
	target  string // as it stands in the request line
	host    string
	headers []string // "Name: value", in this order
}

// requestFor is a plain GET of a URL and the destination it goes to.
func requestFor(text string) (request, destination, error) {
	location, err := url.Parse(text)
	if err != nil || location.Hostname() == "" || location.Scheme != "http" && location.Scheme != "https" {
		return request{}, destination{}, fmt.Errorf("%q is no http or https URL", text)
	}
	to := destination{
		host: location.Hostname(), port: location.Port(), secure: location.Scheme == "https", serverName: location.Hostname(),
	}
	if to.port == "" {
		to.port = map[string]string{"http": "80", "https": "443"}[location.Scheme]
	}
	return request{method: http.MethodGet, target: location.RequestURI(), host: location.Host}, to, nil
}

// fetch sends a request and reads the response, its body into sink. A status other than 2xx is a statusError, which
// comes with a complete response; any other error comes with the response as far as there is one.
func (c *connection) fetch(ctx context.Context, sent request, sink io.Writer) (*http.Response, error) {
	defer c.within(ctx)()
	lines := append([]string{sent.method + " " + sent.target + " HTTP/1.1", "Host: " + sent.host}, sent.headers...)
	if _, err := io.WriteString(c, strings.Join(lines, "\r\n")+"\r\n\r\n"); err != nil {
		return nil, err
	}
	response, err := c.finalResponse(sent.method)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(sink, response.Body); err != nil {
		return response, err
	}
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return response, statusError(response.Status)
	}
	return response, nil
}

func (c *connection) finalResponse(method string) (*http.Response, error) {
	for {
		response, err := http.ReadResponse(c.reader, &http.Request{Method: method})
		if err != nil || response.StatusCode >= 200 || response.StatusCode == http.StatusSwitchingProtocols {
			return response, err
		}
	}
}

// fetchOnce fetches on a connection of its own. The caller runs finish, which closes it, once it has taken the time.
func fetchOnce(ctx context.Context, to destination, sent request, sink io.Writer) (
	response *http.Response, took timing, finish func(), err error,
) {
	conn, took, err := open(ctx, to)
	if err != nil {
		return nil, took, func() {}, err
	}
	response, err = conn.fetch(ctx, sent, sink)
	if complete(err) {
		return response, took, conn.finish, err
	}
	return response, took, conn.abandon, err
}

// complete reports whether a fetch read its response to the end, whatever the response said.
func complete(err error) bool {
	var status statusError
	return err == nil || errors.As(err, &status)
}

func withDefaultPort(address, port string) string {
	if _, _, err := net.SplitHostPort(address); err == nil {
		return address
	}
	return net.JoinHostPort(strings.Trim(address, "[]"), port)
}

// Why a request failed, in the words that tests compare. A kind comes from the type of an error, never from its text.

type failure struct {
	Kind string `json:"kind"`
	Text string `json:"text"`
}

func failureOf(err error) *failure {
	if err == nil {
		return nil
	}
	return &failure{Kind: kindOf(err), Text: err.Error()}
}

type statusError string

func (e statusError) Error() string { return "status " + string(e) }

type handshakeError struct{ error }

func (e handshakeError) Unwrap() error { return e.error }

func kindOf(err error) string {
	var lookup *net.DNSError
	var operation *net.OpError
	var handshake handshakeError
	dialing := errors.As(err, &operation) && operation.Op == "dial"
	switch {
	case errors.As(err, &lookup) && lookup.IsNotFound:
		return "dns-nxdomain" // also a name without an IPv4 address
	case lookup != nil && isTimeout(err):
		return "dns-timeout"
	case lookup != nil:
		return "dns-other"
	case errors.Is(err, syscall.EPERM):
		return "forbidden"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connect-refused"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "connect-unreachable"
	// EPIPE is the second write after a reset whose first sign was missed.
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	case isTimeout(err) && dialing:
		return "connect-timeout"
	case dialing:
		return "connect-other" // such as no free port on this side
	case isDenied(operation):
		return "denied" // the alert `access_denied`, with which the firewall refuses
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "closed"
	case isTimeout(err):
		return "timeout"
	// With TLS 1.3 an alert may come only with the first read; crypto/tls wraps it in an OpError without a system error.
	case errors.As(err, &handshake), operation != nil && !errors.As(err, new(syscall.Errno)):
		return "tls"
	}
	return "http" // no HTTP, or a status other than 2xx
}

// isDenied covers an alert of the other side. Go has no exported type for what it is wrapped in.
func isDenied(operation *net.OpError) bool {
	return operation != nil && operation.Op == "remote error" && operation.Err.Error() == tls.AlertError(49).Error()
}

// isTimeout covers deadlines of contexts and connections, and the kernel's own ETIMEDOUT.
func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.As(err, &timeout) && timeout.Timeout()
}
