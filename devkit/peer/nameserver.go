// The verb dns: an authoritative server that stands in for the world's DNS.
package main

import (
	"context"
	"flag"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// answerTTL is in seconds: what a test changes must be seen soon.
var answerTTL uint

// zone maps names, lower case and fully qualified, to their records. "*.x." stands for every name below x. that is
// not in the map itself, at any depth; the longest wildcard wins.
type zone map[string]*records

// records are what a name has: the name that it is an alias of, or lists of addresses, each of which is the answer to
// one query and then again the first.
type records struct {
	alias string
	lists [][]netip.Addr
	next  atomic.Uint64
}

func (r *records) addresses() []netip.Addr {
	if r == nil || len(r.lists) == 0 {
		return nil
	}
	return r.lists[(r.next.Add(1)-1)%uint64(len(r.lists))]
}

// add adds "name=address[+address...][/address...],...", or "name=alias". After a slash is what the next query gets.
func (z zone) add(text string) error {
	for _, entry := range strings.Split(text, ",") {
		name, addresses, _ := strings.Cut(strings.TrimSpace(entry), "=")
		made := new(records)
		if strings.HasSuffix(addresses, ".") {
			made.alias = dns.CanonicalName(addresses)
			addresses = ""
		}
		for _, list := range strings.FieldsFunc(addresses, func(char rune) bool { return char == '/' }) {
			var together []netip.Addr
			for _, text := range strings.Split(list, "+") {
				address, err := netip.ParseAddr(text)
				if err != nil {
					return err
				}
				together = append(together, address)
			}
			made.lists = append(made.lists, together)
		}
		z[dns.CanonicalName(name)] = made
	}
	return nil
}

func (z zone) find(name string) *records {
	name = dns.CanonicalName(name)
	if found := z[name]; found != nil {
		return found
	}
	for name != "" {
		_, name, _ = strings.Cut(name, ".")
		if found := z["*."+name]; found != nil {
			return found
		}
	}
	return nil
}

// answer is the reply to a query: an A or AAAA record per address, nothing for other types, NXDOMAIN for other names. An
// alias comes with the records of what it stands for.
func (z zone) answer(query *dns.Msg) *dns.Msg {
	reply := new(dns.Msg).SetReply(query)
	reply.Authoritative = true
	if len(query.Question) != 1 || query.Opcode != dns.OpcodeQuery {
		return reply.SetRcode(query, dns.RcodeNotImplemented)
	}
	question := query.Question[0]
	found := z.find(question.Name)
	header := dns.RR_Header{Name: question.Name, Rrtype: question.Qtype, Class: dns.ClassINET, Ttl: uint32(answerTTL)}
	if found != nil && found.alias != "" {
		alias := header
		alias.Rrtype, header.Name = dns.TypeCNAME, found.alias
		reply.Answer = append(reply.Answer, &dns.CNAME{Hdr: alias, Target: found.alias})
		found = z.find(found.alias)
	}
	if found == nil {
		reply.Rcode = dns.RcodeNameError
	}
	for _, address := range found.addresses() {
		switch {
		case question.Qclass != dns.ClassINET:
		case question.Qtype == dns.TypeA && address.Is4():
			reply.Answer = append(reply.Answer, &dns.A{Hdr: header, A: address.AsSlice()})
		case question.Qtype == dns.TypeAAAA && address.Is6():
			reply.Answer = append(reply.Answer, &dns.AAAA{Hdr: header, AAAA: address.AsSlice()})
		}
	}
	if len(reply.Answer) == 0 {
		// How long a resolver may remember that there is nothing (RFC 2308).
		reply.Ns = []dns.RR{&dns.SOA{
			Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: uint32(answerTTL)},
			Ns:  "peer.", Mbox: "peer.", Serial: 1, Refresh: 60, Retry: 60, Expire: 60, Minttl: uint32(answerTTL),
		}}
	}
	if query.IsEdns0() != nil {
		reply.SetEdns0(dns.DefaultMsgSize, false)
	}
	return reply
}

// delays maps names, lower case and fully qualified, to how late they and all names below them are answered. The longest
// name wins.
type delays map[string]time.Duration

func (d delays) add(text string) error {
	name, delay, _ := strings.Cut(text, "=")
	duration, err := time.ParseDuration(delay)
	if err != nil {
		return err
	}
	d[dns.CanonicalName(name)] = duration
	return nil
}

func (d delays) of(query *dns.Msg) time.Duration {
	if len(query.Question) == 0 {
		return 0
	}
	for name := dns.CanonicalName(query.Question[0].Name); name != ""; _, name, _ = strings.Cut(name, ".") {
		if delay, found := d[name]; found {
			return delay
		}
	}
	return 0
}

func declareNameserver(flags *flag.FlagSet) action {
	zone := zone{}
	listen := flags.String("listen", ":53", "`ADDRESS:PORT` for UDP and TCP")
	flags.Func("zone", "`NAME=ADDRESS[+ADDRESS...][/...],...`, may be repeated; *.NAME is everything below NAME, `NAME=NAME.` an alias", zone.add)
	delays := delays{}
	flags.Func("slow", "`NAME=DURATION`: answer for this name and everything below it after this time; may be repeated", delays.add)
	flags.UintVar(&answerTTL, "ttl", 1, "`SECONDS` for which answers are good")
	verbose := flags.Bool("verbose", false, "print every query when it arrives")

	return func(ctx context.Context, _ []string, out *printer) (bool, error) {
		handler := dns.HandlerFunc(func(writer dns.ResponseWriter, query *dns.Msg) {
			if *verbose {
				out.print(describeQuery(writer.RemoteAddr(), query))
			}
			time.Sleep(delays.of(query))
			reply := zone.answer(query)
			if writer.RemoteAddr().Network() == "udp" {
				size := dns.MinMsgSize
				if extension := query.IsEdns0(); extension != nil {
					size = max(size, int(extension.UDPSize()))
				}
				reply.Truncate(size)
			}
			_ = writer.WriteMsg(reply)
		})
		return true, serveDNS(ctx, *listen, handler, out)
	}
}

// serveDNS serves one address over UDP and TCP until ctx is done. These are sockets of its own family alone: one for
// both does not receive IPv4 broadcasts and multicast, so 0.0.0.0 and [::] can be served beside each other.
func serveDNS(ctx context.Context, listen string, handler dns.Handler, out *printer) error {
	family := ""
	if address, err := netip.ParseAddrPort(listen); err == nil {
		family = "6"
		if address.Addr().Is4() {
			family = "4"
		}
	}
	stream, err := net.Listen("tcp"+family, listen)
	if err != nil {
		return err
	}
	packets, err := net.ListenPacket("udp"+family, listen)
	if err != nil {
		return err
	}
	ended := make(chan error, 2)
	go func() { ended <- dns.ActivateAndServe(stream, nil, handler) }()
	go func() { ended <- dns.ActivateAndServe(nil, packets, handler) }()
	out.print(event{"ready"})
	select {
	case <-ctx.Done():
		return nil
	case err := <-ended:
		return err
	}
}

type queryEvent struct {
	Event string `json:"event"`
	At    int64  `json:"at_ms"` // since 1970
	From  string `json:"from"`
	Name  string `json:"name"`
}

func describeQuery(from net.Addr, query *dns.Msg) queryEvent {
	event := queryEvent{Event: "query", At: time.Now().UnixMilli(), From: from.String()}
	if len(query.Question) > 0 {
		event.Name = query.Question[0].Name
	}
	return event
}
