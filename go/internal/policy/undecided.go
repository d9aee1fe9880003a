package policy

import (
	"encoding/binary"
	"io"
	"net"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/log"
	"github.com/miekg/dns"
)

// CoreDNS answers some messages before any plugin sees them: what is no query, other classes, other versions of EDNS. Its
// answers over UDP can be watched; over TCP there is no place for that, so such messages leave no line.

// watch returns what sees every answer over UDP.
func (h Handler) watch(*dnsserver.Server) dns.DecorateWriter {
	return func(client dns.Writer) dns.Writer { return watched{client, h.refusals} }
}

// watched is a client whose answers are watched.
type watched struct {
	io.Writer
	refusals *Recorder
}

// Write writes an answer, and has it on record if the policy was not asked.
func (w watched) Write(answer []byte) (int, error) {
	size, err := w.Writer.Write(answer)
	client, is := w.Writer.(interface{ RemoteAddr() net.Addr })
	if err != nil || !is || !undecided(answer) {
		return size, err
	}
	reply := new(dns.Msg)
	if reply.Unpack(answer) != nil {
		reply = new(dns.Msg) // without a question, as some of these messages
	}
	if err := w.refusals.Record(client.RemoteAddr(), reply, badRequest); err != nil {
		log.Error(plugin.Error("policy", err))
	}
	return size, nil
}

// undecided reports whether an answer was written before the policy was asked (RFC 1035, section 4.1.1). The policy answers
// what it allows with a record or an authority, refuses transfers of our class, and does not implement notifications.
func undecided(answer []byte) bool {
	const headerOctets, records = 12, 6
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
