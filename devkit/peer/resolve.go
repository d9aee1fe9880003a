// The verb resolve: one DNS query and what came back, unprocessed.
package main

import (
	"context"
	"errors"
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
	Rcode          string          `json:"rcode"` // empty without an answer
	Answers        []string        `json:"answers"`
	TTL            *uint32         `json:"ttl"` // the lowest of the answers, in seconds
	Milliseconds   float64         `json:"ms"`
	Truncated      bool            `json:"truncated"`
	ExtendedErrors []extendedError `json:"extended_errors"` // RFC 8914; only asked for with --edns
	Error          *failure        `json:"error"`
}

type extendedError struct {
	Code uint16 `json:"code"`
	Text string `json:"text"`
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

	return func(ctx context.Context, positional []string, out *printer) (bool, error) {
		name, err := oneArgument(positional, "NAME")
		if err != nil {
			return false, err
		}
		recordType, known := dns.StringToType[strings.ToUpper(*typeName)]
		if !known {
			return false, usageError(fmt.Sprintf("there is no record type %q", *typeName))
		}
		class, known := dns.StringToClass[strings.ToUpper(*className)]
		if !known {
			return false, usageError(fmt.Sprintf("there is no record class %q", *className))
		}
		address := server()
		if address == "" {
			if address, err = firstNameserver(resolvConf); err != nil {
				return false, err
			}
		}
		query := new(dns.Msg).SetQuestion(dns.Fqdn(name), recordType)
		query.Question[0].Qclass, query.Opcode = class, *operation
		if *edns {
			query.SetEdns0(dns.DefaultMsgSize, false)
			query.IsEdns0().SetVersion(uint8(*version))
		}
		client := &dns.Client{Timeout: *timeout}
		if *from != "" {
			source := net.ParseIP(*from)
			if source == nil || *tcp {
				return false, usageError("--from needs an address, and UDP")
			}
			client.Dialer = &net.Dialer{Timeout: *timeout, LocalAddr: &net.UDPAddr{IP: source}}
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
	reply, err := ask(ctx, client, query, server)
	result := resolveResult{
		Answers: []string{}, ExtendedErrors: []extendedError{}, Milliseconds: milliseconds(time.Since(begin)),
	}
	if err != nil {
		err = inStage(ctx, stageDNS, err)
		result.Error = &failure{Kind: kindOfQuery(err), Text: err.Error()}
		return result
	}
	result.Rcode, result.Truncated = dns.RcodeToString[reply.Rcode], reply.Truncated
	if reply.Rcode == dns.RcodeBadVers {
		result.Rcode = "BADVERS" // the same number as BADSIG, which is for signed messages
	}
	for _, record := range reply.Answer {
		header := record.Header()
		result.Answers = append(result.Answers, strings.TrimPrefix(record.String(), header.String()))
		if result.TTL == nil || header.Ttl < *result.TTL {
			result.TTL = &header.Ttl
		}
	}
	if extension := reply.IsEdns0(); extension != nil {
		for _, option := range extension.Option {
			if ede, ok := option.(*dns.EDNS0_EDE); ok {
				result.ExtendedErrors = append(result.ExtendedErrors, extendedError{ede.InfoCode, ede.ExtraText})
			}
		}
	}
	return result
}

// ask is one exchange, ended early by ctx, to which the client itself listens only while it connects.
func ask(ctx context.Context, client *dns.Client, query *dns.Msg, server string) (*dns.Msg, error) {
	conn, err := client.DialContext(ctx, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	reply, _, err := client.ExchangeWithConnContext(ctx, query, conn)
	return reply, err
}

// kindOfQuery tells apart what keeps a query from reaching the server; a lookup, which has no server of its own to
// speak of, calls all of that dns-other.
func kindOfQuery(err error) string {
	var operation *net.OpError
	if !errors.As(err, &operation) || isTimeout(err) {
		return kindOf(err)
	}
	if kind := kindOfConnect(err); kind != kindConnectOther {
		return kind
	}
	return kindOf(err)
}

// firstNameserver is the first server of a resolv.conf, as host:port.
func firstNameserver(path string) (string, error) {
	config, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return "", err
	}
	if len(config.Servers) == 0 {
		return "", fmt.Errorf("%s names no server", path)
	}
	return net.JoinHostPort(config.Servers[0], config.Port), nil
}
