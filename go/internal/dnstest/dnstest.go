// Package dnstest serves DNS for tests.
package dnstest

import (
	"encoding/binary"
	"io"
	"net"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"clawker-fw/internal/must"
	"clawker-fw/internal/nettest"
)

// Replies maps a query to the bytes of its answer, in any number of pieces.
type Replies func(query dnsmessage.Message) [][]byte

// ServeDNS answers every query on a port of its own, over UDP or TCP, until the test ends.
func ServeDNS(t *testing.T, network string, reply Replies) string {
	t.Helper()
	if network == "udp" {
		return serveUDP(t, reply)
	}
	return nettest.ServeAt(t, "tcp", "127.0.0.1:0", func(connection net.Conn) {
		var length [2]byte
		io.ReadFull(connection, length[:])
		packed := make([]byte, binary.BigEndian.Uint16(length[:]))
		io.ReadFull(connection, packed)
		for _, piece := range reply(unpack(t, packed)) {
			connection.Write(piece)
		}
	}).String()
}

func serveUDP(t *testing.T, reply Replies) string {
	t.Helper()
	socket := must.Open[net.PacketConn](t)(net.ListenPacket("udp", "127.0.0.1:0"))
	go func() {
		buffer := make([]byte, 1232)
		for {
			size, from, err := socket.ReadFrom(buffer)
			if err != nil {
				return
			}
			for _, piece := range reply(unpack(t, buffer[:size])) {
				socket.WriteTo(piece, from)
			}
		}
	}()
	return socket.LocalAddr().String()
}

func unpack(t *testing.T, packed []byte) dnsmessage.Message {
	var query dnsmessage.Message
	if err := query.Unpack(packed); err != nil {
		t.Errorf("a query that is none: %v", err)
	}
	return query
}

// Answered returns the answer to a query with a response code, for a network.
func Answered(network string, query dnsmessage.Message, code dnsmessage.RCode) []byte {
	reply := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: query.ID, Response: true, Authoritative: true, RCode: code},
		Questions: query.Questions,
	}
	packed, err := reply.Pack()
	if err != nil {
		panic(err)
	}
	if network == "tcp" {
		packed = append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...)
	}
	return packed
}

// Refusing answers every query with the code of a name that does not exist.
func Refusing(network string) Replies {
	return func(query dnsmessage.Message) [][]byte {
		return [][]byte{Answered(network, query, dnsmessage.RCodeNameError)}
	}
}
