// Package lookups is `fwctl forward`, an unprivileged process beside Envoy: Envoy's name server. It asks the
// engine's resolver and, unlike Envoy, limits concurrent lookups and gives up in time, so that slow or silent
// servers delay only their own names.
//
// Envoy adds a label to each name, with the share that the lookup belongs to: the last number of the agent's
// address (clawker_fw/stack/envoy/lookups.py). Lookups of one share below one rule wait only for each other. New
// names per share are limited, because Envoy's main thread iterates over all its names for each new one.
package lookups

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/miekg/dns"

	"clawker-fw/internal/hostname"
	"clawker-fw/internal/hotfile"
	"clawker-fw/internal/statussocket"
)

const (
	// resolverQueries is the engine's limit of concurrent queries per container (its maxConcurrent).
	resolverQueries = 1024

	// Unanswered queries are repeated, because packets get lost. The engine's resolver waits for 4 s (its
	// extIOTimeout), so all queries for a silent name occupy it at the same time.
	queriesOfALookup = 3
	resolverPatience = 4 * time.Second

	// Concurrent lookups: of a share, and of its lookups below one rule, or of exact names in one domain. A share
	// never takes more than it leaves to others, and together they fit into the engine's resolver.
	lookupsOfAShare = 40
	lookupsOfARule  = 12
	mostLookups     = resolverQueries / queriesOfALookup

	// mostWaiting further lookups of a share wait, for up to waitTime, as many as an agent's default connections.
	mostWaiting = 1024
	waitTime    = 4 * time.Second

	// New names of a share. Names that Envoy knows don't count: Envoy asks again when a name's TTL ends.
	newNamesAtOnce = 200
	newNameEvery   = 40 * time.Millisecond

	// Adding and removing a name each take Envoy's main thread about 0.4 us per name of the same kind (measured).
	// New names of all shares together may take about a quarter of that thread, first those of agents that have
	// used less.
	timeOfAName = 3 * time.Microsecond
	timeOfNew   = 500 * time.Microsecond
	mostUnused  = 10 * time.Millisecond

	// lookupTime limits a lookup, including its wait. Envoy waits as long (dns_query_timeout).
	lookupTime = 5 * time.Second

	// Failures are remembered by name and share (RFC 9520, section 3.2): the resolver's own, a full queue, and a
	// missing answer. c-ares asks again at once, and up to 10 s after Envoy has given up.
	rememberFailure = time.Second
	rememberSilence = 10 * time.Second
	mostRemembered  = 1 << 16

	// The longest TTL of an answer, so that a name that has moved is soon resolved again. From manyNames on, a
	// share's answers expire earlier: exact names just after Envoy has forgotten them, 20 s after their last use.
	longestTTL = time.Minute
	manyNames  = 50
	// forgottenAfter is when Envoy has forgotten a name after its TTL, unless it asks again.
	forgottenAfter = 2 * time.Second

	// The engine's answers for containers are good for ten minutes, even if the container is gone by then.
	longestTTLOfContainers = 5 * time.Second

	// mostAskers queries wait for the same lookup. c-ares repeats its own.
	mostAskers = 16
)

// Limits for exact and for other names: names that Envoy keeps per share, and the longest TTL with many.
var (
	mostNames        = map[bool]int{true: 500, false: 250}
	longestTTLOfMany = map[bool]time.Duration{true: 25 * time.Second, false: 2 * time.Second}
)

var queryWaits = [queriesOfALookup]time.Duration{1200 * time.Millisecond, 1800 * time.Millisecond, lookupTime}

// shareMark begins the last label of a name that Envoy looks up for an agent. No rule or agent can name it. It
// also ends the label of a rule's exact name.
const shareMark = "*"

// inquiry identifies a lookup by its share and question.
type inquiry struct {
	share    string // its label, or "" for a name of UDP, which Envoy looks up itself
	stream   bool
	question dns.Question // the name in lower case, without the share's label
}

type asker struct {
	id    uint16
	reply func([]byte)
}

type pendingLookup struct {
	inquiry
	asked  *dns.Msg // Envoy's first query
	rule   string   // the subtree rule, or the domain of an exact name or of one without a rule
	askers []asker
	since  time.Time
	until  time.Time // the end of its wait
}

// share is the unit of limits: an agent's names below subtree rules, or its exact names.
type share struct {
	agent   string
	exact   bool
	running int
	below   map[string]int // running ones by rule
	waiting []*pendingLookup
	names   map[string]time.Time // Envoy's names, and when it forgets them
	next    time.Time            // when its next new name may start; as far back as it may start several at once
}

type forwarder struct {
	exchange func(l *pendingLookup) (*dns.Msg, error) // asks the engine's resolver
	rule     func(name string) string
	now      func() time.Time
	sleep    func(time.Duration)

	// The engine's resolver answers for containers on these networks itself.
	agents, egress netip.Prefix

	lock    sync.Mutex
	running int
	pending map[inquiry]*pendingLookup
	shares  map[string]*share     // by label, of which Envoy has 512, and one for names without
	failed  map[inquiry]time.Time // until when it is remembered

	next time.Time                // when Envoy's main thread has time for the next new name
	wake *time.Timer              // for then
	used map[string]time.Duration // of that time, by agent
	cost func(names int) time.Duration
	turn time.Duration // the used time of the last new name's agent: others have not lost what they left
}

func newForwarder(exchange func(*pendingLookup) (*dns.Msg, error), rule func(string) string) *forwarder {
	f := &forwarder{
		exchange: exchange, rule: rule, now: time.Now, sleep: time.Sleep,
		pending: map[inquiry]*pendingLookup{}, shares: map[string]*share{}, failed: map[inquiry]time.Time{},
		used: map[string]time.Duration{}, cost: timeOfNewName,
	}
	f.wake = time.AfterFunc(time.Hour, f.giveUp)
	return f
}

func (f *forwarder) take(query []byte, stream bool, reply func([]byte)) {
	asked := new(dns.Msg)
	if asked.Unpack(query) != nil {
		answerTooLong(query, reply)
		return
	}
	if asked.Response || asked.Opcode != dns.OpcodeQuery || len(asked.Question) != 1 {
		return
	}
	question := asked.Question[0]
	lookup := &pendingLookup{asked: asked, askers: []asker{{asked.Id, reply}}}
	if strings.EqualFold(question.Name, lookedUpAgain) {
		lookup.answer(loopbackAnswer(asked))
		return
	}
	name, share := shareOf(strings.ToLower(question.Name))
	lookup.inquiry = inquiry{share, stream, dns.Question{Name: name, Qtype: question.Qtype, Qclass: question.Qclass}}
	if lookup.rule = domain(name); !isExact(share) {
		lookup.rule = cmp.Or(f.rule(strings.TrimSuffix(name, ".")), lookup.rule)
	}
	f.lock.Lock()
	defer f.lock.Unlock()
	lookup.since = f.now()
	lookup.until = lookup.since.Add(waitTime - rand.N(waitTime/4)) // spread, so that many don't fail at once
	if until, failed := f.failed[lookup.inquiry]; failed && lookup.since.Before(until) {
		f.refuse(lookup)
		return
	}
	if pending := f.pending[lookup.inquiry]; pending != nil {
		if len(pending.askers) < mostAskers && !slices.ContainsFunc(pending.askers, func(a asker) bool { return a.id == asked.Id }) {
			pending.askers = append(pending.askers, lookup.askers...)
		}
		return
	}
	shared := f.share(share)
	if len(shared.waiting) >= mostWaiting {
		f.fail(lookup, rememberFailure)
		return
	}
	f.pending[lookup.inquiry] = lookup
	shared.waiting = append(shared.waiting, lookup)
	f.start(shared)
	f.startNew()
}

// lookedUpAgain is the name that Envoy resolves repeatedly to show that it can (envoy.Serves). It is never
// forwarded, and no rule can allow it, because .invalid is reserved (RFC 6761).
const lookedUpAgain = "lookup.clawker-fw.invalid."

// loopbackAnswer answers a query for that name with an unused loopback address.
func loopbackAnswer(asked *dns.Msg) *dns.Msg {
	reply := response(asked, dns.RcodeSuccess)
	if question := asked.Question[0]; question.Qtype == dns.TypeA {
		header := dns.RR_Header{Name: question.Name, Rrtype: question.Qtype, Class: question.Qclass}
		reply.Answer = []dns.RR{&dns.A{Hdr: header, A: net.IPv4(127, 0, 0, 1)}}
	}
	return reply
}

func response(asked *dns.Msg, code int) *dns.Msg {
	reply := new(dns.Msg).SetRcode(asked, code)
	reply.RecursionAvailable = true
	return reply
}

// answerTooLong answers an unreadable query as a name that does not exist: with a share's label, a name of over
// 250 characters is too long (RFC 1035, section 2.3.4). Envoy sends it anyway, and would wait.
func answerTooLong(query []byte, reply func([]byte)) {
	const longestName, response, operation = 255, 1 << 7, 15 << 3
	if len(query) <= longestName || query[2]&(response|operation) != 0 {
		return
	}
	answer := slices.Clone(query)
	answer[2] |= response
	answer[3] = answer[3]&^15 | dns.RcodeNameError
	reply(answer)
}

// shareOf splits a name into the name itself and its share's label, or "".
func shareOf(name string) (string, string) {
	rest := strings.TrimSuffix(name, ".")
	if end := strings.LastIndex(rest, "."); end > 0 && strings.HasPrefix(rest[end+1:], shareMark) {
		return rest[:end+1], rest[end+1:]
	}
	return name, ""
}

// domain returns the last two labels of a name.
func domain(name string) string {
	labels := dns.SplitDomainName(name)
	return strings.Join(labels[max(0, len(labels)-2):], ".")
}

func isExact(share string) bool { return share == "" || strings.HasSuffix(share, shareMark) }

func (f *forwarder) share(name string) *share {
	shared := f.shares[name]
	if shared == nil {
		agent := strings.TrimSuffix(name, shareMark)
		shared = &share{agent: agent, exact: isExact(name), below: map[string]int{}, names: map[string]time.Time{}}
		f.shares[name] = shared
	}
	return shared
}

// start starts the lookups that a share has room for, except new names, and fails those that have waited too long.
func (f *forwarder) start(shared *share) {
	now := f.now()
	shared.waiting = slices.DeleteFunc(shared.waiting, func(l *pendingLookup) bool {
		switch {
		case now.After(l.until):
			f.fail(l, rememberFailure)
		case f.hasRoom(shared, l) && !shared.isNew(l):
			f.begin(shared, l)
		default:
			return false
		}
		return true
	})
}

func (f *forwarder) hasRoom(shared *share, l *pendingLookup) bool {
	return shared.running < min(lookupsOfAShare, mostLookups-f.running) && shared.below[l.rule] < lookupsOfARule
}

func (f *forwarder) begin(shared *share, l *pendingLookup) {
	f.running++
	shared.running++
	shared.below[l.rule]++
	go f.run(l, shared)
}

// isNew reports whether a name may be new to Envoy. Names of UDP never count: agents can't choose them.
func (s *share) isNew(l *pendingLookup) bool {
	_, ok := s.names[l.question.Name]
	return !ok && l.share != ""
}

// startNew starts new names while there is time for them, first those of the agent that has used the least of it.
func (f *forwarder) startNew() {
	for now := f.now(); ; {
		next, at, least := (*share)(nil), 0, time.Duration(0)
		for _, shared := range f.shares {
			used := max(f.turn, f.used[shared.agent])
			if next != nil && used >= least {
				continue
			}
			if first := f.firstNew(shared, now); first >= 0 {
				next, at, least = shared, first, used
			}
		}
		if next == nil {
			return
		}
		if now.Before(f.next) {
			f.wake.Reset(f.next.Sub(now))
			return
		}
		l := next.waiting[at]
		next.waiting = slices.Delete(next.waiting, at, at+1)
		next.next = latest(next.next, now.Add(-(newNamesAtOnce-1)*newNameEvery)).Add(newNameEvery)
		names := 0
		for _, other := range f.shares {
			if other.exact == next.exact {
				names += len(other.names)
			}
		}
		takes := f.cost(names)
		f.next = latest(f.next, now.Add(-mostUnused)).Add(takes)
		f.turn, f.used[next.agent] = least, least+takes
		f.begin(next, l)
	}
}

// firstNew returns the index of the first new name of a share that may start now, or a negative number.
func (f *forwarder) firstNew(shared *share, now time.Time) int {
	return slices.IndexFunc(shared.waiting, func(l *pendingLookup) bool {
		return !now.Before(shared.next) && len(shared.names) < mostNames[shared.exact] && f.hasRoom(shared, l) && shared.isNew(l)
	})
}

func timeOfNewName(names int) time.Duration { return timeOfNew + time.Duration(names)*timeOfAName }

func latest(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }

func (f *forwarder) run(l *pendingLookup, shared *share) {
	reply, err := f.exchange(l)
	f.lock.Lock()
	defer f.lock.Unlock()
	silent := errors.Is(err, os.ErrDeadlineExceeded)
	switch {
	case silent:
		f.fail(l, rememberSilence)
	case err != nil || reply.Rcode == dns.RcodeServerFailure || has(reply, f.agents):
		// A container on the agent network answers to its name while it exists. Envoy never reaches that network,
		// so this is no answer, and must not outlive the container.
		f.fail(l, rememberFailure)
	default:
		delete(f.pending, l.inquiry)
		ttl := shared.longestTTL()
		if has(reply, f.egress) {
			ttl = min(ttl, longestTTLOfContainers)
		}
		answer := l.answerFrom(reply, ttl)
		_, ok := shared.names[l.question.Name]
		if len(answer.Answer) > 0 {
			ttl = time.Duration(answer.Answer[0].Header().Ttl) * time.Second
		}
		if ok || len(answer.Answer) > 0 {
			shared.names[l.question.Name] = f.now().Add(ttl + forgottenAfter)
		}
		l.answer(answer)
	}
	if silent { // the engine's resolver waits longer
		f.lock.Unlock()
		f.sleep(resolverPatience)
		f.lock.Lock()
	}
	f.running--
	shared.running--
	shared.below[l.rule]--
	f.start(shared)
	f.startNew()
}

func (s *share) longestTTL() time.Duration {
	if len(s.names) < manyNames {
		return longestTTL
	}
	return longestTTLOfMany[s.exact]
}

// giveUp starts or fails waiting lookups, and forgets the names that Envoy has forgotten.
func (f *forwarder) giveUp() {
	f.lock.Lock()
	defer f.lock.Unlock()
	now := f.now()
	for _, shared := range f.shares {
		maps.DeleteFunc(shared.names, func(_ string, until time.Time) bool { return now.After(until) })
		f.start(shared)
	}
	f.startNew()
}

func (f *forwarder) fail(l *pendingLookup, during time.Duration) {
	delete(f.pending, l.inquiry)
	if len(f.failed) >= mostRemembered {
		clear(f.failed) // they only save queries
	}
	f.failed[l.inquiry] = f.now().Add(during)
	f.refuse(l)
}

// refuse answers with a failure. Envoy still keeps a name that it knows, and asks again within 10 s.
func (f *forwarder) refuse(l *pendingLookup) {
	shared := f.share(l.share)
	if _, ok := shared.names[l.question.Name]; ok {
		shared.names[l.question.Name] = f.now().Add(rememberSilence + forgottenAfter)
	}
	l.answer(l.failure())
}

// query returns the query for the engine's resolver, without Envoy's additions.
func (l *pendingLookup) query() *dns.Msg {
	asked := &dns.Msg{MsgHdr: dns.MsgHdr{Id: dns.Id(), RecursionDesired: true}, Question: []dns.Question{l.question}}
	if size := l.asked.IsEdns0(); size != nil { // RFC 6891
		asked.SetEdns0(size.UDPSize(), size.Do())
	}
	return asked
}

// answerFrom returns the answer for Envoy: the reply's records of the requested type under the requested name,
// without aliases, with at most this TTL.
func (l *pendingLookup) answerFrom(reply *dns.Msg, ttl time.Duration) *dns.Msg {
	answer := &dns.Msg{MsgHdr: reply.MsgHdr, Question: l.asked.Question}
	for _, record := range reply.Answer {
		header := record.Header()
		ttl = min(ttl, time.Duration(header.Ttl)*time.Second)
		if header.Rrtype == l.question.Qtype && header.Class == l.question.Qclass {
			header.Name = l.asked.Question[0].Name
			answer.Answer = append(answer.Answer, record)
		}
	}
	for _, record := range answer.Answer {
		record.Header().Ttl = uint32(ttl / time.Second)
	}
	return answer
}

func (l *pendingLookup) failure() *dns.Msg { return response(l.asked, dns.RcodeServerFailure) }

func (l *pendingLookup) answer(reply *dns.Msg) {
	reply.Compress = true
	packed, err := reply.Pack()
	if err != nil {
		packed, err = l.failure().Pack()
	}
	for _, asker := range l.askers {
		if err == nil {
			own := slices.Clone(packed)
			binary.BigEndian.PutUint16(own, asker.id)
			asker.reply(own)
		}
	}
}

func has(reply *dns.Msg, network netip.Prefix) bool {
	return slices.ContainsFunc(reply.Answer, func(record dns.RR) bool {
		ipv4, ok := record.(*dns.A)
		if !ok {
			return false
		}
		address, _ := netip.AddrFromSlice(ipv4.A.To4())
		return network.Contains(address)
	})
}

var errOther = errors.New("the engine's resolver answered another query")

// exchangeWith returns a function that queries a name server over the protocol of Envoy's query. Over UDP, it
// repeats the query until an answer arrives.
func exchangeWith(server netip.AddrPort) func(*pendingLookup) (*dns.Msg, error) {
	return func(l *pendingLookup) (*dns.Msg, error) {
		end, waits := l.since.Add(lookupTime), queryWaits[:]
		client := dns.Client{Timeout: time.Until(end), UDPSize: longestDatagram}
		if l.stream {
			client.Net, waits = "tcp", []time.Duration{lookupTime}
		}
		connection, err := client.Dial(server.String())
		if err != nil {
			return nil, err
		}
		defer connection.Close()
		query := l.query()
		for _, wait := range waits {
			client.Timeout = min(wait, time.Until(end))
			reply, _, err := client.ExchangeWithConn(query, connection)
			switch {
			case errors.Is(err, os.ErrDeadlineExceeded):
			case err != nil:
				return nil, err
			case !reply.Response || len(reply.Question) == 0 || !strings.EqualFold(reply.Question[0].Name, l.question.Name):
				return nil, errOther
			default:
				return reply, nil
			}
		}
		return nil, os.ErrDeadlineExceeded
	}
}

const (
	// longestDatagram is the largest size that a query can announce (RFC 6891, section 6.2.5).
	longestDatagram = 4096
	longestQuery    = 512 // a name of 255 bytes, and options

	mostReceived = 4096

	// mostStreams limits TCP connections. Envoy needs one for an answer that doesn't fit into a datagram.
	mostStreams = 64
	// mostUnread limits the bytes of unsent answers on a connection, where each counts as at least leastReply. A
	// connection that takes longer than writeTime for one is closed: the forwarder is locked and must not wait.
	mostUnread = 1 << 18
	leastReply = 1 << 10
	writeTime  = time.Second

	giveUpEvery = 100 * time.Millisecond
)

// Forward answers queries until a socket fails. Its arguments are its address, its upstream, the file with the
// rules' subtrees, and the networks of agents and of the way out. The supervisor hands it the sockets, which
// outlive it: queries wait in them during a restart. Envoy would remember a refusal for seconds.
func Forward(arguments []string, sockets []*os.File) error {
	listen, invalidListen := netip.ParseAddrPort(arguments[0])
	upstream, invalidUpstream := netip.ParseAddrPort(arguments[1])
	agents, invalidAgents := netip.ParsePrefix(arguments[3])
	egress, invalidEgress := netip.ParsePrefix(arguments[4])
	err := errors.Join(invalidListen, invalidUpstream, invalidAgents, invalidEgress)
	if err != nil {
		return err
	}
	forwarder := newForwarder(exchangeWith(upstream), subtreesIn(arguments[2]))
	forwarder.agents, forwarder.egress = agents, egress
	if len(sockets) == 0 {
		if sockets, err = Listen(listen); err != nil {
			return err
		}
	}
	if len(sockets) != 2 {
		return fmt.Errorf("the forwarder got %d sockets instead of two", len(sockets))
	}
	datagrams, err := net.FilePacketConn(sockets[0])
	if err != nil {
		return err
	}
	streams, err := net.FileListener(sockets[1])
	if err != nil {
		return err
	}
	failed := make(chan error, 2)
	go func() { failed <- forwardDatagrams(forwarder, datagrams) }()
	go func() {
		statussocket.Serve(streams, mostStreams, func(connection net.Conn) { forwardStream(forwarder, connection) })
		failed <- net.ErrClosed
	}()
	for late := time.Tick(giveUpEvery); ; {
		select {
		case err := <-failed:
			return err
		case <-late:
			forwarder.giveUp()
		}
	}
}

// Listen opens the forwarder's sockets, to be handed down.
func Listen(listen netip.AddrPort) ([]*os.File, error) {
	datagrams, err := statussocket.Handed(net.ListenUDP("udp", net.UDPAddrFromAddrPort(listen)))
	if err != nil {
		return nil, err
	}
	streams, err := statussocket.Handed(net.ListenTCP("tcp", net.TCPAddrFromAddrPort(listen)))
	return []*os.File{datagrams, streams}, err
}

func forwardDatagrams(forwarder *forwarder, socket net.PacketConn) error {
	received := make(chan func(), mostReceived) // the kernel has room for a few hundred
	defer close(received)
	go func() {
		for take := range received {
			take()
		}
	}()
	for {
		message := make([]byte, longestQuery)
		size, from, err := socket.ReadFrom(message)
		if errors.Is(err, syscall.ECONNREFUSED) {
			continue // the sender is gone
		}
		if err != nil {
			return err
		}
		received <- func() {
			forwarder.take(message[:size], false, func(reply []byte) {
				_, _ = socket.WriteTo(reply, from) // a lost answer is requested again
			})
		}
	}
}

func forwardStream(forwarder *forwarder, connection net.Conn) {
	client, unread := &dns.Conn{Conn: connection}, atomic.Int64{}
	message := make([]byte, longestQuery)
	for connection.SetReadDeadline(time.Now().Add(2*lookupTime)) == nil {
		size, err := client.Read(message)
		if err != nil {
			return
		}
		forwarder.take(message[:size], true, func(reply []byte) {
			counted := int64(max(len(reply), leastReply))
			if unread.Add(counted) > mostUnread {
				connection.Close() // Envoy asks again
				return
			}
			go func() {
				err := connection.SetWriteDeadline(time.Now().Add(writeTime))
				if err == nil {
					_, err = client.Write(reply)
				}
				if unread.Add(-counted); err != nil {
					connection.Close()
				}
			}()
		})
	}
}

func parseSubtrees(content []byte) (map[string]struct{}, error) {
	var file struct {
		Names []string `json:"names"`
	}
	names := map[string]struct{}{}
	err := json.Unmarshal(content, &file)
	for _, name := range file.Names {
		names[name] = struct{}{}
	}
	return names, err
}

// subtreesIn returns a function that finds the nearest subtree rule at or above a name in a file, or "".
func subtreesIn(path string) func(name string) string {
	file := hotfile.New(path, parseSubtrees)
	return func(name string) string {
		names, _ := file.Fresh()
		for above := range hostname.Around(name) {
			if _, ok := names[above]; ok {
				return above
			}
		}
		return ""
	}
}
