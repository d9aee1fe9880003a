// The verb origin: the web servers of the world, on as many ports as a test needs.
package main

import (
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const pace = 10 * time.Millisecond

// originReady is printed once every port accepts connections. The certificate is there for clients that verify.
type originReady struct {
	Event       string `json:"event"`
	Certificate string `json:"certificate"` // PEM
}

// echo is the answer to everything that isn't asked for by a path: the request as it arrived.
type echo struct {
	Name          string      `json:"name"`
	Target        string      `json:"target"` // as in the request line
	Host          string      `json:"host"`
	Address       string      `json:"address"` // that it arrived at
	Port          int         `json:"port"`    // that it arrived on
	Protocol      string      `json:"proto"`
	Headers       http.Header `json:"headers"`
	RemoteAddress string      `json:"remote_address"`
}

// seenConnection and seenRequest are printed by an origin that is asked to tell what it sees: whether somebody was
// refused is decided by what those have seen who should not have been reached.
type seenConnection struct {
	Event         string `json:"event"`
	At            int64  `json:"at_ms"` // since 1970
	Name          string `json:"name"`
	Address       string `json:"address"`
	Port          int    `json:"port"`
	RemoteAddress string `json:"remote_address"`
}

type seenRequest struct {
	Event string `json:"event"`
	At    int64  `json:"at_ms"` // since 1970
	echo
}

func declareOrigin(flags *flag.FlagSet) action {
	plain := flags.String("http", "", "serve HTTP on these `PORTS`, comma-separated; 80 when no list is given")
	secure := flags.String("https", "", "serve HTTPS on these `PORTS`, comma-separated; 443 when no list is given")
	sinks := flags.String("sink", "", "accept connections on these `PORTS`, comma-separated, and never answer")
	names := flags.String("name", "", "`NAME[,NAME...]`: the first is reported in answers, all are in the certificate")
	datagrams := flags.String("datagrams", "", "send back every datagram to this `ADDRESS:PORT`, and tell of it as of a connection")
	address := flags.String("address", "", "listen at this `ADDRESS` alone")
	behind := flags.String("ech", "", "let clients hide a server name behind this `NAME`")
	tell := flags.Bool("tell", false, "print every connection and every request")

	return func(ctx context.Context, _ []string, out *printer) (bool, error) {
		if *plain+*secure+*sinks == "" {
			*plain, *secure = "80", "443"
		}
		origin, certificate, err := newOrigin(strings.Split(*names, ","), *behind)
		if err != nil {
			return false, err
		}
		if *tell {
			origin.tellTo(out)
		}
		serveTLS := func(listener net.Listener) error { return origin.server.ServeTLS(listener, "", "") }
		kinds := map[*string]func(net.Listener) error{plain: origin.server.Serve, secure: serveTLS, sinks: sink}
		var serving []func() error // every port is open before the first is served
		for ports, with := range kinds {
			for _, port := range strings.FieldsFunc(*ports, func(char rune) bool { return char == ',' }) {
				listener, err := net.Listen("tcp", net.JoinHostPort(*address, port))
				if err != nil {
					return false, err
				}
				serving = append(serving, func() error { return with(listener) })
			}
		}
		ended := make(chan error, 1)
		for _, serve := range serving {
			go func() { ended <- serve() }()
		}
		if *datagrams != "" {
			socket, err := net.ListenPacket("udp", *datagrams)
			if err != nil {
				return false, err
			}
			go origin.sendBack(socket.(*net.UDPConn), out)
		}
		out.print(originReady{"ready", certificate})
		select {
		case <-ctx.Done():
			return true, nil
		case err := <-ended:
			return false, err
		}
	}
}

type origin struct {
	server *http.Server
	name   string
}

// newOrigin makes a server with a certificate for all names, and returns that as PEM. Clients may hide server names
// behind another one, if there is one.
func newOrigin(names []string, behind string) (*origin, string, error) {
	certificate, pem, err := selfSigned(names)
	if err != nil {
		return nil, "", err
	}
	// Protocols are named although ServeTLS adds them: when a plain port is served first, net/http sets up HTTP/2 only if
	// it is named, and a secure port would offer it and then not speak it.
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"h2", "http/1.1"}}
	if behind != "" {
		_, key, err := hiding(behind)
		if err != nil {
			return nil, "", err
		}
		config.EncryptedClientHelloKeys = []tls.EncryptedClientHelloKey{key}
	}
	server := &http.Server{
		Handler: originHandler(names[0]), TLSConfig: config,
		// A client that goes away is nothing to report, and nobody reads what would be.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	return &origin{server, names[0]}, pem, nil
}

func (o *origin) tellTo(out *printer) {
	o.server.ConnState = func(conn net.Conn, state http.ConnState) {
		if local, ok := conn.LocalAddr().(*net.TCPAddr); ok && state == http.StateNew {
			out.print(o.saw(local.AddrPort(), conn.RemoteAddr().String()))
		}
	}
	answer := o.server.Handler
	o.server.Handler = http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		out.print(seenRequest{"request", time.Now().UnixMilli(), echoOf(request, o.name)})
		answer.ServeHTTP(writer, request)
	})
}

func (o *origin) sendBack(socket *net.UDPConn, out *printer) {
	local := socket.LocalAddr().(*net.UDPAddr).AddrPort()
	datagram := make([]byte, 65536)
	for {
		size, from, err := socket.ReadFromUDPAddrPort(datagram)
		if err != nil {
			return
		}
		out.print(o.saw(local, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()).String()))
		_, _ = socket.WriteToUDPAddrPort(datagram[:size], from)
	}
}

// saw is a connection. Its address is written as everywhere else, also when a socket is for both families.
func (o *origin) saw(local netip.AddrPort, remote string) seenConnection {
	return seenConnection{
		"connection", time.Now().UnixMilli(), o.name, local.Addr().Unmap().String(), int(local.Port()), remote,
	}
}

// sink keeps every connection until its other end leaves, for as little as a connection can cost.
func sink(listener net.Listener) error {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			buffer := make([]byte, 512)
			for {
				if _, err := conn.Read(buffer); err != nil {
					return
				}
			}
		}()
	}
}

// originHandler compares paths itself: http.ServeMux redirects those it finds untidy, and what arrives is the point.
func originHandler(name string) http.Handler {
	return http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		query := request.URL.Query()
		switch request.URL.Path {
		case "/nothing":
			panic(http.ErrAbortHandler) // the connection ends without an answer
		case "/bytes":
			serveBytes(writer, request, query)
		case "/redirect":
			http.Redirect(writer, request, query.Get("to"), http.StatusFound)
		case "/events":
			serveEvents(writer, query)
		case "/echo":
			serveEcho(writer, request)
		default:
			time.Sleep(time.Duration(number(query, "wait", 0) * float64(time.Second)))
			writer.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(writer).Encode(echoOf(request, name))
		}
	})
}

func echoOf(request *http.Request, name string) echo {
	local, _ := request.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	answer := echo{
		Name: name, Target: request.RequestURI, Host: request.Host, Protocol: request.Proto,
		Headers: request.Header, RemoteAddress: request.RemoteAddr,
	}
	if local != nil {
		answer.Address, answer.Port = local.AddrPort().Addr().Unmap().String(), local.Port
	}
	return answer
}

func serveBytes(writer http.ResponseWriter, request *http.Request, query url.Values) {
	rate := number(query, "rate", 1_000_000)
	total := int64(number(query, "size", number(query, "seconds", 0)*rate))
	writer.Header().Set("Content-Type", "application/octet-stream")
	writer.Header().Set("Content-Length", strconv.FormatInt(total, 10))
	switch {
	case request.Method == http.MethodHead:
	case query.Has("size"):
		_, _ = io.CopyN(writer, zeros{}, total)
	default:
		feed(request.Context(), writer, total, rate)
	}
}

// feed sends bytes as they become due, and those that are late all together, so that the rate holds on average.
func feed(ctx context.Context, writer http.ResponseWriter, total int64, rate float64) {
	controller := http.NewResponseController(writer)
	begin := time.Now()
	for sent := int64(0); sent < total && ctx.Err() == nil; time.Sleep(pace) {
		due := min(total, int64(time.Since(begin).Seconds()*rate))
		if _, err := io.CopyN(writer, zeros{}, due-sent); err != nil || controller.Flush() != nil {
			return
		}
		sent = due
	}
}

// serveEvents sends as many events (text/event-stream) as are asked for, each a while after the one before.
func serveEvents(writer http.ResponseWriter, query url.Values) {
	writer.Header().Set("Content-Type", "text/event-stream")
	controller := http.NewResponseController(writer)
	for event := range int(number(query, "count", 1)) {
		if event > 0 {
			time.Sleep(eventPace)
		}
		if _, err := fmt.Fprintf(writer, "data: %d\n\n", event); err != nil || controller.Flush() != nil {
			return
		}
	}
}

const eventPace = 200 * time.Millisecond

// serveEcho sends back what it gets, as it gets it, and a trailer at the end, as a stream of gRPC does.
func serveEcho(writer http.ResponseWriter, request *http.Request) {
	writer.Header().Set("Content-Type", "application/grpc")
	writer.Header().Set("Trailer", "Grpc-Status")
	controller := http.NewResponseController(writer)
	_ = controller.EnableFullDuplex() // in HTTP/1.1, reading would end with the first octet written otherwise
	buffer := make([]byte, 1<<16)
	for {
		count, err := request.Body.Read(buffer)
		if count > 0 {
			if _, failed := writer.Write(buffer[:count]); failed != nil || controller.Flush() != nil {
				return
			}
		}
		if err != nil {
			break
		}
	}
	writer.Header().Set("Grpc-Status", "0")
}

// number is a parameter of the query, or what it is when it isn't there.
func number(query url.Values, name string, absent float64) float64 {
	if value, err := strconv.ParseFloat(query.Get(name), 64); err == nil {
		return value
	}
	return absent
}

type zeros struct{}

func (zeros) Read(buffer []byte) (int, error) {
	clear(buffer)
	return len(buffer), nil
}

// selfSigned makes a certificate for some names and addresses, and its PEM. It is an authority for itself, so a client
// that verifies can be given it as its root.
func selfSigned(names []string) (tls.Certificate, string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	now := time.Now()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "peer origin"},
		// A container may run on a machine whose clock is a little behind.
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA:        true, BasicConstraintsValid: true,
	}
	for _, name := range names {
		if address := net.ParseIP(name); address != nil {
			template.IPAddresses = append(template.IPAddresses, address)
		} else if name != "" {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, text, nil
}

// Encrypted Client Hello (RFC 9849): a server name that only the origin can read, behind one that everybody can.

const (
	echVersion  = 0xfe0d
	echX25519   = 0x0020 // DHKEM(X25519, HKDF-SHA256) of RFC 9180
	echSHA256   = 0x0001
	echAES128   = 0x0001
	echLongest  = 64 // the longest name that is hidden; shorter ones are padded
	echKeyBytes = 32
)

// hiding returns what a client needs to hide a server name behind a public one, and what the origin needs to find it.
// The key is the same in each process: nothing is secret here, and so they need not tell each other.
func hiding(public string) (list []byte, key tls.EncryptedClientHelloKey, err error) {
	private, err := ecdh.X25519().NewPrivateKey(append(make([]byte, echKeyBytes-1), 1))
	if err != nil {
		return nil, key, err
	}
	contents := []byte{0} // the id of the configuration
	contents = binary.BigEndian.AppendUint16(contents, echX25519)
	contents = appendSized(contents, private.PublicKey().Bytes())
	suite := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, echSHA256), echAES128)
	contents = appendSized(contents, suite)
	contents = append(contents, echLongest, byte(len(public)))
	contents = appendSized(append(contents, public...), nil) // no extensions
	config := appendSized(binary.BigEndian.AppendUint16(nil, echVersion), contents)
	return appendSized(nil, config), tls.EncryptedClientHelloKey{Config: config, PrivateKey: private.Bytes()}, nil
}

func appendSized(to, data []byte) []byte {
	return append(binary.BigEndian.AppendUint16(to, uint16(len(data))), data...)
}
