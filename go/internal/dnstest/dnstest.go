// Package dnstest serves DNS for tests.
package dnstest

import (
	"encoding/binary"
	"net"
	"testing"

	"github.com/miekg/dns"

	"clawker-fw/internal/must"
	"clawker-fw/internal/nettest"
)

// Replies maps a query to the bytes of its answer, which are sent unless there are none.
type Replies func(query *dns.Msg) []byte

// ServeDNS answers every query on a port of its own, over UDP or TCP, until the test ends.
func ServeDNS(t *testing.T, network string, reply Replies) string {
	t.Helper()
	if network == "tcp" {
		return nettest.ServeAt(t, "tcp", "127.0.0.1:0", func(connection net.Conn) {
			if query, err := (&dns.Conn{Conn: connection}).ReadMsg(); err != nil {
				t.Errorf("a query that is none: %v", err)
			} else {
				connection.Write(reply(query))
			}
		}).String()
	}
	socket := must.Open[net.PacketConn](t)(net.ListenPacket("udp", "127.0.0.1:0"))
	go func() {
		buffer := make([]byte, 1232)
		for {
			size, from, err := socket.ReadFrom(buffer)
			if err != nil {
				return
			}
			query := new(dns.Msg)
			if err := query.Unpack(buffer[:size]); err != nil {
				t.Errorf("a query that is none: %v", err)
			}
			if answer := reply(query); answer != nil {
				socket.WriteTo(answer, from)
			}
		}
	}()
	return socket.LocalAddr().String()
}

// Answered returns the answer to a query with a response code, for a network.
func Answered(network string, query *dns.Msg, code int) []byte {
	reply := new(dns.Msg).SetRcode(query, code)
	reply.Authoritative = true
	packed, err := reply.Pack()
	if err != nil {
		panic(err)
	}
	if network == "tcp" {
		packed = append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...)
	}
	return packed
}

// Answering answers every query with a code.
func Answering(network string, code int) Replies {
	return func(query *dns.Msg) []byte { return Answered(network, query, code) }
}

// Refusing answers every query with the code of a name that does not exist.
func Refusing(network string) Replies { return Answering(network, dns.RcodeNameError) }
