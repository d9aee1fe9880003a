// The verb resolve: one DNS query and what came back, unprocessed.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const resolvConf = "/etc/resolv.conf"

// resolveResult is the printed answer. Answers hold the data of each record in presentation format.
type resolveResult struct {
	Rcode        string   `json:"rcode"` // empty without an answer
	Answers      []string `json:"answers"`
	Milliseconds float64  `json:"ms"`
	Error        *failure `json:"error"`
}

func declareResolve(flags *flag.FlagSet) action {
	typeName := flags.String("type", "A", "record type")
	className := flags.String("class", "IN", "record class")
	operation := flags.Int("opcode", dns.OpcodeQuery, "what is asked for, as a `NUMBER` (RFC 6895, section 2.2)")
	server := declareServer(flags, "server")
	tcp := flags.Bool("tcp", false, "ask over TCP")
	edns := flags.Bool("edns", false, "send an EDNS query")
	version := flags.Uint("edns-version", 0, "of this `NUMBER` (RFC 6891, section 6.1.3), with --edns")
	timeout := flags.Duration("timeout", 5*time.Second, "how long to wait for the answer")
	from := flags.String("from", "", "send from this `ADDRESS`, through its interface, over UDP")

	return func(ctx context.Context, arguments []string, out *printer) (bool, error) {
		recordType, known := dns.StringToType[*typeName]
		class, knownClass := dns.StringToClass[*className]
		if !known || !knownClass {
			return false, fmt.Errorf("there is no record type %q of class %q", *typeName, *className)
		}
		address, err := serverOrFirst(server())
		if err != nil {
			return false, err
		}
		query := new(dns.Msg).SetQuestion(dns.Fqdn(arguments[0]), recordType)
		query.Question[0].Qclass, query.Opcode = class, *operation
		if *edns {
			query.SetEdns0(dns.DefaultMsgSize, false)
			query.IsEdns0().SetVersion(uint8(*version))
		}
		client := &dns.Client{Timeout: *timeout}
		if *from != "" {
			client.Dialer = &net.Dialer{Timeout: *timeout, LocalAddr: &net.UDPAddr{IP: net.ParseIP(*from)}}
		}
		if *tcp {
			client.Net = "tcp"
		}
		result := resolve(ctx, client, query, address)
		out.print(result)
		return result.Rcode == dns.RcodeToString[dns.RcodeSuccess] && len(result.Answers) > 0, nil
	}
}

// resolve sends a query once and waits for its answer.
func resolve(ctx context.Context, client *dns.Client, query *dns.Msg, server string) resolveResult {
	begin := time.Now()
	reply, _, err := client.ExchangeContext(ctx, query, server)
	result := resolveResult{Answers: []string{}, Milliseconds: milliseconds(time.Since(begin)), Error: failureOf(err)}
	if err != nil {
		return result
	}
	result.Rcode = dns.RcodeToString[reply.Rcode]
	if reply.Rcode == dns.RcodeBadVers {
		result.Rcode = "BADVERS" // the same number as BADSIG, which is for signed messages
	}
	for _, record := range reply.Answer {
		result.Answers = append(result.Answers, strings.TrimPrefix(record.String(), record.Header().String()))
	}
	return result
}

// serverOrFirst is a DNS server as host:port, or the first of resolv.conf if there is none.
func serverOrFirst(server string) (string, error) {
	if server != "" {
		return server, nil
	}
	config, err := dns.ClientConfigFromFile(resolvConf)
	if err != nil {
		return "", err
	}
	if len(config.Servers) == 0 {
		return "", fmt.Errorf("%s names no server", resolvConf)
	}
	return net.JoinHostPort(config.Servers[0], config.Port), nil
}
