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
	"path/filepath"
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
		all.Add(1)
		go func() {
			defer all.Done()
			outcomes[place] = Outcome{each.ID, perform(each)}
		}()
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

func connecting(perform func(Attempt, net.Conn) string) func(Attempt) string {
	return func(attempt Attempt) string {
		connection, err := dial(attempt.Network, attempt.Address, attemptWithin, attemptWithin)
		if err != nil {
			return reason(err)
		}
		defer connection.Close()
		return perform(attempt, connection)
	}
}

func attemptAsk(attempt Attempt, connection net.Conn) string {
	query := &dns.Msg{
		MsgHdr:   dns.MsgHdr{Id: dns.Id(), RecursionDesired: true},
		Question: []dns.Question{{Name: attempt.Name, Qtype: attempt.Type, Qclass: attempt.Class}},
	}
	reply, err := askOver(connection, query)
	switch {
	case err != nil:
		return ended(err)
	case reply.Rcode == dns.RcodeNameError:
		return "no such name"
	case reply.Rcode == dns.RcodeRefused:
		return "refused"
	case reply.Rcode != dns.RcodeSuccess:
		return dns.RcodeToString[reply.Rcode]
	case len(reply.Answer) > 0:
		return "an answer"
	}
	return "no record"
}

func attemptConnect(Attempt, net.Conn) string { return "connected" }

func attemptTLS(attempt Attempt, connection net.Conn) string {
	if _, answered, err := shakeHands(connection, unverified(attempt.Name)); !answered {
		return ended(err)
	}
	return "a host answered"
}

func attemptCertificate(attempt Attempt, connection net.Conn) string {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(attempt.Roots))
	_, _, err := shakeHands(connection, &tls.Config{ServerName: attempt.Name, RootCAs: roots})
	var other *tls.CertificateVerificationError
	switch {
	case err == nil:
		return "a certificate of the stack"
	case errors.As(err, &other):
		return "another certificate"
	}
	return ended(err)
}

// attemptRequest sends a text in TLS, and returns the status of the answer, and whose it is: a host may refuse something
// as well. Whatever Envoy answers by itself begins with our name.
func attemptRequest(attempt Attempt, connection net.Conn) string {
	agent, _, err := shakeHands(connection, unverified(attempt.Name))
	if err != nil {
		return ended(err)
	}
	response, err := exchange(agent, http.MethodGet, attempt.Text)
	if err != nil {
		return ended(err)
	}
	defer response.Body.Close()
	if begins(response, "clawker-fw: ") {
		return fmt.Sprintf("HTTP %d of Envoy", response.StatusCode)
	}
	return fmt.Sprintf("HTTP %d of a host", response.StatusCode)
}

func attemptSend(attempt Attempt, connection net.Conn) string {
	hearing := &heard{Conn: connection}
	response, err := exchange(hearing, http.MethodGet, attempt.Text)
	switch {
	case err == nil:
		response.Body.Close()
		return fmt.Sprintf("HTTP %d", response.StatusCode)
	case hearing.anything:
		return "a host answered"
	}
	return ended(err)
}

func attemptDatagram(attempt Attempt, connection net.Conn) string {
	_, err := io.WriteString(connection, attempt.Text)
	if err == nil {
		_, err = connection.Read(make([]byte, 1))
	}
	if err != nil {
		return reason(err)
	}
	return "a host answered"
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

func askOver(connection net.Conn, query *dns.Msg) (*dns.Msg, error) {
	client := dns.Client{Timeout: serving.AnswerLimit}
	reply, _, err := client.ExchangeWithConn(query, &dns.Conn{Conn: connection})
	return reply, err
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

func exchange(connection net.Conn, method, request string) (*http.Response, error) {
	if _, err := io.WriteString(connection, request); err != nil {
		return nil, err
	}
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
	var remote *net.OpError
	return errors.As(err, &remote) && remote.Op == "remote error" && remote.Err.Error() == accessDenied.Error()
}

const unanswered = "no answer"

// reason returns an error's text without our own address and port, which differ each time.
func reason(err error) string {
	var timeout net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
		return unanswered
	}
	var failure syscall.Errno
	if errors.As(err, &failure) {
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
