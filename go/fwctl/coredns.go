package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// policySocket is the socket on which CoreDNS reports what is live, as set in the Corefile. No agent can reach it.
const policySocket = "/tmp/policy.sock"

// refusedName can't be allowed by any rule, because .invalid is reserved (RFC 6761).
const refusedName = "refused.clawker-fw.invalid."

const answerLimit = time.Second

// coredns asks the process over its socket what it has loaded, and checks over DNS, like an agent, that it answers.
type coredns struct{ socket, server string }

// policyStatus is the status that the policy plugin reports.
type policyStatus struct {
	Build   string `json:"build"`
	Digest  string `json:"digest"`
	Refused int    `json:"refused"`
	Reason  string `json:"reason"`
}

func (c coredns) status() (policyStatus, error) {
	var status policyStatus
	connection, err := net.DialTimeout("unix", c.socket, answerLimit)
	if err != nil {
		return status, err
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(answerLimit)); err != nil {
		return status, err
	}
	if err := json.NewDecoder(connection).Decode(&status); err != nil {
		return status, fmt.Errorf("%s: %w", c.socket, err)
	}
	return status, nil
}

func (c coredns) Build() (string, error) {
	status, err := c.status()
	return status.Build, err
}

func (c coredns) Live(resources []Resource) (map[string]string, error) {
	if err := refuses(c.server, "udp"); err != nil {
		return nil, err
	}
	status, err := c.status()
	if err != nil {
		return nil, err
	}
	live := map[string]string{}
	for _, resource := range resources {
		if resource.Hashed {
			live[resource.Name] = status.Digest
		}
	}
	return live, nil
}

func (c coredns) Versions([]Resource) (map[string]string, error) { return map[string]string{}, nil }

func (c coredns) Rejections(resources []Resource) (map[string]int, error) {
	status, err := c.status()
	if err != nil {
		return nil, err
	}
	rejections := map[string]int{}
	for _, resource := range resources {
		if resource.Hashed {
			rejections[resource.Name] = status.Refused
		}
	}
	return rejections, nil
}

func (c coredns) Reason() string {
	status, err := c.status()
	if err != nil {
		return err.Error()
	}
	return status.Reason
}

func (c coredns) Connections() (int, error) { return 0, nil }

// refuses queries a resolver over `udp` or `tcp` for the refused name, and fails unless the answer is NXDOMAIN.
func refuses(server, network string) error {
	query := dnsmessage.Message{
		Header: dnsmessage.Header{ID: uint16(time.Now().UnixNano())},
		Questions: []dnsmessage.Question{{
			Name: dnsmessage.MustNewName(refusedName), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET,
		}},
	}
	reply, err := ask(server, network, query)
	if err != nil {
		return fmt.Errorf("querying %s over %s: %w", server, network, err)
	}
	if reply.RCode != dnsmessage.RCodeNameError {
		return fmt.Errorf("querying %s over %s: %s was answered with %s", server, network, refusedName, reply.RCode)
	}
	return nil
}

func ask(server, network string, query dnsmessage.Message) (dnsmessage.Message, error) {
	connection, err := net.DialTimeout(network, server, answerLimit)
	if err != nil {
		return dnsmessage.Message{}, err
	}
	defer connection.Close()
	return askOver(connection, network, query)
}

// askOver sends a query over a connection, and returns the answer.
func askOver(connection net.Conn, network string, query dnsmessage.Message) (dnsmessage.Message, error) {
	var reply dnsmessage.Message
	packed, err := query.Pack()
	if err != nil {
		return reply, err
	}
	if err := connection.SetDeadline(time.Now().Add(answerLimit)); err != nil {
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
		size, err = readLong(connection, message)
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

// readLong reads one DNS message over TCP: two bytes with its length, then the message.
func readLong(connection io.Reader, message []byte) (int, error) {
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
