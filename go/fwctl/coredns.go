package main

import (
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// versionName is the last record of the zone file: a TXT with the version, proof that the whole file was read.
const versionName = "version.clawker-fw.invalid."

const classChaos = dnsmessage.Class(3)

// coredns asks the resolver the way an agent does, over DNS.
type coredns struct{ server string }

func (c coredns) Build() (string, error) { return c.text("version.bind.", classChaos) }

func (c coredns) Versions() (map[string]string, error) {
	version, err := c.text(versionName, dnsmessage.ClassINET)
	if err != nil {
		return nil, err
	}
	return map[string]string{"zone": version}, nil
}

// Rejections is empty: a zone that CoreDNS can't read leaves no trace but a log line, and the old version.
func (c coredns) Rejections() (map[string]int, error) { return map[string]int{}, nil }

func (c coredns) Reason() string {
	return "CoreDNS still answers from the old zone; its log names the record it could not read"
}

func (c coredns) Expected(string) ([]string, error) { return []string{"zone"}, nil }

func (c coredns) Connections() (int, error) { return 0, nil }

func (c coredns) text(name string, class dnsmessage.Class) (string, error) {
	parsed, err := dnsmessage.NewName(name)
	if err != nil {
		return "", err
	}
	query := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: uint16(time.Now().UnixNano())},
		Questions: []dnsmessage.Question{{Name: parsed, Type: dnsmessage.TypeTXT, Class: class}},
	}
	packed, err := query.Pack()
	if err != nil {
		return "", err
	}
	connection, err := net.Dial("udp", c.server)
	if err != nil {
		return "", err
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return "", err
	}
	if _, err := connection.Write(packed); err != nil {
		return "", err
	}
	buffer := make([]byte, 1232)
	size, err := connection.Read(buffer)
	if err != nil {
		return "", err
	}
	var reply dnsmessage.Message
	if err := reply.Unpack(buffer[:size]); err != nil {
		return "", err
	}
	if reply.ID != query.ID {
		return "", fmt.Errorf("%s: an answer to another query", name)
	}
	for _, record := range reply.Answers {
		if body, ok := record.Body.(*dnsmessage.TXTResource); ok {
			return strings.Join(body.TXT, ""), nil
		}
	}
	return "", fmt.Errorf("%s: no TXT record (%s)", name, reply.RCode)
}
