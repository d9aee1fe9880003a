package policy

import (
	"encoding/binary"
	"io"
	"net"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/log"
	"github.com/miekg/dns"

	"clawker-fw/internal/reason"
)

// CoreDNS answers some messages before any plugin sees them: what is no query, other classes, other versions of EDNS. So its
// answers are watched.

func (h Handler) watchUDP(*dnsserver.Server) dns.DecorateWriter {
	return func(client dns.Writer) dns.Writer { return datagram{client, h.refusals} }
}

type datagram struct {
	io.Writer
	refusals *Recorder
}

// Write writes an answer, and has it on record if the policy was not asked.
func (d datagram) Write(answer []byte) (int, error) {
	size, err := d.Writer.Write(answer)
	if client, is := d.Writer.(interface{ RemoteAddr() net.Addr }); err == nil && is {
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
		reply = new(dns.Msg) // without a question, as some of these messages
	}
	r.recordBadRequest(client, reply)
}

func (r *Recorder) recordBadRequest(client net.Addr, reply *dns.Msg) {
	if err := r.Record(client, reply, reason.BadRequest); err != nil {
		log.Error(plugin.Error("policy", err))
	}
}

// headerOctets is the size of a message's header (RFC 1035, section 4.1.1).
const headerOctets = 12

// undecided reports whether an answer was written before the policy was asked (RFC 1035, section 4.1.1). The policy answers
// what it allows with a record or an authority, refuses transfers of our class, and does not implement notifications.
func undecided(answer []byte) bool {
	const records = 6
	if len(answer) < headerOctets {
		return false
	}
	operation, code := int(answer[2]>>3&15), int(answer[3]&15)
	switch code {
	case dns.RcodeSuccess: // of another version: the rest of its code is in the OPT record (RFC 6891, section 6.1.3)
		truncated := answer[2]&2 != 0
		return binary.BigEndian.Uint32(answer[records:]) == 0 && !truncated
	case dns.RcodeFormatError, dns.RcodeServerFailure:
		return true
	case dns.RcodeNotImplemented:
		return operation != dns.OpcodeNotify
	case dns.RcodeRefused:
		_, end, err := dns.UnpackDomainName(answer, headerOctets)
		const class = 2
		return err == nil && len(answer) >= end+2*class && binary.BigEndian.Uint16(answer[end+class:]) != dns.ClassINET
	}
	return false
}

// lengthOctets is the size of the length before each message over TCP (RFC 1035, section 4.2.2).
const lengthOctets = 2

// watchTCP returns a listener that sees every message and answer over TCP.
func (h Handler) watchTCP(listener net.Listener) net.Listener { return streams{listener, h.refusals} }

type streams struct {
	net.Listener
	refusals *Recorder
}

// Accept waits for the next client.
func (s streams) Accept() (net.Conn, error) {
	connection, err := s.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &stream{Conn: connection, refusals: s.refusals}, nil
}

// stream is a client over TCP. CoreDNS reads from it, and writes to it, in one goroutine, each answer with its length at once.
type stream struct {
	net.Conn
	refusals *Recorder

	// The message that is being read.
	read   int // octets, with those of the length
	length int
	answer bool // it says that it is one

	ignored bool // the last one, by CoreDNS
}

// Read reads what the client sends. A message that CoreDNS ignores is on record, and is the last one: others would cost the
// client less than the record costs us.
func (s *stream) Read(into []byte) (int, error) {
	if s.ignored {
		return 0, io.EOF
	}
	size, err := s.Conn.Read(into)
	for _, octet := range into[:size] {
		if s.take(octet) && (s.length < headerOctets || s.answer) {
			s.ignored = true
			s.refusals.recordBadRequest(s.RemoteAddr(), new(dns.Msg))
		}
	}
	return size, err
}

// take follows the message that is being read by one octet, and reports whether that was its last one.
func (s *stream) take(octet byte) bool {
	const flags = lengthOctets + 2
	switch s.read {
	case 0:
		s.length, s.answer = int(octet)<<8, false
	case 1:
		s.length |= int(octet)
	case flags:
		s.answer = octet&0x80 != 0
	}
	s.read++
	if s.read < lengthOctets+s.length || s.read < lengthOctets {
		return false
	}
	s.read = 0
	return true
}

// Write writes an answer, and has it on record if the policy was not asked. The client need not wait for it.
func (s *stream) Write(answer []byte) (int, error) {
	s.refusals.watch(s.RemoteAddr(), answer[lengthOctets:])
	return s.Conn.Write(answer)
}

// Close ends the connection, and has it on record if the last message has no end.
func (s *stream) Close() error {
	if s.read > 0 {
		s.refusals.recordBadRequest(s.RemoteAddr(), new(dns.Msg))
	}
	return s.Conn.Close()
}
