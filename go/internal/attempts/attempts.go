// Package attempts does what agents do, and Envoy where it looks names up, and says what comes of it.
package attempts

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"

	"clawker-fw/internal/serving"
	"clawker-fw/internal/volume"
)

// Attempts of an agent, for `clawker-fw conformance`: the same container, network and privileges as any agent. What is
// to hold is decided by clawker-fw; here is only what happens.

// attemptWithin is for one attempt. Nothing that is refused takes longer on a machine that works.
const attemptWithin = 5 * time.Second

// Attempt is one thing to try. Which fields it needs depends on its kind.
type Attempt struct {
	ID      string `json:"id"`
	Kind    string `json:"kind"`    // ask, connect, tls, certificate, request, send, datagram, socket, gateway
	Network string `json:"network"` // udp or tcp
	Address string `json:"address"` // with a port
	Name    string `json:"name"`    // to ask for, or the server name in TLS; none if empty
	Type    uint16 `json:"type"`    // of the question
	Class   uint16 `json:"class"`
	Text    string `json:"text"`  // what is sent
	Roots   string `json:"roots"` // as PEM, under which the stack looks into TLS
}

// Outcome is what happened, in words.
type Outcome struct {
	ID      string `json:"id"`
	Outcome string `json:"outcome"`
}

var kinds = map[string]func(Attempt) string{
	"ask": connecting(attemptAsk), "connect": connecting(attemptConnect), "tls": connecting(attemptTLS),
	"certificate": connecting(attemptCertificate), "request": connecting(attemptRequest), "send": connecting(attemptSend),
	"datagram": connecting(attemptDatagram), "socket": attemptSocket, "gateway": attemptGateway,
}

// said is what comes of an attempt on a connection: whether there is a way to a host, or to an answer of Envoy's; the status of an
// HTTP response, or 0; and that in words.
type said struct {
	ok     bool
	status int
	words  string
}

const hostAnswered = "a host answered"

func failed(err error) said { return said{words: ended(err)} }

// Do does everything in boot/attempts.json at the same time, and writes one outcome a line.
func Do(root string, output io.Writer) error {
	var wanted []Attempt
	if err := volume.ReadJSON(filepath.Join(root, "boot", "attempts.json"), &wanted); err != nil {
		return err
	}
	outcomes := make([]Outcome, len(wanted))
	var all sync.WaitGroup
	for place, each := range wanted {
		perform := kinds[each.Kind]
		if perform == nil {
			return fmt.Errorf("unknown kind of attempt %q", each.Kind)
		}
		all.Go(func() { outcomes[place] = Outcome{each.ID, perform(each)} })
	}
	all.Wait()
	encoder := json.NewEncoder(output)
	for _, each := range outcomes {
		if err := encoder.Encode(each); err != nil {
			return err
		}
	}
	return nil
}

func connecting(perform func(Attempt, net.Conn) said) func(Attempt) string {
	return func(attempt Attempt) string {
		connection, err := dial(attempt.Network, attempt.Address, attemptWithin, attemptWithin)
		if err != nil {
			return reason(err)
		}
		defer connection.Close()
		return perform(attempt, connection).words
	}
}

func attemptAsk(attempt Attempt, connection net.Conn) said {
	_, found := ask(connection, dns.Question{Name: attempt.Name, Qtype: attempt.Type, Qclass: attempt.Class})
	return found
}

// ask returns the first answer as well, if there is one.
func ask(connection net.Conn, question dns.Question) (dns.RR, said) {
	query := &dns.Msg{MsgHdr: dns.MsgHdr{Id: dns.Id(), RecursionDesired: true}, Question: []dns.Question{question}}
	client := dns.Client{Timeout: serving.AnswerLimit}
	reply, _, err := client.ExchangeWithConn(query, &dns.Conn{Conn: connection})
	switch {
	case err != nil:
		return nil, failed(err)
	case reply.Rcode == dns.RcodeNameError:
		return nil, said{words: "no such name"}
	case reply.Rcode == dns.RcodeRefused:
		return nil, said{words: "refused"}
	case reply.Rcode != dns.RcodeSuccess:
		return nil, said{words: dns.RcodeToString[reply.Rcode]}
	case len(reply.Answer) > 0:
		return reply.Answer[0], said{ok: true, words: "an answer"}
	}
	return nil, said{words: "no record"}
}

func attemptConnect(Attempt, net.Conn) said { return said{words: "connected"} }

// attemptTLS begins TLS with the server name, and sends nothing afterwards.
func attemptTLS(attempt Attempt, connection net.Conn) said {
	if _, answered, err := shakeHands(connection, unverified(attempt.Name)); !answered {
		return failed(err)
	}
	return said{ok: true, words: hostAnswered}
}

func attemptCertificate(attempt Attempt, connection net.Conn) said {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(attempt.Roots))
	_, _, err := shakeHands(connection, &tls.Config{ServerName: attempt.Name, RootCAs: roots})
	if err == nil {
		return said{words: "a certificate of the stack"}
	}
	if _, other := errors.AsType[*tls.CertificateVerificationError](err); other {
		return said{words: "another certificate"}
	}
	return failed(err)
}

// attemptRequest sends a text in TLS, and returns the status of the answer, and whose it is: a host may refuse something
// as well. Whatever Envoy answers by itself begins with our name.
func attemptRequest(attempt Attempt, connection net.Conn) said {
	agent, _, err := shakeHands(connection, unverified(attempt.Name))
	if err != nil {
		return failed(err)
	}
	response, err := exchange(agent, attempt.Text)
	if err != nil {
		return failed(err)
	}
	defer response.Body.Close()
	whose := "a host"
	if response.StatusCode >= http.StatusBadRequest && begins(response, "clawker-fw: ") {
		whose = "Envoy"
	}
	return said{true, response.StatusCode, fmt.Sprintf("HTTP %d of %s", response.StatusCode, whose)}
}

func attemptSend(attempt Attempt, connection net.Conn) said {
	hearing := &heard{Conn: connection}
	response, err := exchange(hearing, attempt.Text)
	switch {
	case err == nil:
		response.Body.Close()
		return said{true, response.StatusCode, fmt.Sprintf("HTTP %d", response.StatusCode)}
	case hearing.anything:
		return said{words: hostAnswered}
	}
	return failed(err)
}

// attemptDatagram sends a text. Nobody answers for a host, so an answer is from it, and few answer one without content. An error
// is the kernel's of Envoy's container: no rule's listener is there.
func attemptDatagram(attempt Attempt, connection net.Conn) said {
	_, err := io.WriteString(connection, attempt.Text)
	if err == nil {
		_, err = connection.Read(make([]byte, 1))
	}
	if err != nil {
		return said{ok: errors.Is(err, os.ErrDeadlineExceeded), words: reason(err)}
	}
	return said{ok: true, words: hostAnswered}
}

// attemptSocket opens a socket with which packets can be forged: of Ethernet, or of IP.
func attemptSocket(attempt Attempt) string {
	family, protocol := syscall.AF_INET, syscall.IPPROTO_ICMP
	if attempt.Network == "packet" {
		family, protocol = syscall.AF_PACKET, 0
	}
	descriptor, err := syscall.Socket(family, syscall.SOCK_RAW, protocol)
	if err != nil {
		return reason(err)
	}
	syscall.Close(descriptor)
	return "a socket"
}

// attemptGateway says whether there is a gateway of the agent's routes. Without a neighbour that answers ARP for it, no
// packet leaves the network, whatever its destination is.
func attemptGateway(Attempt) string {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return reason(err)
	}
	for _, route := range routes {
		if gateway, ok := netip.AddrFromSlice(route.Gw.To4()); ok && isThere(gateway, arpWithin) {
			return "a gateway answers: " + gateway.String()
		}
	}
	return "no gateway answers"
}

// arpWithin is longer than the kernel takes to ask three times for a neighbour.
const arpWithin = 4 * time.Second

func dial(network, address string, connecting, all time.Duration) (net.Conn, error) {
	connection, err := net.DialTimeout(network, address, connecting)
	if err != nil {
		return nil, err
	}
	if err := connection.SetDeadline(time.Now().Add(all)); err != nil {
		connection.Close()
		return nil, err
	}
	return connection, nil
}

type heard struct {
	net.Conn
	anything bool
}

func (h *heard) Read(buffer []byte) (int, error) {
	size, err := h.Conn.Read(buffer)
	h.anything = h.anything || size > 0
	return size, err
}

// unverified returns the settings of TLS in which any certificate will do: nothing secret is sent.
func unverified(name string) *tls.Config {
	return &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}
}

// shakeHands begins TLS, and reports whether a host has answered. Envoy says nothing of its own in TLS but that it denies
// access, so anything else that comes back is from a host.
func shakeHands(connection net.Conn, config *tls.Config) (agent *tls.Conn, answered bool, err error) {
	hearing := &heard{Conn: connection}
	agent = tls.Client(hearing, config)
	err = agent.Handshake()
	return agent, hearing.anything && !deniedAccess(err), err
}

func exchange(connection net.Conn, request string) (*http.Response, error) {
	if _, err := io.WriteString(connection, request); err != nil {
		return nil, err
	}
	method, _, _ := strings.Cut(request, " ")
	return http.ReadResponse(bufio.NewReader(connection), &http.Request{Method: method})
}

func begins(response *http.Response, words string) bool {
	text := make([]byte, len(words))
	_, err := io.ReadFull(response.Body, text)
	return err == nil && string(text) == words
}

// accessDenied is the alert with which Envoy ends TLS that no rule allows (RFC 8446, section 6.2).
const accessDenied = tls.AlertError(49)

// deniedAccess reports whether a handshake failed because of the alert. Go has no name for what an alert is wrapped in.
func deniedAccess(err error) bool {
	remote, is := errors.AsType[*net.OpError](err)
	return is && remote.Op == "remote error" && remote.Err.Error() == accessDenied.Error()
}

const unanswered = "no answer"

// reason returns an error's text without our own address and port, which differ each time.
func reason(err error) string {
	if timeout, is := errors.AsType[net.Error](err); errors.Is(err, context.DeadlineExceeded) || is && timeout.Timeout() {
		return unanswered
	}
	if failure, is := errors.AsType[syscall.Errno](err); is {
		return failure.Error()
	}
	return err.Error()
}

// ended describes the end of a connection without an answer. A reset and an ordinary end are the same.
func ended(err error) string {
	switch {
	case deniedAccess(err):
		return "access denied"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "closed without an answer"
	}
	return reason(err)
}
