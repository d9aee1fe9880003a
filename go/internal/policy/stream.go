package policy

import (
	"io"
	"net"

	"github.com/miekg/dns"
)

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
