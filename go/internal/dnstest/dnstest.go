// Package dnstest serves DNS for tests.
package dnstest

import (
	"net"
	"testing"

	"github.com/miekg/dns"

	"clawker-fw/internal/must"
)

// ServeDNS answers every query on a port of its own, over UDP or TCP, until the test ends.
func ServeDNS(t *testing.T, network string, reply dns.HandlerFunc) string {
	t.Helper()
	server := &dns.Server{Net: network, Handler: reply}
	address := ""
	if network == "tcp" {
		server.Listener = must.Open[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
		address = server.Listener.Addr().String()
	} else {
		server.PacketConn = must.Open[net.PacketConn](t)(net.ListenPacket("udp", "127.0.0.1:0"))
		address = server.PacketConn.LocalAddr().String()
	}
	go func() { _ = server.ActivateAndServe() }()
	return address
}

// Answering answers every query with a code.
func Answering(code int) dns.HandlerFunc {
	return func(writer dns.ResponseWriter, query *dns.Msg) {
		reply := new(dns.Msg).SetRcode(query, code)
		reply.Authoritative = true
		_ = writer.WriteMsg(reply)
	}
}

// Refusing answers every query with the code of a name that does not exist.
var Refusing = Answering(dns.RcodeNameError)
