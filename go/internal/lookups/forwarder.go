// Package lookups is the forwarder, the name server that Envoy asks. It asks the engine's resolver, with room for only so
// many lookups at once, so that names whose servers are slow or silent are in nobody else's way, and it knows when to give
// up. Envoy can do neither. It is a process of its own beside Envoy, without privileges: `fwctl forward`.
//
// Agents can invent names below a subtree rule. Envoy asks for these with one label more, which says whose share the
// lookup is: the last digit of the agent's address (clawker_fw/stack/envoy/lookups.py). Lookups of one share below one
// rule wait for each other, and for nobody else's.
package lookups

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
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
	// resolverQueries is what the engine's resolver takes on at once for a container (its maxConcurrent).
	resolverQueries = 1024

	// A name is asked for again as long as there is no answer: packets get lost on the way. The engine's resolver waits
	// for 4 s (its extIOTimeout), so all queries for a name that is silent take room in it at the same time.
	queriesOfALookup = 3
	resolverPatience = 4 * time.Second

	// Lookups at once: of a share, of them those below one rule, and of names that rules name, whoever asks for them.
	// Together they fit into the engine's resolver.
	lookupsOfAShare = 24
	lookupsOfARule  = 12
	lookupsOfNamed  = 64
	mostLookups     = resolverQueries / queriesOfALookup

	// mostWaiting is how many more lookups of a share below one rule wait for room, for waitTime. The next ones fail.
	mostWaiting = 100
	waitTime    = 2 * time.Second

	// lookupTime is how long a lookup takes at most, its wait for room included. Envoy waits as long (dns_query_timeout).
	lookupTime = 5 * time.Second

	// A failure is remembered for a while (RFC 9520, section 3.2): the resolver's own, that there was no room, and that
	// there was no answer. c-ares asks again at once, and also goes on when Envoy has given up, for at most 10 s more.
	rememberFailure = time.Second
	rememberCrowd   = lookupTime
	rememberSilence = 10 * time.Second
	mostRemembered  = 1 << 16

	// How long an answer for a name below a subtree rule is good at most. Envoy has room for so many names, and keeps each
	// for that long: with the answers' own times, one agent could fill it for days.
	longestTTL       = time.Minute
	longestTTLOfMany = 5 * time.Second // of a share with more names than manyNames in a longestTTL
	manyNames        = 1000

	// The engine's own answers are good for ten minutes, also if the container has gone by then.
	longestTTLOfContainers = 5 * time.Second

	// mostAskers is how many queries wait for the same lookup. c-ares repeats its own.
	mostAskers = 16
)

var queryWaits = [queriesOfALookup]time.Duration{1200 * time.Millisecond, 1800 * time.Millisecond, lookupTime}

// shareMark begins the last label of a name that Envoy asks for in an agent's share. No name can have it: neither those in
// rules nor those that agents name.
const shareMark = "*"

const longestName = 255

// inquiry identifies a lookup: whose share it is, and the question. A name of no share has "".
type inquiry struct {
	share    string
	stream   bool
	question dns.Question // its name in lower case, without the share
}

type asker struct {
	id    uint16
	reply func([]byte)
}

type pendingLookup struct {
	inquiry
	asked  *dns.Msg // as Envoy has asked it first
	rule   string   // the subtree rule that decides the name, or "" if one names it exactly
	askers []asker
	since  time.Time
}

// share is whose lookups are counted together. Those of names that rules name are a share as well: namedShare.
type share struct {
	running int
	below   map[string]int // of them, by rule
	waiting []*pendingLookup
}

const namedShare = "named"

type tally struct {
	since time.Time
	names int
}

type forwarder struct {
	exchange func(l *pendingLookup) (*dns.Msg, error) // asks the engine's resolver
	rule     func(name string) string
	now      func() time.Time
	sleep    func(time.Duration)

	// The engine's resolver knows the names of containers on these networks, and answers them itself.
	agents, egress netip.Prefix

	lock    sync.Mutex
	running int
	pending map[inquiry]*pendingLookup
	shares  map[string]*share
	failed  map[inquiry]time.Time // until when it is remembered
	told    map[string]*tally     // by share
}

func newForwarder(exchange func(*pendingLookup) (*dns.Msg, error), rule func(string) string) *forwarder {
	return &forwarder{
		exchange: exchange, rule: rule, now: time.Now, sleep: time.Sleep,
		pending: map[inquiry]*pendingLookup{}, shares: map[string]*share{}, failed: map[inquiry]time.Time{},
		told: map[string]*tally{},
	}
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
	wanted := &pendingLookup{asked: asked, askers: []asker{{asked.Id, reply}}}
	if strings.EqualFold(question.Name, lookedUpAgain) {
		wanted.answer(known(asked))
		return
	}
	name, share := shareOf(strings.ToLower(question.Name))
	wanted.inquiry = inquiry{share, stream, dns.Question{Name: name, Qtype: question.Qtype, Qclass: question.Qclass}}
	if share != "" { // otherwise a rule names it exactly, also if another rule is for all around it
		wanted.rule = f.rule(strings.TrimSuffix(name, "."))
	}
	f.lock.Lock()
	defer f.lock.Unlock()
	wanted.since = f.now()
	if until, failed := f.failed[wanted.inquiry]; failed && wanted.since.Before(until) {
		wanted.answer(wanted.failure())
		return
	}
	if known := f.pending[wanted.inquiry]; known != nil {
		if len(known.askers) < mostAskers && !slices.ContainsFunc(known.askers, func(a asker) bool { return a.id == asked.Id }) {
			known.askers = append(known.askers, wanted.askers...)
		}
		return
	}
	shared := f.share(wanted)
	if shared.isFull(wanted.rule) {
		f.fail(wanted, rememberCrowd)
		return
	}
	f.pending[wanted.inquiry] = wanted
	shared.waiting = append(shared.waiting, wanted)
	f.start(shared)
}

// lookedUpAgain is the name that Envoy looks up again and again, to show that it can (envoy.Serves). Nobody outside is
// asked for it. No rule can allow it, because .invalid is reserved (RFC 6761).
const lookedUpAgain = "lookup.clawker-fw.invalid."

// known answers a question for that name with a loopback address, to which nothing connects.
func known(asked *dns.Msg) *dns.Msg {
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

// answerTooLong answers that a name does not exist whose query can't be read: with the label of a share, one of over 250
// characters is longer than names can be (RFC 1035, section 2.3.4). Envoy sends it all the same, and would wait.
func answerTooLong(query []byte, reply func([]byte)) {
	const response, operation = 1 << 7, 15 << 3
	if len(query) <= longestName || query[2]&(response|operation) != 0 {
		return
	}
	answer := slices.Clone(query)
	answer[2] |= response
	answer[3] = answer[3]&^15 | dns.RcodeNameError
	reply(answer)
}

// shareOf returns a name without the label that says whose share its lookup is, and that label, or "".
func shareOf(name string) (string, string) {
	rest := strings.TrimSuffix(name, ".")
	if end := strings.LastIndex(rest, "."); end > 0 && strings.HasPrefix(rest[end+1:], shareMark) {
		return rest[:end+1], rest[end+1:]
	}
	return name, ""
}

func (f *forwarder) share(l *pendingLookup) *share {
	name := l.share
	if l.rule == "" {
		name = namedShare
	}
	found := f.shares[name]
	if found == nil {
		found = &share{below: map[string]int{}}
		f.shares[name] = found
	}
	return found
}

// isFull reports whether no more lookups below a rule can wait. There are no more of named ones than there are rules.
func (s *share) isFull(rule string) bool {
	count := 0
	for _, each := range s.waiting {
		if each.rule == rule {
			count++
		}
	}
	return rule != "" && count >= mostWaiting
}

func (f *forwarder) start(shared *share) {
	oldest := f.now().Add(-waitTime)
	shared.waiting = slices.DeleteFunc(shared.waiting, func(l *pendingLookup) bool {
		switch {
		case l.since.Before(oldest):
			f.fail(l, rememberCrowd)
		case f.running < mostLookups && shared.hasRoom(l.rule):
			f.running++
			shared.running++
			shared.below[l.rule]++
			go f.run(l, shared)
		default:
			return false
		}
		return true
	})
}

// startAll starts what there is room for, gives up what has waited for too long, and forgets shares without lookups.
func (f *forwarder) startAll() {
	for name, each := range f.shares {
		if f.start(each); each.running == 0 && len(each.waiting) == 0 {
			delete(f.shares, name)
		}
	}
}

func (s *share) hasRoom(rule string) bool {
	if rule == "" {
		return s.running < lookupsOfNamed
	}
	return s.running < lookupsOfAShare && s.below[rule] < lookupsOfARule
}

func (f *forwarder) run(l *pendingLookup, shared *share) {
	reply, err := f.exchange(l)
	f.lock.Lock()
	defer f.lock.Unlock()
	silent := errors.Is(err, os.ErrDeadlineExceeded)
	switch {
	case silent:
		f.fail(l, rememberSilence)
	case err != nil || reply.Rcode == dns.RcodeServerFailure || has(reply, f.agents):
		// A container on the agents' network that is called like a host has its name while it is there. Nothing is
		// ever reached through Envoy there, so this is no answer, and must not outlive the container.
		f.fail(l, rememberFailure)
	default:
		delete(f.pending, l.inquiry)
		ttl := f.ttlFor(l)
		if has(reply, f.egress) {
			ttl = min(ttl, longestTTLOfContainers)
		}
		l.answer(l.told(reply, ttl))
	}
	if silent { // the engine's resolver waits longer
		f.lock.Unlock()
		f.sleep(resolverPatience)
		f.lock.Lock()
	}
	f.running--
	shared.running--
	if shared.below[l.rule]--; shared.below[l.rule] == 0 {
		delete(shared.below, l.rule)
	}
	f.startAll()
}

func (f *forwarder) ttlFor(l *pendingLookup) time.Duration {
	if l.rule == "" {
		return math.MaxUint32 * time.Second
	}
	now, counted := f.now(), f.told[l.share]
	if counted == nil || now.Sub(counted.since) > longestTTL {
		counted = &tally{since: now}
		f.told[l.share] = counted
	}
	if counted.names++; counted.names > manyNames {
		return longestTTLOfMany
	}
	return longestTTL
}

func (f *forwarder) giveUp() {
	f.lock.Lock()
	defer f.lock.Unlock()
	f.startAll()
}

func (f *forwarder) fail(l *pendingLookup, during time.Duration) {
	delete(f.pending, l.inquiry)
	f.remember(l.inquiry, during)
	l.answer(l.failure())
}

// remember keeps a failure. Beyond mostRemembered, all are forgotten: they only save queries.
func (f *forwarder) remember(failed inquiry, during time.Duration) {
	if len(f.failed) >= mostRemembered {
		clear(f.failed)
	}
	f.failed[failed] = f.now().Add(during)
}

// query returns what the engine's resolver is asked: the question, and nothing of what Envoy has added to it.
func (l *pendingLookup) query() *dns.Msg {
	asked := &dns.Msg{MsgHdr: dns.MsgHdr{Id: dns.Id(), RecursionDesired: true}, Question: []dns.Question{l.question}}
	if size := l.asked.IsEdns0(); size != nil { // RFC 6891
		asked.SetEdns0(size.UDPSize(), size.Do())
	}
	return asked
}

// told returns what Envoy is told of the resolver's reply: the records of the type that it has asked for, under the name
// that it has asked for. It need not know of aliases. It may keep them for so long.
func (l *pendingLookup) told(reply *dns.Msg, ttl time.Duration) *dns.Msg {
	found := &dns.Msg{MsgHdr: reply.MsgHdr, Question: l.asked.Question}
	for _, record := range reply.Answer {
		header := record.Header()
		ttl = min(ttl, time.Duration(header.Ttl)*time.Second)
		if header.Rrtype == l.question.Qtype && header.Class == l.question.Qclass {
			header.Name = l.asked.Question[0].Name
			found.Answer = append(found.Answer, record)
		}
	}
	for _, record := range found.Answer {
		record.Header().Ttl = uint32(ttl / time.Second)
	}
	return found
}

func (l *pendingLookup) failure() *dns.Msg { return response(l.asked, dns.RcodeServerFailure) }

func (l *pendingLookup) answer(reply *dns.Msg) {
	reply.Compress = true
	packed, err := reply.Pack()
	if err != nil {
		packed, err = l.failure().Pack()
	}
	for _, each := range l.askers {
		if err == nil {
			own := slices.Clone(packed)
			binary.BigEndian.PutUint16(own, each.id)
			each.reply(own)
		}
	}
}

func has(reply *dns.Msg, network netip.Prefix) bool {
	return slices.ContainsFunc(reply.Answer, func(record dns.RR) bool {
		found, is := record.(*dns.A)
		if !is {
			return false
		}
		address, _ := netip.AddrFromSlice(found.A.To4())
		return network.Contains(address)
	})
}

var errOther = errors.New("the engine's resolver has answered something else")

// exchangeWith returns a function that asks a name server, over the protocol over which Envoy has asked. Over UDP, it asks
// again until there is an answer.
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
	// longestDatagram is what a query can ask for at most (RFC 6891, section 6.2.5).
	longestDatagram = 4096
	longestQuery    = 512 // a name of 255 octets, and options

	mostReceived = 4096

	// mostStreams is how many connections it has at once: Envoy needs one for an answer that is too long for a datagram.
	mostStreams = 64
	// mostUnread bounds the octets of answers that wait until a connection takes them, of which each counts leastReply at least. It
	// has writeTime for each, and is ended otherwise: answers are handed over with the forwarder locked, so none may wait there.
	mostUnread = 1 << 18
	leastReply = 1 << 10
	writeTime  = time.Second

	giveUpEvery = 250 * time.Millisecond
)

// Forward answers queries until a socket fails. Its arguments are where it listens, whom it asks, the file with the
// subtrees that rules name, and the networks of agents and of the way out. Its keeper hands it the sockets, which outlive
// it: what is asked while it is started again waits in them. Envoy would remember for seconds that it was refused.
func Forward(arguments []string, given []*os.File) error {
	var problems [4]error
	listen, err := netip.ParseAddrPort(arguments[0])
	problems[0] = err
	upstream, err := netip.ParseAddrPort(arguments[1])
	problems[1] = err
	forwarder := newForwarder(exchangeWith(upstream), subtreesIn(arguments[2]))
	forwarder.agents, problems[2] = netip.ParsePrefix(arguments[3])
	forwarder.egress, problems[3] = netip.ParsePrefix(arguments[4])
	if err := errors.Join(problems[:]...); err != nil {
		return err
	}
	if len(given) == 0 {
		if given, err = Listen(listen); err != nil {
			return err
		}
	}
	if len(given) != 2 {
		return fmt.Errorf("the forwarder was given %d sockets, and not two", len(given))
	}
	datagrams, err := net.FilePacketConn(given[0])
	if err != nil {
		return err
	}
	streams, err := net.FileListener(given[1])
	if err != nil {
		return err
	}
	failed := make(chan error, 2)
	go func() { failed <- forwardDatagrams(forwarder, datagrams) }()
	go func() { failed <- forwardStreams(forwarder, streams) }()
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
			continue // who asked before has gone
		}
		if err != nil {
			return err
		}
		received <- func() {
			forwarder.take(message[:size], false, func(reply []byte) {
				_, _ = socket.WriteTo(reply, from) // an answer that is lost is asked for again
			})
		}
	}
}

func forwardStreams(forwarder *forwarder, listener net.Listener) error {
	room := make(chan struct{}, mostStreams)
	for {
		room <- struct{}{}
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer func() { <-room }()
			forwardStream(forwarder, connection)
		}()
	}
}

func forwardStream(forwarder *forwarder, connection net.Conn) {
	defer connection.Close()
	client, unread := &dns.Conn{Conn: connection}, atomic.Int64{}
	message := make([]byte, longestQuery)
	for connection.SetReadDeadline(time.Now().Add(2*lookupTime)) == nil {
		size, err := client.Read(message)
		if err != nil {
			return
		}
		forwarder.take(message[:size], true, func(reply []byte) {
			octets := int64(max(len(reply), leastReply))
			if unread.Add(octets) > mostUnread {
				connection.Close() // Envoy asks again
				return
			}
			go func() {
				err := connection.SetWriteDeadline(time.Now().Add(writeTime))
				if err == nil {
					_, err = client.Write(reply)
				}
				if unread.Add(-octets); err != nil {
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
	for _, each := range file.Names {
		names[each] = struct{}{}
	}
	return names, err
}

// unknownRule stands for the rule of every name while the file can't be read: there is room for few then.
const unknownRule = "?"

// subtreesIn returns what finds the nearest subtree rule in a file that a name is below or at, or "" if there is none.
func subtreesIn(path string) func(name string) string {
	file := hotfile.New(path, parseSubtrees)
	return func(name string) string {
		names, _ := file.Fresh()
		if names == nil {
			return unknownRule
		}
		for above := range hostname.Around(name) {
			if _, known := names[above]; known {
				return above
			}
		}
		return ""
	}
}
