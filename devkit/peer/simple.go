// Verbs of a few lines: probe-tcp, ping, wait.
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

type attemptResult struct {
	OK           bool     `json:"ok"`
	Milliseconds float64  `json:"ms"`
	Error        *failure `json:"error"`
}

func attempt(out *printer, try func() error) (bool, error) {
	begin := time.Now()
	err := try()
	out.print(attemptResult{err == nil, milliseconds(time.Since(begin)), failureOf(err)})
	return err == nil, nil
}

func declareProbe(flags *flag.FlagSet) action {
	timeout := flags.Duration("timeout", 2*time.Second, "limit for lookup and connection")
	return func(ctx context.Context, arguments []string, out *printer) (bool, error) {
		host, port, err := net.SplitHostPort(arguments[0])
		if err != nil {
			return false, err
		}
		ctx, cancel := context.WithTimeout(ctx, *timeout)
		defer cancel()
		return attempt(out, func() error {
			conn, _, err := open(ctx, destination{host: host, port: port})
			if err == nil {
				conn.abandon() // a peer that never speaks, or speaks first, isn't worth waiting for
			}
			return err
		})
	}
}

const icmpEcho = 8

func declarePing(flags *flag.FlagSet) action {
	timeout := flags.Duration("timeout", time.Second, "how long to wait for the answer")
	return func(_ context.Context, arguments []string, out *printer) (bool, error) {
		address, err := netip.ParseAddr(arguments[0])
		if err != nil {
			return false, err
		}
		return attempt(out, func() error { return ping(address, *timeout) })
	}
}

// ping sends an echo and waits for an answer, by the kind of socket that needs no capability. The kernel gives each
// socket the answers to its own echoes alone.
func ping(address netip.Addr, timeout time.Duration) error {
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, syscall.IPPROTO_ICMP)
	if err != nil {
		return err
	}
	defer syscall.Close(socket)
	limit := syscall.NsecToTimeval(timeout.Nanoseconds())
	if err := syscall.SetsockoptTimeval(socket, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &limit); err != nil {
		return err
	}
	echo := []byte{icmpEcho, 0, 0, 0, 0, 0, 0, 1} // the kernel fills in the identifier and the sum over all
	binary.BigEndian.PutUint16(echo[2:], ^checksum(echo))
	if err := syscall.Sendto(socket, echo, 0, &syscall.SockaddrInet4{Addr: address.As4()}); err != nil {
		return err
	}
	_, _, err = syscall.Recvfrom(socket, make([]byte, 64), 0)
	if errors.Is(err, syscall.EAGAIN) {
		return os.ErrDeadlineExceeded
	}
	return err
}

func declareWait(*flag.FlagSet) action {
	return func(ctx context.Context, _ []string, out *printer) (bool, error) {
		out.print(event{"ready"})
		<-ctx.Done()
		return true, nil
	}
}

const shownBody = 2048

const untilEvery = 10 * time.Millisecond

// getResult is one printed request. Milliseconds run from the first step to the end of the body.
type getResult struct {
	OK           bool     `json:"ok"`
	Status       int      `json:"status"` // 0 without a response
	Milliseconds float64  `json:"ms"`
	Error        *failure `json:"error"`
	Body         string   `json:"body"`
}

func declareGet(flags *flag.FlagSet) action {
	var headers []string
	var serverName *string
	timeout := flags.Duration("timeout", 5*time.Second, "limit for a request, from lookup to end of body")
	connect := flags.String("connect", "", "dial this `ADDRESS[:PORT]`; Host and SNI stay those of the URL")
	flags.Func("sni", "server name to send instead of the URL's; empty sends none", func(name string) error {
		serverName = &name
		return nil
	})
	host := flags.String("host", "", "Host header instead of the URL's")
	method := flags.String("method", "GET", "request method")
	flags.Func("header", "extra header, as it is sent, may be repeated", func(header string) error {
		headers = append(headers, header)
		return nil
	})
	until := flags.Bool("until-ok", false, "repeat it, silently, until one succeeds")
	nameserver := flags.String("dns-server", "", serverUsage)
	pieces := flags.Bool("pieces", false, "send every byte on its own")
	behind := flags.String("ech", "", "hide the server name behind this `NAME`, as an origin with the same option lets clients")
	trusted := flags.String("trust", "", "have the host prove its name by these authorities, as `PEM`, or by those of the `system`")

	return func(ctx context.Context, arguments []string, out *printer) (bool, error) {
		sent, to, err := requestFor(arguments[0])
		if err != nil {
			return false, err
		}
		if err := to.trust(*trusted); err != nil {
			return false, err
		}
		to.dialTo(*connect)
		to.nameserver, to.pieces, to.behind = *nameserver, *pieces, *behind
		if serverName != nil {
			to.serverName = *serverName
		}
		sent.method, sent.headers = *method, headers
		if *host != "" {
			sent.host = *host
		}
		result := get(ctx, to, sent, *timeout)
		for *until && !result.OK && ctx.Err() == nil {
			time.Sleep(untilEvery)
			result = get(ctx, to, sent, *timeout)
		}
		out.print(result)
		return result.OK, nil
	}
}

func get(ctx context.Context, to destination, sent request, timeout time.Duration) getResult {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var body head
	begin := time.Now()
	response, _, finish, err := fetchOnce(ctx, to, sent, &body)
	defer finish()
	result := getResult{
		OK: err == nil, Milliseconds: milliseconds(time.Since(begin)), Error: failureOf(err), Body: body.kept.String(),
	}
	if response != nil {
		result.Status = response.StatusCode
	}
	return result
}

type head struct{ kept bytes.Buffer }

func (h *head) Write(data []byte) (int, error) {
	if room := shownBody - h.kept.Len(); room > 0 {
		h.kept.Write(data[:min(room, len(data))])
	}
	return len(data), nil
}

// rawResult is what came back. Whether that is a refusal is for those to say who could have been reached.
type rawResult struct {
	OK    bool     `json:"ok"` // the bytes were sent
	Reply string   `json:"reply"`
	Error *failure `json:"error"`
}

func declareRaw(flags *flag.FlagSet) action {
	bytes := flags.String("hex", "", "the bytes to send, in `HEXADECIMAL`")
	timeout := flags.Duration("timeout", time.Second, "limit for all; an answer that goes on is cut")
	udp := flags.Bool("udp", false, "send a datagram and wait for another one; it is a failure if none comes")
	options := flags.String("options", "", "of the datagram's IP header (RFC 791, section 3.1), in `HEXADECIMAL`")
	name := flags.String("tls", "", "send them in TLS with this server `NAME`, whoever answers")
	pieces := flags.Bool("pieces", false, "send every byte on its own")
	return func(ctx context.Context, arguments []string, out *printer) (bool, error) {
		host, port, noPlace := net.SplitHostPort(arguments[0])
		sent, noBytes := hex.DecodeString(*bytes)
		header, err := hex.DecodeString(*options)
		if err := errors.Join(noPlace, noBytes, err); err != nil {
			return false, err
		}
		to := destination{host: host, port: port, pieces: *pieces, secure: *name != "", serverName: *name}
		ctx, cancel := context.WithTimeout(ctx, *timeout)
		defer cancel()
		var result rawResult
		if *udp {
			result, err = sendDatagram(ctx, to, sent, header)
		} else {
			result, err = sendRaw(ctx, to, sent)
		}
		result.OK, result.Error = err == nil, failureOf(err)
		out.print(result)
		return result.OK, nil
	}
}

func sendRaw(ctx context.Context, to destination, sent []byte) (rawResult, error) {
	conn, _, err := open(ctx, to)
	if err != nil {
		return rawResult{}, err
	}
	defer conn.abandon()
	defer conn.within(ctx)()
	if _, err := conn.Write(sent); err != nil {
		return rawResult{}, err
	}
	var reply head
	_, _ = io.Copy(&reply, conn.reader) // what is not ended by the other side is ended by the time
	return rawResult{Reply: reply.kept.String()}, nil
}

// sendDatagram sends one datagram and waits for one. Nobody there is told by the kernel, as for a connection.
func sendDatagram(ctx context.Context, to destination, sent, options []byte) (rawResult, error) {
	dialer := &net.Dialer{Control: func(_, _ string, socket syscall.RawConn) (err error) {
		failed := socket.Control(func(socket uintptr) {
			if len(options) > 0 {
				err = unix.SetsockoptString(int(socket), unix.IPPROTO_IP, unix.IP_OPTIONS, string(options))
			}
		})
		return errors.Join(failed, err)
	}}
	conn, err := dialer.DialContext(ctx, "udp", net.JoinHostPort(to.host, to.port))
	if err != nil {
		return rawResult{}, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	if _, err = conn.Write(sent); err != nil {
		return rawResult{}, err
	}
	reply := make([]byte, shownBody)
	size, err := conn.Read(reply)
	return rawResult{Reply: string(reply[:size])}, err
}

const serverUsage = "ask this DNS server, `ADDRESS[:PORT]`, not the one in resolv.conf"

// resolveResult is the printed answer. Answers hold the data of each record in presentation format.
type resolveResult struct {
	Rcode        string   `json:"rcode"` // empty without an answer
	Answers      []string `json:"answers"`
	Milliseconds float64  `json:"ms"`
	Error        *failure `json:"error"`
}

func declareResolve(flags *flag.FlagSet) action {
	typeName := flags.String("type", "A", "record type")
	className := flags.String("class", "IN", "record class")
	operation := flags.Int("opcode", dns.OpcodeQuery, "what is asked for, as a `NUMBER` (RFC 6895, section 2.2)")
	server := flags.String("server", "", serverUsage)
	tcp := flags.Bool("tcp", false, "ask over TCP")
	edns := flags.Int("edns", -1, "send an EDNS query of the version with this `NUMBER` (RFC 6891, section 6.1.3)")
	timeout := flags.Duration("timeout", 5*time.Second, "how long to wait for the answer")
	from := flags.String("from", "", "send from this `ADDRESS`, through its interface, over UDP")

	return func(ctx context.Context, arguments []string, out *printer) (bool, error) {
		recordType, known := dns.StringToType[*typeName]
		class, knownClass := dns.StringToClass[*className]
		if !known || !knownClass {
			return false, fmt.Errorf("there is no record type %q of class %q", *typeName, *className)
		}
		address, err := serverOrFirst(*server)
		if err != nil {
			return false, err
		}
		query := new(dns.Msg).SetQuestion(dns.Fqdn(arguments[0]), recordType)
		query.Question[0].Qclass, query.Opcode = class, *operation
		if *edns >= 0 {
			query.SetEdns0(dns.DefaultMsgSize, false)
			query.IsEdns0().SetVersion(uint8(*edns))
		}
		client := &dns.Client{Timeout: *timeout}
		if *from != "" {
			client.Dialer = &net.Dialer{Timeout: *timeout, LocalAddr: &net.UDPAddr{IP: net.ParseIP(*from)}}
		}
		if *tcp {
			client.Net = "tcp"
		}
		result := resolve(ctx, client, query, address)
		out.print(result)
		return result.Rcode == dns.RcodeToString[dns.RcodeSuccess] && len(result.Answers) > 0, nil
	}
}

func resolve(ctx context.Context, client *dns.Client, query *dns.Msg, server string) resolveResult {
	begin := time.Now()
	reply, _, err := client.ExchangeContext(ctx, query, server)
	result := resolveResult{Answers: []string{}, Milliseconds: milliseconds(time.Since(begin)), Error: failureOf(err)}
	if err != nil {
		return result
	}
	result.Rcode = dns.RcodeToString[reply.Rcode]
	if reply.Rcode == dns.RcodeBadVers {
		result.Rcode = "BADVERS" // the same number as BADSIG, which is for signed messages
	}
	for _, record := range reply.Answer {
		result.Answers = append(result.Answers, strings.TrimPrefix(record.String(), record.Header().String()))
	}
	return result
}

func serverOrFirst(server string) (string, error) {
	if server != "" {
		return withDefaultPort(server, "53"), nil
	}
	config, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(config.Servers[0], config.Port), nil
}
