package policy

import (
	"encoding/json"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// The reasons of a refusal. The whole product uses the same words (docs/enforcement.md).
const (
	noRule     = "no-rule"
	denied     = "denied"
	expired    = "expired"
	badName    = "bad-name"
	badRequest = "bad-request"
)

// A client may cause linesPerSecond lines for as long as it likes, and linesAtOnce after it was quiet. Its other
// refusals are only counted, so that a flood leaves room in the log for the refusals of others.
const (
	linesPerSecond = 50
	linesAtOnce    = 200
)

// mostClients bounds the clients that are remembered. The agents' network has fewer addresses in use.
const mostClients = 4096

// record is one refusal, a line of JSON. Names are in presentation format, in which every odd octet is escaped.
type record struct {
	Time       string `json:"time"`
	Source     string `json:"source"`
	Protocol   string `json:"protocol"`
	Port       int    `json:"port"`
	Name       string `json:"name"`
	Type       string `json:"type"`
	Reason     string `json:"reason"`
	Suppressed int    `json:"suppressed,omitempty"` // refusals of the same client since its last line
}

// askedByOurselves is the name that the container asks itself for, to see that agents are refused.
const askedByOurselves = "refused.clawker-fw.invalid."

// Recorder writes refusals down, with a limit for each client.
type Recorder struct {
	out     io.Writer
	now     func() time.Time
	mutex   sync.Mutex
	clients map[netip.Addr]*client
}

// client is a token bucket: how many lines it may cause at the time of its last refusal.
type client struct {
	lines      float64
	at         time.Time
	suppressed int
}

// NewRecorder returns a recorder that writes lines to out.
func NewRecorder(out io.Writer) *Recorder {
	return &Recorder{out: out, now: time.Now, clients: map[netip.Addr]*client{}}
}

// Record writes down which client was refused what, and why.
func (r *Recorder) Record(source net.Addr, reply *dns.Msg, reason string) error {
	question := dns.Question{Name: "."}
	if len(reply.Question) > 0 {
		question = reply.Question[0]
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	now := r.now()
	from := r.client(address(source), now)
	if from.lines < 1 {
		from.suppressed++
		return nil
	}
	line := record{
		Time:       now.UTC().Format("2006-01-02T15:04:05.000Z"),
		Source:     source.String(),
		Protocol:   "dns",
		Port:       53,
		Name:       cut(strings.TrimSuffix(question.Name, ".")),
		Type:       dns.Type(question.Qtype).String(),
		Reason:     reason,
		Suppressed: from.suppressed,
	}
	from.lines--
	from.suppressed = 0
	return json.NewEncoder(r.out).Encode(line)
}

// client returns the bucket of a client, filled up to now. Clients whose buckets are full are forgotten first.
func (r *Recorder) client(source netip.Addr, now time.Time) *client {
	known := r.clients[source]
	if known == nil {
		if len(r.clients) >= mostClients {
			r.forget(now)
		}
		known = &client{lines: linesAtOnce, at: now}
		r.clients[source] = known
	}
	known.fill(now)
	return known
}

func (r *Recorder) forget(now time.Time) {
	for source, each := range r.clients {
		if each.fill(now); each.lines >= linesAtOnce {
			delete(r.clients, source)
		}
	}
	if len(r.clients) >= mostClients {
		clear(r.clients)
	}
}

// longestText is how many octets of a name are written down. Escaped octets make a name up to four times as long.
const longestText = 255

func cut(text string) string { return text[:min(len(text), longestText)] }

func (c *client) fill(now time.Time) {
	if passed := now.Sub(c.at).Seconds(); passed > 0 {
		c.lines = min(linesAtOnce, c.lines+passed*linesPerSecond)
		c.at = now
	}
}

// address returns the IP address of a client, or the zero address when there is none.
func address(source net.Addr) netip.Addr {
	from, err := netip.ParseAddrPort(source.String())
	if err != nil {
		return netip.Addr{}
	}
	return from.Addr().Unmap()
}

// isOwnCheck reports whether a query is the one by which the container checks that agents are refused.
func isOwnCheck(source net.Addr, name string) bool { return name == askedByOurselves && isOwn(source) }

// isOwn reports whether an address belongs to this container. An address that can't be checked does not.
func isOwn(source net.Addr) bool {
	own, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	from := address(source)
	return from.IsValid() && slices.ContainsFunc(own, func(each net.Addr) bool {
		prefix, err := netip.ParsePrefix(each.String())
		return err == nil && prefix.Addr() == from
	})
}
