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

// speakWithin is enough for Envoy to look up a name and to give up on a host that does not answer.
const speakWithin = 20 * time.Second

// waitWithin is how long a connection must stay open on which nobody speaks.
var waitWithin = 3 * time.Second

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
	if asked := arguments[3:]; len(asked) > 0 {
		if len(asked) != 2 || protocol != "https" || !isRequestLine(asked) {
			return Trial{}, fmt.Errorf("try needs `https` for a request, and a method and a path")
		}
		speak = requesting(asked[0], asked[1])
	}
	port, err := strconv.ParseUint(arguments[2], 10, 16)
	if err != nil {
		return Trial{}, fmt.Errorf("not a port: %q", arguments[2])
	}
	if sibling.Service == nil {
		return Trial{}, errors.New("only CoreDNS's container can try what agents can")
	}
	return tryAt(netip.AddrPortFrom(sibling.Service.Address, 53), name, protocol, uint16(port), speak), nil
}

type speaker func(connection net.Conn, name string, port uint16) Step

var speakers = map[string]speaker{
	"https": beginTLS, "http": requestHead, "tcp": waitForIt, "udp": sendNothing,
}

func tryAt(resolver netip.AddrPort, name, protocol string, port uint16, speak speaker) Trial {
	var steps []Step
	address, step := timed(func() (netip.Addr, Step) { return resolve(resolver.String(), name) })
	if steps = append(steps, step); !step.OK {
		return Trial{steps}
	}
	network := "tcp"
	if protocol == "udp" {
		network = protocol
	}
	connection, step := timed(func() (net.Conn, Step) { return reach(network, netip.AddrPortFrom(address, port)) })
	if steps = append(steps, step); !step.OK {
		return Trial{steps}
	}
	defer connection.Close()
	_, step = timed(func() (struct{}, Step) { return struct{}{}, speak(connection, name, port) })
	step.Source = connection.LocalAddr().String()
	return Trial{append(steps, step)}
}

func timed[T any](perform func() (T, Step)) (T, Step) {
	begin := time.Now()
	result, step := perform()
	step.Seconds = time.Since(begin).Seconds()
	return result, step
}

func resolve(server, name string) (netip.Addr, Step) {
	step := Step{Name: "resolve"}
	none := netip.Addr{}
	connection, err := dial("udp", server, serving.AnswerLimit, serving.AnswerLimit)
	if err != nil {
		step.Outcome = reason(err)
		return none, step
	}
	defer connection.Close()
	step.Source = connection.LocalAddr().String()
	reply, err := askOver(connection, new(dns.Msg).SetQuestion(name+".", dns.TypeA))
	if err != nil {
		step.Outcome = fmt.Sprintf("%s: %s", server, reason(err))
		return none, step
	}
	for _, answer := range reply.Answer {
		if record, ok := answer.(*dns.A); ok {
			address, _ := netip.AddrFromSlice(record.A.To4())
			step.OK, step.Outcome = true, address.String()
			return address, step
		}
	}
	step.Outcome = "no address"
	if reply.Rcode == dns.RcodeNameError {
		step.Outcome = "no such name"
	} else if reply.Rcode != dns.RcodeSuccess {
		step.Outcome = "the resolver's answer is " + dns.RcodeToString[reply.Rcode]
	}
	return none, step
}

func reach(network string, place netip.AddrPort) (net.Conn, Step) {
	step := Step{Name: "connect"}
	connection, err := dial(network, place.String(), answerTimeout, speakWithin)
	if err != nil {
		step.Outcome = fmt.Sprintf("%s: %s", place, reason(err))
		return nil, step
	}
	step.OK, step.Outcome, step.Source = true, place.String(), connection.LocalAddr().String()
	return connection, step
}

// beginTLS begins TLS with the server name, and sends nothing afterwards.
func beginTLS(connection net.Conn, name string, _ uint16) Step {
	_, answered, err := shakeHands(connection, unverified(name))
	step := Step{Name: "handshake", OK: answered}
	switch {
	case err == nil:
		step.Outcome = "completed"
	case answered:
		step.Outcome = "the host answered: " + reason(err)
	default:
		step.Outcome = ended(err)
	}
	return step
}

// requestHead sends one request without a body. Envoy's own refusals are responses as well: they have a record.
func requestHead(connection net.Conn, name string, port uint16) Step {
	return request(connection, http.MethodHead, "/", hostHeader(name, port, 80))
}

// requesting returns what makes a request in TLS that Envoy looks into, and reads the status of the answer. Envoy ends TLS
// with a certificate of its own, and whose it is does not matter here.
func requesting(method, target string) speaker {
	return func(connection net.Conn, name string, port uint16) Step {
		secure, _, err := shakeHands(connection, unverified(name))
		if err != nil {
			return Step{Name: "handshake", Outcome: ended(err)}
		}
		return request(secure, method, target, hostHeader(name, port, 443))
	}
}

// isRequestLine reports whether a method and a path can stand in a request without becoming anything else.
func isRequestLine(words []string) bool {
	return !slices.ContainsFunc(words, func(word string) bool {
		return word == "" || strings.ContainsFunc(word, func(each rune) bool { return each <= ' ' || each >= 0x7f })
	})
}

// hostHeader returns what a request says of its host: without the port if that is the usual one.
func hostHeader(name string, port, usual uint16) string {
	if port == usual {
		return name
	}
	return net.JoinHostPort(name, strconv.Itoa(int(port)))
}

func request(connection net.Conn, method, target, host string) Step {
	step := Step{Name: "request"}
	response, err := exchange(connection, method,
		fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: clawker-fw\r\nConnection: close\r\n\r\n", method, target, host))
	if err != nil {
		step.Outcome = ended(err)
		return step
	}
	response.Body.Close()
	step.OK, step.Status, step.Outcome = true, response.StatusCode, "HTTP "+strconv.Itoa(response.StatusCode)
	return step
}

// waitForIt sends nothing: many hosts speak first, and others are silent. Envoy ends a connection that leads nowhere.
func waitForIt(connection net.Conn, _ string, _ uint16) Step {
	step := Step{Name: "wait"}
	if err := connection.SetReadDeadline(time.Now().Add(waitWithin)); err != nil {
		step.Outcome = reason(err)
		return step
	}
	size, err := connection.Read(make([]byte, 1))
	switch {
	case size > 0:
		step.OK, step.Outcome = true, "the host spoke first"
	case errors.Is(err, os.ErrDeadlineExceeded):
		step.OK, step.Outcome = true, fmt.Sprintf("still open after %s", waitWithin)
	default:
		step.Outcome = ended(err)
	}
	return step
}

// sendNothing sends a datagram without content, which few hosts answer. Nobody answers for a host, so an answer is from
// it. An error is the kernel's of Envoy's container: no rule's listener is there.
func sendNothing(connection net.Conn, _ string, _ uint16) Step {
	step := Step{Name: "datagram"}
	_, err := connection.Write(nil)
	if err == nil {
		err = connection.SetReadDeadline(time.Now().Add(waitWithin))
	}
	if err == nil {
		_, err = connection.Read(make([]byte, 1))
	}
	switch {
	case err == nil:
		step.OK, step.Outcome = true, "the host answered"
	case errors.Is(err, os.ErrDeadlineExceeded):
		step.OK, step.Outcome = true, fmt.Sprintf("neither answered nor refused after %s", waitWithin)
	default:
		step.Outcome = reason(err)
	}
	return step
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
	var failure *net.DNSError
	if !errors.As(err, &failure) || failure.IsTimeout {
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
