// Package attempts does what agents do, and Envoy's name lookups, and reports the outcomes.
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
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/serving"
	"clawker-fw/internal/users"
	"clawker-fw/internal/volume"
)

// Attempts of an agent, for `clawker-fw conformance`, with the container, network and privileges of any agent.
// clawker-fw knows the expected outcomes.

// attemptWithin limits one attempt. A refusal on a working machine is faster.
const attemptWithin = 5 * time.Second

// Attempt is one attempt. Its kind decides which fields it needs.
type Attempt struct {
	ID      string `json:"id"`
	Kind    string `json:"kind"`    // ask, connect, tls, certificate, request, send, datagram, socket, gateway
	Network string `json:"network"` // udp or tcp
	Address string `json:"address"` // with a port
	Name    string `json:"name"`    // of the query, or the server name in TLS; none if empty
	Type    uint16 `json:"type"`    // of the query
	Class   uint16 `json:"class"`
	Text    string `json:"text"`  // to send
	Roots   string `json:"roots"` // the stack's inspection roots, as PEM
}

type Outcome struct {
	ID      string `json:"id"`
	Outcome string `json:"outcome"`
}

var kinds = map[string]func(Attempt) string{
	"ask": connecting(attemptAsk), "connect": connecting(attemptConnect), "tls": connecting(attemptTLS),
	"certificate": connecting(attemptCertificate), "request": connecting(attemptRequest), "send": connecting(attemptSend),
	"datagram": connecting(attemptDatagram), "socket": attemptSocket, "gateway": attemptGateway,
}

// result is the outcome of an attempt: whether a host or Envoy is reachable, the HTTP status or 0, and a
// description.
type result struct {
	ok     bool
	status int
	words  string
}

const hostAnswered = "a host answered"

func failed(err error) result { return result{words: ended(err)} }

// Do makes all attempts of boot/attempts.json in parallel, and writes one outcome per line.
func Do(root string, output io.Writer) error {
	var attempts []Attempt
	if err := volume.ReadJSON(filepath.Join(root, "boot", "attempts.json"), &attempts); err != nil {
		return err
	}
	outcomes := make([]Outcome, len(attempts))
	var all sync.WaitGroup
	for place, attempt := range attempts {
		perform := kinds[attempt.Kind]
		if perform == nil {
			return fmt.Errorf("unknown kind of attempt %q", attempt.Kind)
		}
		all.Go(func() { outcomes[place] = Outcome{attempt.ID, perform(attempt)} })
	}
	all.Wait()
	encoder := json.NewEncoder(output)
	for _, outcome := range outcomes {
		if err := encoder.Encode(outcome); err != nil {
			return err
		}
	}
	return nil
}

func connecting(perform func(Attempt, net.Conn) result) func(Attempt) string {
	return func(attempt Attempt) string {
		connection, err := dial(attempt.Network, attempt.Address, attemptWithin, attemptWithin)
		if err != nil {
			return reason(err)
		}
		defer connection.Close()
		return perform(attempt, connection).words
	}
}

func attemptAsk(attempt Attempt, connection net.Conn) result {
	_, outcome := ask(connection, dns.Question{Name: attempt.Name, Qtype: attempt.Type, Qclass: attempt.Class})
	return outcome
}

// ask also returns the first answer record, if any.
func ask(connection net.Conn, question dns.Question) (dns.RR, result) {
	query := &dns.Msg{MsgHdr: dns.MsgHdr{Id: dns.Id(), RecursionDesired: true}, Question: []dns.Question{question}}
	client := dns.Client{Timeout: serving.AnswerLimit}
	reply, _, err := client.ExchangeWithConn(query, &dns.Conn{Conn: connection})
	switch {
	case err != nil:
		return nil, failed(err)
	case reply.Rcode == dns.RcodeNameError:
		return nil, result{words: "no such name"}
	case reply.Rcode == dns.RcodeRefused:
		return nil, result{words: "refused"}
	case reply.Rcode != dns.RcodeSuccess:
		return nil, result{words: dns.RcodeToString[reply.Rcode]}
	case len(reply.Answer) > 0:
		return reply.Answer[0], result{ok: true, words: "an answer"}
	}
	return nil, result{words: "no record"}
}

func attemptConnect(Attempt, net.Conn) result { return result{words: "connected"} }

// attemptTLS performs a TLS handshake with the server name, and sends nothing afterwards.
func attemptTLS(attempt Attempt, connection net.Conn) result {
	if _, answered, err := shakeHands(connection, unverified(attempt.Name)); !answered {
		return failed(err)
	}
	return result{ok: true, words: hostAnswered}
}

func attemptCertificate(attempt Attempt, connection net.Conn) result {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(attempt.Roots))
	_, _, err := shakeHands(connection, &tls.Config{ServerName: attempt.Name, RootCAs: roots})
	if err == nil {
		return result{words: "a certificate of the stack"}
	}
	if _, other := errors.AsType[*tls.CertificateVerificationError](err); other {
		return result{words: "another certificate"}
	}
	return failed(err)
}

// attemptRequest sends a request over TLS, and returns the status and who answered: Envoy's answers start with our
// name.
func attemptRequest(attempt Attempt, connection net.Conn) result {
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
	return result{true, response.StatusCode, fmt.Sprintf("HTTP %d of %s", response.StatusCode, whose)}
}

func attemptSend(attempt Attempt, connection net.Conn) result {
	hearing := &heard{Conn: connection}
	response, err := exchange(hearing, attempt.Text)
	switch {
	case err == nil:
		response.Body.Close()
		return result{true, response.StatusCode, fmt.Sprintf("HTTP %d", response.StatusCode)}
	case hearing.anything:
		return result{words: hostAnswered}
	}
	return failed(err)
}

// attemptDatagram sends a text. Nothing answers for a host, so an answer comes from the host, and few hosts answer
// an empty datagram. An error comes from the kernel of Envoy's container, where no rule listens on this port.
func attemptDatagram(attempt Attempt, connection net.Conn) result {
	_, err := io.WriteString(connection, attempt.Text)
	if err == nil {
		_, err = connection.Read(make([]byte, 1))
	}
	if err != nil {
		return result{ok: errors.Is(err, os.ErrDeadlineExceeded), words: reason(err)}
	}
	return result{ok: true, words: hostAnswered}
}

// attemptSocket opens a raw Ethernet or IP socket, which could forge packets.
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

// attemptGateway reports whether a gateway of the agent's routes answers ARP. Without one, no packet leaves the
// network.
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

// arpWithin exceeds the kernel's three ARP requests for a neighbour.
const arpWithin = 4 * time.Second

func dial(network, address string, connecting, all time.Duration) (net.Conn, error) {
	connection, err := net.DialTimeout(network, address, connecting)
	if err == nil {
		_ = connection.SetDeadline(time.Now().Add(all))
	}
	return connection, err
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

// unverified returns TLS settings that accept any certificate: nothing secret is sent.
func unverified(name string) *tls.Config {
	return &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}
}

// shakeHands performs a TLS handshake, and reports whether a host has answered. Envoy itself only sends the alert
// `access_denied`, so any other reply is a host's.
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

// accessDenied is Envoy's alert for TLS that no rule allows (RFC 8446, section 6.2).
const accessDenied = tls.AlertError(49)

// deniedAccess reports whether the alert ended a handshake. Go doesn't export its wrapper's type.
func deniedAccess(err error) bool {
	remote, ok := errors.AsType[*net.OpError](err)
	return ok && remote.Op == "remote error" && remote.Err.Error() == accessDenied.Error()
}

const unanswered = "no answer"

// reason returns an error's text without our own address and port, which differ each time.
func reason(err error) string {
	if timeout, ok := errors.AsType[net.Error](err); errors.Is(err, context.DeadlineExceeded) || ok && timeout.Timeout() {
		return unanswered
	}
	if failure, ok := errors.AsType[syscall.Errno](err); ok {
		return failure.Error()
	}
	return err.Error()
}

// ended describes how a connection ended without an answer. A reset and an orderly close are the same.
func ended(err error) string {
	switch {
	case deniedAccess(err):
		return "access denied"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "closed without an answer"
	}
	return reason(err)
}

// An attempt to use a name as an agent would. CoreDNS's container is on the agent network, so it can do the same.

// speakWithin lets Envoy resolve a name and give up on a silent host. waitWithin is for a silent, open connection.
const speakWithin, waitWithin = 20 * time.Second, 3 * time.Second

// Trial is the output of try: the steps up to the first failure.
type Trial struct {
	Steps []Step `json:"steps"`
}

// Step is one step of an attempt. Source is our own address and port, which the logs of Envoy and CoreDNS name.
type Step struct {
	Name    string  `json:"step"` // resolve, connect, then handshake, request, wait or datagram
	Source  string  `json:"source"`
	Seconds float64 `json:"seconds"`
	OK      bool    `json:"ok"`
	Status  int     `json:"status"`  // of the HTTP response, or 0
	Outcome string  `json:"outcome"` // in words
}

// Try resolves a name at the service address, connects to the answer, and waits for the host to respond. With a
// method and a path, it sends that request over TLS.
func Try(sibling boot.Sibling, arguments []string) (Trial, error) {
	if len(arguments) < 3 || speakers[arguments[1]] == nil {
		return Trial{}, fmt.Errorf("try needs a name, `https`, `http`, `tcp` or `udp`, and a port")
	}
	name, protocol, speak := arguments[0], arguments[1], speakers[arguments[1]]
	port, err := strconv.ParseUint(arguments[2], 10, 16)
	if err != nil {
		return Trial{}, fmt.Errorf("not a port: %q", arguments[2])
	}
	request := []string{http.MethodHead, "/"}
	if asked := arguments[3:]; len(asked) > 0 {
		if len(asked) != 2 || protocol != "https" || !isRequestLine(asked) {
			return Trial{}, fmt.Errorf("try needs `https` for a request, and a method and a path")
		}
		request, speak = asked, requesting
	}
	if sibling.Service == nil {
		return Trial{}, errors.New("only CoreDNS's container can try what agents can")
	}
	return tryAt(netip.AddrPortFrom(sibling.Service.Address, 53), name, protocol, uint16(port), speak, request), nil
}

// speaker is an agent's action on a connection: a step with a name, and the time within which any host answers.
type speaker struct {
	step    string
	perform func(Attempt, net.Conn) result
	within  time.Duration
}

var (
	speakers = map[string]*speaker{
		"https": {"handshake", attemptTLS, speakWithin}, "http": {"request", attemptSend, speakWithin},
		"tcp": {"wait", attemptWait, waitWithin}, "udp": {"datagram", attemptDatagram, waitWithin},
	}
	requesting = &speaker{"request", attemptRequest, speakWithin}
)

func tryAt(resolver netip.AddrPort, name, protocol string, port uint16, speak *speaker, request []string) Trial {
	network, made := "tcp", Trial{}
	if protocol == "udp" {
		network = protocol
	}
	host := name
	if usual := map[string]uint16{"http": 80, "https": 443}; port != usual[protocol] {
		host = net.JoinHostPort(name, strconv.Itoa(int(port)))
	}
	attempt := Attempt{Name: name}
	if speak.step == "request" {
		attempt.Text = fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: clawker-fw\r\nConnection: close\r\n\r\n",
			request[0], request[1], host)
	}
	var address netip.Addr
	begun := time.Now()
	asking, err := dial("udp", resolver.String(), serving.AnswerLimit, serving.AnswerLimit)
	if !made.add("resolve", begun, asking, err, func() result {
		answer, outcome := ask(asking, dns.Question{Name: name + ".", Qtype: dns.TypeA, Qclass: dns.ClassINET})
		if record, ok := answer.(*dns.A); ok {
			address, _ = netip.AddrFromSlice(record.A.To4())
			outcome.words = address.String()
		}
		outcome.ok = address.IsValid()
		return outcome
	}) {
		return made
	}
	asking.Close()
	place := netip.AddrPortFrom(address, port).String()
	begun = time.Now()
	connection, err := dial(network, place, answerTimeout, speak.within)
	if err != nil {
		err = fmt.Errorf("%s: %s", place, reason(err))
	}
	if !made.add("connect", begun, connection, err, func() result { return result{ok: true, words: place} }) {
		return made
	}
	defer connection.Close()
	made.add(speak.step, time.Now(), connection, nil, func() result { return speak.perform(attempt, connection) })
	return made
}

// add performs a step on a connection, if there is one, and reports whether it succeeded.
func (t *Trial) add(name string, begun time.Time, connection net.Conn, err error, perform func() result) bool {
	step := Step{Name: name}
	if err != nil {
		step.Outcome = reason(err)
	} else {
		outcome := perform()
		step.Source, step.OK, step.Status, step.Outcome = connection.LocalAddr().String(), outcome.ok, outcome.status, outcome.words
	}
	step.Seconds = time.Since(begun).Seconds()
	t.Steps = append(t.Steps, step)
	return step.OK
}

// isRequestLine reports whether a method and a path fit into a request line without changing the request.
func isRequestLine(words []string) bool {
	return !slices.ContainsFunc(words, func(word string) bool {
		return word == "" || strings.ContainsFunc(word, func(character rune) bool { return character <= ' ' || character >= 0x7f })
	})
}

// attemptWait sends nothing: many hosts speak first, others are silent. Envoy closes a connection without a host.
func attemptWait(_ Attempt, connection net.Conn) result {
	size, err := connection.Read(make([]byte, 1))
	switch {
	case size > 0:
		return result{ok: true, words: hostAnswered}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return result{ok: true, words: "still open"}
	}
	return failed(err)
}

// lookupLimit is Envoy's limit for a lookup too.
const lookupLimit = 5 * time.Second

// Lookup is the output of lookup: the IPv4 addresses of a name, from this container's resolver.
type Lookup struct {
	Addresses []Looked `json:"addresses"`
	Error     string   `json:"error"` // why there are none, or ""
}

// Looked is an address, and the tables' names of the sources that have no route to it.
type Looked struct {
	Address netip.Addr `json:"address"`
	Closed  []string   `json:"closed"`
}

// Resolve resolves a name like Envoy, over IPv4 only, and asks the kernel which sources can reach each address.
func Resolve(tables []boot.Table, resolver *net.Resolver, name string) (Lookup, error) {
	lookup := Lookup{Addresses: []Looked{}}
	limited, cancel := context.WithTimeout(context.Background(), lookupLimit)
	defer cancel()
	addresses, err := addressesOf(limited, resolver, name)
	if err != nil {
		lookup.Error = whyUnknown(err)
		return lookup, nil
	}
	slices.SortFunc(addresses, netip.Addr.Compare)
	for _, address := range slices.Compact(addresses) {
		closed, err := closedTo(tables, address.Unmap())
		if err != nil {
			return lookup, err
		}
		lookup.Addresses = append(lookup.Addresses, Looked{address.Unmap(), closed})
	}
	return lookup, nil
}

func addressesOf(limited context.Context, resolver *net.Resolver, name string) ([]netip.Addr, error) {
	if address, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{address}, nil
	}
	return resolver.LookupNetIP(limited, "ip4", name+".")
}

// whyUnknown returns the reason without the resolver's address, which means nothing outside.
func whyUnknown(err error) string {
	failure, ok := errors.AsType[*net.DNSError](err)
	if !ok || failure.IsTimeout {
		return reason(err)
	}
	if failure.IsNotFound {
		return "no such name, or none with an IPv4 address"
	}
	return failure.Err
}

// closedTo returns the names of the sources without a route to an address. The kernel decides in the same way when
// a connection from the source begins. A local route, which 0.0.0.0 always has, ends in this container.
func closedTo(tables []boot.Table, address netip.Addr) ([]string, error) {
	closed, user := []string{}, uint32(users.Readers) // any user except root
	for _, table := range tables {
		routes, err := netlink.RouteGetWithOptions(address.AsSlice(), &netlink.RouteGetOptions{SrcAddr: table.From.AsSlice(), UID: &user})
		if errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ENETUNREACH) {
			closed = append(closed, table.Name)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("the route from %s to %s: %w", table.From, address, err)
		}
		if slices.ContainsFunc(routes, func(route netlink.Route) bool { return route.Type == unix.RTN_LOCAL }) {
			closed = append(closed, table.Name)
		}
	}
	return closed, nil
}
