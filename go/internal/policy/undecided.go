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

// watchUDP returns what sees every answer over UDP.
func (h Handler) watchUDP(*dnsserver.Server) dns.DecorateWriter {
	return func(client dns.Writer) dns.Writer { return datagram{client, h.refusals} }
}

// datagram is a client over UDP whose answer is watched.
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

// watch has an answer on record that was written before the policy was asked.
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
