package policy

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/miekg/dns"

	"clawker-fw/internal/reason"
)

// mostWaiting limits the lines that wait for their reader. Queries never wait: further lines are only counted.
const mostWaiting = 4096

// record is one refusal, a line of JSON. Names are in presentation format, which escapes unusual bytes.
type record struct {
	Time     string `json:"time"`
	Source   string `json:"source"`
	Protocol string `json:"protocol"`
	Port     int    `json:"port"`
	Name     string `json:"name"`
	Type     string `json:"type"`
	Reason   string `json:"reason"`
}

// askedByOurselves is the name that this container queries to check that agents are refused.
const askedByOurselves = "refused.clawker-fw.invalid."

// Recorder writes refusals. Its reader, `fwctl record`, limits the lines per client.
type Recorder struct {
	out     io.Writer
	now     func() time.Time
	lines   chan []byte
	waiting sync.WaitGroup
	lost    atomic.Int64
}

func NewRecorder(out io.Writer) *Recorder {
	recorder := &Recorder{out: out, now: time.Now, lines: make(chan []byte, mostWaiting)}
	go recorder.write()
	return recorder
}

// Record queues the record of a refusal. It never waits.
func (r *Recorder) Record(source net.Addr, reply *dns.Msg, reason string) {
	question := dns.Question{Name: "."}
	if len(reply.Question) > 0 {
		question = reply.Question[0]
	}
	line, _ := json.Marshal(record{ // always possible
		Time:     r.time(),
		Source:   source.String(),
		Protocol: "dns",
		Port:     53,
		Name:     cut(strings.TrimSuffix(question.Name, ".")),
		Type:     dns.Type(question.Qtype).String(),
		Reason:   reason,
	})
	r.waiting.Add(1)
	select {
	case r.lines <- append(line, '\n'):
	default:
		r.waiting.Done()
		r.lost.Add(1)
	}
}

func (r *Recorder) time() string { return r.now().UTC().Format("2006-01-02T15:04:05.000Z") }

// write writes queued lines. Lines are lost only while others wait, so a count of lost lines always follows.
func (r *Recorder) write() {
	for line := range r.lines {
		if _, err := r.out.Write(line); err != nil {
			r.lost.Add(1)
		}
		if lost := r.lost.Swap(0); lost > 0 {
			if _, err := fmt.Fprintf(r.out, `{"source":"","suppressed":%d}`+"\n", lost); err != nil {
				r.lost.Add(lost)
			}
		}
		r.waiting.Done()
	}
}

// longestText limits the recorded bytes of a name. Escaped bytes make a name up to four times as long.
const longestText = 255

func cut(text string) string { return text[:min(len(text), longestText)] }

// AddressOf returns the IP address of a client, or the zero address.
func AddressOf(source net.Addr) netip.Addr {
	from, _ := netip.ParseAddrPort(source.String())
	return from.Addr().Unmap()
}

// isOwnCheck reports whether this container sent the query. An unreadable address isn't its own.
func isOwnCheck(source net.Addr, name string) bool {
	if name != askedByOurselves {
		return false
	}
	from := AddressOf(source)
	own, _ := net.InterfaceAddrs()
	return from.IsValid() && slices.ContainsFunc(own, func(address net.Addr) bool {
		prefix, err := netip.ParsePrefix(address.String())
		return err == nil && prefix.Addr() == from
	})
}

// CoreDNS answers some messages before any plugin: other messages than queries, other classes, other EDNS
// versions. So its answers are watched.

func (h Handler) watchUDP(*dnsserver.Server) dns.DecorateWriter {
	return func(client dns.Writer) dns.Writer { return datagram{client, h.refusals} }
}

type datagram struct {
	io.Writer
	refusals *Recorder
}

// Write writes an answer, and records it if the policy was not asked.
func (d datagram) Write(answer []byte) (int, error) {
	size, err := d.Writer.Write(answer)
	if client, ok := d.Writer.(interface{ RemoteAddr() net.Addr }); err == nil && ok {
		d.refusals.watch(client.RemoteAddr(), answer)
	}
	return size, err
}

func (r *Recorder) watch(client net.Addr, answer []byte) {
	if !undecided(answer) {
		return
	}
	reply := new(dns.Msg)
	if reply.Unpack(answer) != nil {
		reply = new(dns.Msg) // some of these messages have no question
	}
	r.Record(client, reply, reason.BadRequest)
}

// headerSize is the size of a message's header (RFC 1035, section 4.1.1).
const headerSize = 12

// undecided reports whether an answer was written without the policy (RFC 1035, section 4.1.1). The policy answers
// allowed queries with a record or an authority, and refuses only transfers of class IN.
func undecided(answer []byte) bool {
	const records = 6
	if len(answer) < headerSize {
		return false
	}
	operation, code := int(answer[2]>>3&15), int(answer[3]&15)
	switch code {
	case dns.RcodeSuccess: // another version: the OPT record has the rest of its code (RFC 6891, section 6.1.3)
		truncated := answer[2]&2 != 0
		return binary.BigEndian.Uint32(answer[records:]) == 0 && !truncated
	case dns.RcodeFormatError, dns.RcodeServerFailure:
		return true
	case dns.RcodeNotImplemented:
		return operation != dns.OpcodeNotify
	case dns.RcodeRefused:
		_, end, err := dns.UnpackDomainName(answer, headerSize)
		const class = 2
		return err == nil && len(answer) >= end+2*class && binary.BigEndian.Uint16(answer[end+class:]) != dns.ClassINET
	}
	return false
}

// lengthSize is the size of the length before each TCP message (RFC 1035, section 4.2.2).
const lengthSize = 2

func (h Handler) watchTCP(listener net.Listener) net.Listener { return streams{listener, h.refusals} }

type streams struct {
	net.Listener
	refusals *Recorder
}

func (s streams) Accept() (net.Conn, error) {
	connection, err := s.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &stream{Conn: connection, refusals: s.refusals}, nil
}

// stream is a TCP client. CoreDNS reads and writes it in one goroutine, each answer with its length at once.
type stream struct {
	net.Conn
	refusals *Recorder

	// The current message.
	read   int // bytes, including its length
	length int
	answer bool // the message is marked as an answer

	ignored bool // CoreDNS ignored the last message
}

// Read reads from the client. A message that CoreDNS ignores is recorded and ends the connection: more of them
// would cost the client less than their records cost us.
func (s *stream) Read(into []byte) (int, error) {
	if s.ignored {
		return 0, io.EOF
	}
	size, err := s.Conn.Read(into)
	for _, part := range into[:size] {
		if s.take(part) && (s.length < headerSize || s.answer) {
			s.ignored = true
			s.refusals.Record(s.RemoteAddr(), new(dns.Msg), reason.BadRequest)
		}
	}
	return size, err
}

func (s *stream) take(part byte) bool {
	const flags = lengthSize + 2
	switch s.read {
	case 0:
		s.length, s.answer = int(part)<<8, false
	case 1:
		s.length |= int(part)
	case flags:
		s.answer = part&0x80 != 0
	}
	s.read++
	if s.read < lengthSize+s.length || s.read < lengthSize {
		return false
	}
	s.read = 0
	return true
}

// Write writes an answer, and records it if the policy was not asked, even if the client doesn't wait.
func (s *stream) Write(answer []byte) (int, error) {
	s.refusals.watch(s.RemoteAddr(), answer[lengthSize:])
	return s.Conn.Write(answer)
}

// Close closes the connection, and records an incomplete last message.
func (s *stream) Close() error {
	if s.read > 0 {
		s.refusals.Record(s.RemoteAddr(), new(dns.Msg), reason.BadRequest)
	}
	return s.Conn.Close()
}
