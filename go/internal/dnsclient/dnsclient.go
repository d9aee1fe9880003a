// Package dnsclient asks DNS servers, over UDP and TCP.
package dnsclient

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// AnswerLimit is how long an answer may take.
const AnswerLimit = time.Second

// Ask sends a query to a server over `udp` or `tcp`, and returns the answer.
func Ask(server, network string, query dnsmessage.Message) (dnsmessage.Message, error) {
	connection, err := net.DialTimeout(network, server, AnswerLimit)
	if err != nil {
		return dnsmessage.Message{}, err
	}
	defer connection.Close()
	return AskOver(connection, network, query)
}

// AskOver sends a query over a connection, and returns the answer.
func AskOver(connection net.Conn, network string, query dnsmessage.Message) (dnsmessage.Message, error) {
	var reply dnsmessage.Message
	packed, err := query.Pack()
	if err != nil {
		return reply, err
	}
	if err := connection.SetDeadline(time.Now().Add(AnswerLimit)); err != nil {
		return reply, err
	}
	if network == "tcp" {
		packed = append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...) // RFC 1035, section 4.2.2
	}
	if _, err := connection.Write(packed); err != nil {
		return reply, err
	}
	message := make([]byte, 1232)
	size := 0
	if network == "tcp" {
		size, err = ReadLong(connection, message)
	} else {
		size, err = connection.Read(message)
	}
	if err != nil {
		return reply, err
	}
	if err := reply.Unpack(message[:size]); err != nil {
		return reply, err
	}
	if reply.ID != query.ID {
		return reply, errors.New("the answer has another query's id")
	}
	return reply, nil
}

// ReadLong reads one DNS message over TCP: two bytes with its length, then the message.
func ReadLong(connection io.Reader, message []byte) (int, error) {
	var length [2]byte
	if _, err := io.ReadFull(connection, length[:]); err != nil {
		return 0, err
	}
	size := int(binary.BigEndian.Uint16(length[:]))
	if size > len(message) {
		return 0, fmt.Errorf("the answer is too long: %d bytes", size)
	}
	return io.ReadFull(connection, message[:size])
}

// Long returns a message as TCP carries it (RFC 1035, section 4.2.2).
func Long(message []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...)
}
