package policy

import (
	"encoding/json"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// mostWaiting is how many lines may wait for whoever reads them. Queries never wait for that: further lines are only counted.
const mostWaiting = 4096

// record is one refusal, a line of JSON. Names are in presentation format, in which every odd octet is escaped.
type record struct {
	Time     string `json:"time"`
	Source   string `json:"source"`
	Protocol string `json:"protocol"`
	Port     int    `json:"port"`
	Name     string `json:"name"`
	Type     string `json:"type"`
	Reason   string `json:"reason"`
}

// loss is the line that tells of refusals that were only counted, of nobody knows whom.
type loss struct {
	Source     string `json:"source"`
	Suppressed int64  `json:"suppressed"`
	Time       string `json:"time"`
}

// askedByOurselves is the name that the container asks itself for, to see that agents are refused.
const askedByOurselves = "refused.clawker-fw.invalid."

// Recorder writes refusals down. How many lines a client may cause is for the one to decide who reads them: `fwctl record`.
type Recorder struct {
	out     io.Writer
	now     func() time.Time
	lines   chan []byte
	waiting sync.WaitGroup
	lost    atomic.Int64
}

// NewRecorder returns a recorder that writes lines to out, one after the other.
func NewRecorder(out io.Writer) *Recorder {
	recorder := &Recorder{out: out, now: time.Now, lines: make(chan []byte, mostWaiting)}
	go recorder.write()
	return recorder
}

// Record has written down which client was refused what, and why. It never waits.
func (r *Recorder) Record(source net.Addr, reply *dns.Msg, reason string) error {
	question := dns.Question{Name: "."}
	if len(reply.Question) > 0 {
		question = reply.Question[0]
	}
	line, err := json.Marshal(record{
		Time:     r.time(),
		Source:   source.String(),
		Protocol: "dns",
		Port:     53,
		Name:     cut(strings.TrimSuffix(question.Name, ".")),
		Type:     dns.Type(question.Qtype).String(),
		Reason:   reason,
	})
	if err != nil {
		return err
	}
	r.waiting.Add(1)
	select {
	case r.lines <- append(line, '\n'):
	default:
		r.waiting.Done()
		r.lost.Add(1)
	}
	return nil
}

func (r *Recorder) time() string { return r.now().UTC().Format("2006-01-02T15:04:05.000Z") }

// write writes what is waiting. Lines are lost only while others wait, so what was lost is always told after these.
func (r *Recorder) write() {
	for line := range r.lines {
		if _, err := r.out.Write(line); err != nil {
			r.lost.Add(1)
		}
		if lost := r.lost.Swap(0); lost > 0 {
			r.tell(lost)
		}
		r.waiting.Done()
	}
}

func (r *Recorder) tell(lost int64) {
	line, err := json.Marshal(loss{Suppressed: lost, Time: r.time()})
	if err == nil {
		_, err = r.out.Write(append(line, '\n'))
	}
	if err != nil {
		r.lost.Add(lost)
	}
}

// longestText is how many octets of a name are written down. Escaped octets make a name up to four times as long.
const longestText = 255

func cut(text string) string { return text[:min(len(text), longestText)] }

// AddressOf returns the IP address of a client, or the zero address when there is none.
func AddressOf(source net.Addr) netip.Addr {
	from, err := netip.ParseAddrPort(source.String())
	if err != nil {
		return netip.Addr{}
	}
	return from.Addr().Unmap()
}

func isOwnCheck(source net.Addr, name string) bool { return name == askedByOurselves && isOwn(source) }

// isOwn reports whether an address belongs to this container. An address that can't be checked does not.
func isOwn(source net.Addr) bool {
	own, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	from := AddressOf(source)
	return from.IsValid() && slices.ContainsFunc(own, func(each net.Addr) bool {
		prefix, err := netip.ParsePrefix(each.String())
		return err == nil && prefix.Addr() == from
	})
}
