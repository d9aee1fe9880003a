// Package attempts does what agents do, and Envoy where it looks names up, and says what comes of it.
package attempts

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"clawker-fw/internal/dnsclient"
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
	"ask": attemptAsk, "connect": attemptConnect, "tls": attemptTLS, "send": attemptSend,
	"certificate": attemptCertificate, "request": attemptRequest,
	"datagram": attemptDatagram, "socket": attemptSocket, "gateway": attemptGateway,
}

// Do does everything in boot/attempts.json at the same time, and writes one outcome a line.
func Do(root string, output io.Writer) error {
	content, err := os.ReadFile(filepath.Join(root, "boot", "attempts.json"))
	if err != nil {
		return err
	}
	var wanted []Attempt
	if err := json.Unmarshal(content, &wanted); err != nil {
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

// dial connects, and limits the whole attempt.
func dial(attempt Attempt) (net.Conn, string) {
	connection, err := net.DialTimeout(attempt.Network, attempt.Address, attemptWithin)
	if err == nil {
		err = connection.SetDeadline(time.Now().Add(attemptWithin))
	}
	if err != nil {
		return nil, reason(err)
	}
	return connection, ""
}

// attemptAsk asks a resolver one question.
func attemptAsk(attempt Attempt) string {
	name, err := dnsmessage.NewName(attempt.Name)
	if err != nil {
		return err.Error()
	}
	connection, failure := dial(attempt)
	if failure != "" {
		return failure
	}
	defer connection.Close()
	reply, err := dnsclient.AskOver(connection, attempt.Network, dnsmessage.Message{
		Header: dnsmessage.Header{ID: uint16(time.Now().UnixNano()), RecursionDesired: true},
		Questions: []dnsmessage.Question{
			{Name: name, Type: dnsmessage.Type(attempt.Type), Class: dnsmessage.Class(attempt.Class)},
		},
	})
	switch {
	case err != nil:
		return ended(err)
	case reply.RCode == dnsmessage.RCodeNameError:
		return "no such name"
	case reply.RCode == dnsmessage.RCodeRefused:
		return "refused"
	case reply.RCode != dnsmessage.RCodeSuccess:
		return reply.RCode.String()
	case len(reply.Answers) > 0:
		return "an answer"
	}
	return "no record"
}

// attemptConnect opens a connection.
func attemptConnect(attempt Attempt) string {
	connection, failure := dial(attempt)
	if failure != "" {
		return failure
	}
	defer connection.Close()
	return "connected"
}

// attemptTLS begins TLS. Envoy says nothing of its own in TLS but that it denies access, so anything else that comes back
// is from a host.
func attemptTLS(attempt Attempt) string {
	connection, failure := dial(attempt)
	if failure != "" {
		return failure
	}
	defer connection.Close()
	hearing := &heard{Conn: connection}
	err := tls.Client(hearing, &tls.Config{ServerName: attempt.Name, InsecureSkipVerify: true}).Handshake()
	if !deniedAccess(err) && (err == nil || hearing.anything) {
		return "a host answered"
	}
	return endedTLS(err)
}

// attemptCertificate says whose certificate there is for a name: the stack's, or another one.
func attemptCertificate(attempt Attempt) string {
	connection, failure := dial(attempt)
	if failure != "" {
		return failure
	}
	defer connection.Close()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(attempt.Roots))
	err := tls.Client(connection, &tls.Config{ServerName: attempt.Name, RootCAs: roots}).Handshake()
	var other *tls.CertificateVerificationError
	switch {
	case err == nil:
		return "a certificate of the stack"
	case errors.As(err, &other):
		return "another certificate"
	}
	return endedTLS(err)
}

// attemptRequest sends a text in TLS, and returns the status of the answer, and whose it is: a host may refuse something
// as well.
func attemptRequest(attempt Attempt) string {
	connection, failure := dial(attempt)
	if failure != "" {
		return failure
	}
	defer connection.Close()
	agent := tls.Client(connection, &tls.Config{ServerName: attempt.Name, InsecureSkipVerify: true})
	if err := agent.Handshake(); err != nil {
		return endedTLS(err)
	}
	if _, err := io.WriteString(agent, attempt.Text); err != nil {
		return ended(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(agent), nil)
	if err != nil {
		return ended(err)
	}
	defer response.Body.Close()
	text := make([]byte, len(ours))
	io.ReadFull(response.Body, text)
	if string(text) == ours {
		return fmt.Sprintf("HTTP %d of Envoy", response.StatusCode)
	}
	return fmt.Sprintf("HTTP %d of a host", response.StatusCode)
}

// ours is how everything begins that Envoy answers by itself.
const ours = "clawker-fw: "

// endedTLS says how a handshake has failed.
func endedTLS(err error) string {
	if deniedAccess(err) {
		return "access denied"
	}
	return ended(err)
}

// attemptSend sends a text, and returns the status if the answer is an HTTP response.
func attemptSend(attempt Attempt) string {
	connection, failure := dial(attempt)
	if failure != "" {
		return failure
	}
	defer connection.Close()
	if _, err := io.WriteString(connection, attempt.Text); err != nil {
		return ended(err)
	}
	reader := bufio.NewReader(connection)
	if _, err := reader.Peek(1); err != nil {
		return ended(err)
	}
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		return "a host answered"
	}
	response.Body.Close()
	return fmt.Sprintf("HTTP %d", response.StatusCode)
}

// attemptDatagram sends a datagram and waits for an answer.
func attemptDatagram(attempt Attempt) string {
	connection, failure := dial(attempt)
	if failure != "" {
		return failure
	}
	defer connection.Close()
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
		var failure syscall.Errno
		if errors.As(err, &failure) {
			return failure.Error()
		}
		return err.Error()
	}
	syscall.Close(descriptor)
	return "a socket"
}

// attemptGateway makes the kernel look for each gateway of the agent's routes, and says whether one is there. Without a
// neighbour that answers ARP for it, no packet leaves the network, whatever its destination is.
func attemptGateway(Attempt) string {
	routes, err := os.ReadFile("/proc/net/route")
	if err != nil {
		return reason(err)
	}
	gateways := gatewaysIn(string(routes))
	for _, each := range gateways {
		if connection, err := net.Dial("udp", net.JoinHostPort(each, "9")); err == nil {
			connection.Write([]byte("x"))
			defer connection.Close()
		}
	}
	time.Sleep(arpWithin)
	neighbours, err := os.ReadFile("/proc/net/arp")
	if err != nil {
		return reason(err)
	}
	for _, each := range gateways {
		if answersIn(string(neighbours), each) {
			return "a gateway answers: " + each
		}
	}
	return "no gateway answers"
}

// arpWithin is longer than the kernel takes to ask three times for a neighbour.
const arpWithin = 4 * time.Second

// gatewaysIn returns the gateways in /proc/net/route, where an address is a hexadecimal number in the machine's order.
func gatewaysIn(routes string) []string {
	var found []string
	for _, line := range strings.Split(routes, "\n")[1:] {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		number, err := strconv.ParseUint(fields[2], 16, 32)
		if err != nil || number == 0 {
			continue
		}
		var address [4]byte
		binary.NativeEndian.PutUint32(address[:], uint32(number))
		found = append(found, netip.AddrFrom4(address).String())
	}
	return found
}

// answersIn says whether /proc/net/arp has the hardware address of a neighbour.
func answersIn(neighbours, address string) bool {
	for _, line := range strings.Split(neighbours, "\n") {
		fields := strings.Fields(line)
		if len(fields) > 3 && fields[0] == address {
			flags, _ := strconv.ParseUint(fields[2], 0, 32)
			return flags&complete != 0
		}
	}
	return false
}

// complete is the flag ATF_COM of /proc/net/arp.
const complete = 2

// ended says that a connection was ended without an answer, however that was done.
func ended(err error) string {
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return "closed without an answer"
	}
	return silentEnd(err)
}
