package attempts

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/serving"
	"clawker-fw/internal/users"
)

// An attempt: what happens to an agent that wants to use a name. CoreDNS's container is on the agent network, so it
// can do the same steps as an agent.

// speakWithin is enough for Envoy to look up a name and to give up on a host that does not answer, and waitWithin how long a
// connection must stay open on which nobody speaks.
const speakWithin, waitWithin = 20 * time.Second, 3 * time.Second

// Trial is the output of try: the steps until one fails.
type Trial struct {
	Steps []Step `json:"steps"`
}

// Step is one step of an attempt. Source is our own address and port, by which the siblings' records can be found.
type Step struct {
	Name    string  `json:"step"` // resolve, connect, and handshake, request, wait or datagram
	Source  string  `json:"source"`
	Seconds float64 `json:"seconds"`
	OK      bool    `json:"ok"`
	Status  int     `json:"status"`  // of the HTTP response, or 0
	Outcome string  `json:"outcome"` // in words
}

// Try resolves a name at the service address, connects to the answer, and waits for anything that the host says. With a
// method and a path, it makes this request in TLS.
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

// speaker is what an agent does on a connection, in a step with a name: within this time, in which a host must have answered that
// answers at all.
type speaker struct {
	step    string
	perform func(Attempt, net.Conn) said
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
	network, usual, made := "tcp", uint16(80), Trial{}
	switch protocol {
	case "udp":
		network = protocol
	case "https":
		usual = 443
	}
	attempt := Attempt{Name: name}
	if speak.step == "request" {
		attempt.Text = fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: clawker-fw\r\nConnection: close\r\n\r\n",
			request[0], request[1], hostHeader(name, port, usual))
	}
	var address netip.Addr
	begun := time.Now()
	asking, err := dial("udp", resolver.String(), serving.AnswerLimit, serving.AnswerLimit)
	if !made.add("resolve", begun, asking, err, func() said {
		answer, found := ask(asking, dns.Question{Name: name + ".", Qtype: dns.TypeA, Qclass: dns.ClassINET})
		if record, is := answer.(*dns.A); is {
			address, _ = netip.AddrFromSlice(record.A.To4())
			found.words = address.String()
		}
		found.ok = address.IsValid()
		return found
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
	if !made.add("connect", begun, connection, err, func() said { return said{ok: true, words: place} }) {
		return made
	}
	defer connection.Close()
	made.add(speak.step, time.Now(), connection, nil, func() said { return speak.perform(attempt, connection) })
	return made
}

// add performs a step on a connection, if there is one, and reports whether it has succeeded.
func (t *Trial) add(name string, begun time.Time, connection net.Conn, err error, perform func() said) bool {
	step := Step{Name: name}
	if err != nil {
		step.Outcome = reason(err)
	} else {
		found := perform()
		step.Source, step.OK, step.Status, step.Outcome = connection.LocalAddr().String(), found.ok, found.status, found.words
	}
	step.Seconds = time.Since(begun).Seconds()
	t.Steps = append(t.Steps, step)
	return step.OK
}

// isRequestLine reports whether a method and a path can stand in a request without becoming anything else.
func isRequestLine(words []string) bool {
	return !slices.ContainsFunc(words, func(word string) bool {
		return word == "" || strings.ContainsFunc(word, func(each rune) bool { return each <= ' ' || each >= 0x7f })
	})
}

func hostHeader(name string, port, usual uint16) string {
	if port == usual {
		return name
	}
	return net.JoinHostPort(name, strconv.Itoa(int(port)))
}

// attemptWait sends nothing: many hosts speak first, and others are silent. Envoy ends a connection that leads nowhere.
func attemptWait(_ Attempt, connection net.Conn) said {
	size, err := connection.Read(make([]byte, 1))
	switch {
	case size > 0:
		return said{ok: true, words: hostAnswered}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return said{ok: true, words: "still open"}
	}
	return failed(err)
}

// lookupLimit is how long Envoy waits for the addresses of a name as well.
const lookupLimit = 5 * time.Second

// Lookup is the output of lookup: the IPv4 addresses of a name as this container's resolver answers now.
type Lookup struct {
	Addresses []Looked `json:"addresses"`
	Error     string   `json:"error"` // why there is none, or ""
}

// Looked is an address, and the sources that have no route to it, by the names of their tables.
type Looked struct {
	Address netip.Addr `json:"address"`
	Closed  []string   `json:"closed"`
}

// Resolve resolves a name like Envoy, which uses IPv4 alone and no search domains, and asks the kernel from which of the
// sources each address can be reached.
func Resolve(tables []boot.Table, resolver *net.Resolver, name string) (Lookup, error) {
	found := Lookup{Addresses: []Looked{}}
	limited, cancel := context.WithTimeout(context.Background(), lookupLimit)
	defer cancel()
	addresses, err := addressesOf(limited, resolver, name)
	if err != nil {
		found.Error = whyUnknown(err)
		return found, nil
	}
	slices.SortFunc(addresses, netip.Addr.Compare)
	for _, address := range slices.Compact(addresses) {
		closed, err := closedTo(tables, address.Unmap())
		if err != nil {
			return found, err
		}
		found.Addresses = append(found.Addresses, Looked{address.Unmap(), closed})
	}
	return found, nil
}

func addressesOf(limited context.Context, resolver *net.Resolver, name string) ([]netip.Addr, error) {
	if address, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{address}, nil
	}
	return resolver.LookupNetIP(limited, "ip4", name+".")
}

// whyUnknown returns the reason without the resolver's address, which says nothing to anybody outside.
func whyUnknown(err error) string {
	failure, is := errors.AsType[*net.DNSError](err)
	if !is || failure.IsTimeout {
		return reason(err)
	}
	if failure.IsNotFound {
		return "no such name, or none with an IPv4 address"
	}
	return failure.Err
}

// closedTo returns the names of the sources without a route to an address. The kernel decides in the same way when a
// connection from the source begins. A local route, which 0.0.0.0 always has, leads no further than this container.
func closedTo(tables []boot.Table, address netip.Addr) ([]string, error) {
	closed, user := []string{}, uint32(users.Readers) // any but root's
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
