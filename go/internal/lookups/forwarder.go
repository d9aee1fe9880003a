// Package lookups is the forwarder, the name server that Envoy asks. It asks the engine's resolver, with room for only so
// many lookups at once, so that names whose servers are slow or silent are in nobody else's way, and it knows when to give
// up. Envoy can do neither. It is a process of its own beside Envoy, without privileges: `fwctl forward`.
//
// Envoy asks for a name with one label more, which says whose share the lookup is: the last number of the agent's address
// (clawker_fw/stack/envoy/lookups.py). Lookups of one share below one rule wait for each other, and for nobody else's. Each
// share gets only so many new names, because Envoy's main thread goes through all names that it has for each new one.
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
	// resolverQueries is what the engine's resolver takes on at once for a container (its maxConcurrent).
	resolverQueries = 1024

	// A name is asked for again as long as there is no answer: packets get lost on the way. The engine's resolver waits
	// for 4 s (its extIOTimeout), so all queries for a name that is silent take room in it at the same time.
	queriesOfALookup = 3
	resolverPatience = 4 * time.Second

	// Lookups at once: of a share, and of them those below one rule, or of exact names of one domain. A share never takes more
	// than it leaves to others, and together they fit into the engine's resolver.
	lookupsOfAShare = 40
	lookupsOfARule  = 12
	mostLookups     = resolverQueries / queriesOfALookup

	// mostWaiting is how many more lookups of a share wait, for up to waitTime: as many as an agent has connections by default.
	// The next ones fail at once.
	mostWaiting = 1024
	waitTime    = 4 * time.Second

	// New names of a share. A name that Envoy knows is not new: it asks again when the name's TTL ends.
	newNamesAtOnce = 200
	newNameEvery   = 40 * time.Millisecond

	// Envoy needs about 0.4 us of its main thread for each name of the same kind that it has when one comes, and when that
	// goes (measured). New names of all shares together take about a quarter of it. An agent that has had less of it is served before
	// one that has had more.
	timeOfAName = 3 * time.Microsecond
	timeOfNew   = 500 * time.Microsecond
	mostUnused  = 10 * time.Millisecond

	// lookupTime is how long a lookup takes at most, its wait for room included. Envoy waits as long (dns_query_timeout).
	lookupTime = 5 * time.Second

	// A failure is remembered for its name and share (RFC 9520, section 3.2): the resolver's own, that there was no room, and
	// that there was no answer. c-ares asks again at once, and also goes on when Envoy has given up, for at most 10 s more.
	rememberFailure = time.Second
	rememberSilence = 10 * time.Second
	mostRemembered  = 1 << 16

	// How long an answer is good at most, so that a name that has moved is soon found. After manyNames, those of a share are
	// forgotten earlier: exact ones, which Envoy keeps for 20 s after their last use, just after that.
	longestTTL = time.Minute
	manyNames  = 50
	// forgottenAfter is how much later than its TTL Envoy has forgotten a name, if it does not ask again.
	forgottenAfter = 2 * time.Second

	// The engine's own answers are good for ten minutes, also if the container has gone by then.
	longestTTLOfContainers = 5 * time.Second

	// mostAskers is how many queries wait for the same lookup. c-ares repeats its own.
	mostAskers = 16
)

// What holds for names by whether they are exact: how many Envoy keeps of a share, and how long answers of many are good.
var (
	mostNames        = map[bool]int{true: 500, false: 250}
	longestTTLOfMany = map[bool]time.Duration{true: 25 * time.Second, false: 2 * time.Second}
)

var queryWaits = [queriesOfALookup]time.Duration{1200 * time.Millisecond, 1800 * time.Millisecond, lookupTime}

// shareMark begins the last label of a name that Envoy asks for in an agent's share. No name can have it: neither those in
// rules nor those that agents name. It also ends the label of a name that a rule names exactly.
const shareMark = "*"

// inquiry identifies a lookup: whose share it is, and the question.
type inquiry struct {
	share    string // its label, or "" for a name of UDP, which Envoy looks up itself
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
	rule   string   // the subtree rule that decides the name, or the domain of an exact name, or of one without a rule
	askers []asker
	since  time.Time
	until  time.Time // for so long it waits for room
}

// share is whose lookups are counted together: an agent's below subtree rules, or its exact names.
type share struct {
	agent   string
	exact   bool
	running int
	below   map[string]int // of them, by rule
	waiting []*pendingLookup
	names   map[string]time.Time // that Envoy has, and until when
	next    time.Time            // when it gets the next new name; further back than now, as many more at once
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
	shares  map[string]*share     // one for each label, of which Envoy knows 512, and one for names without
	failed  map[inquiry]time.Time // until when it is remembered

	next time.Time                // when Envoy's main thread has time for the next new name
	wake *time.Timer              // for then
	used map[string]time.Duration // of its time, by agent
	cost func(names int) time.Duration
	turn time.Duration // what the agent had used whose name was the last: others have not lost what they left
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
		lookup.answer(known(asked))
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
	lookup.until = lookup.since.Add(waitTime - rand.N(waitTime/4)) // many that come at once don't fail at once
	if until, failed := f.failed[lookup.inquiry]; failed && lookup.since.Before(until) {
		f.refuse(lookup)
		return
	}
	if known := f.pending[lookup.inquiry]; known != nil {
		if len(known.askers) < mostAskers && !slices.ContainsFunc(known.askers, func(a asker) bool { return a.id == asked.Id }) {
			known.askers = append(known.askers, lookup.askers...)
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
	const longestName, response, operation = 255, 1 << 7, 15 << 3
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

// start starts what a share has room for, but for new names, and gives up what has waited for too long.
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

// isNew reports whether a name may be new to Envoy. It leaves the names of UDP alone: agents can't choose them.
func (s *share) isNew(l *pendingLookup) bool {
	_, known := s.names[l.question.Name]
	return !known && l.share != ""
}

// startNew starts new names while there is time for them, of the agent first whose names have taken the least of it.
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

// firstNew returns the place of the first new name of a share that may start now, or a negative number.
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
		// A container on the agents' network that is called like a host has its name while it is there. Nothing is
		// ever reached through Envoy there, so this is no answer, and must not outlive the container.
		f.fail(l, rememberFailure)
	default:
		delete(f.pending, l.inquiry)
		ttl := shared.longestTTL()
		if has(reply, f.egress) {
			ttl = min(ttl, longestTTLOfContainers)
		}
		answer := l.answerFrom(reply, ttl)
		_, known := shared.names[l.question.Name]
		if len(answer.Answer) > 0 {
			ttl = time.Duration(answer.Answer[0].Header().Ttl) * time.Second
		}
		if known || len(answer.Answer) > 0 {
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

// giveUp starts and gives up what waits. It also forgets the names that Envoy has forgotten.
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

// refuse answers with a failure. Envoy keeps a name that it knows all the same, and asks again within 10 s.
func (f *forwarder) refuse(l *pendingLookup) {
	shared := f.share(l.share)
	if _, known := shared.names[l.question.Name]; known {
		shared.names[l.question.Name] = f.now().Add(rememberSilence + forgottenAfter)
	}
	l.answer(l.failure())
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

	giveUpEvery = 100 * time.Millisecond
)

// Forward answers queries until a socket fails. Its arguments are where it listens, whom it asks, the file with the
// subtrees that rules name, and the networks of agents and of the way out. The supervisor hands it the sockets, which outlive
// it: what is asked while it is started again waits in them. Envoy would remember for seconds that it was refused.
func Forward(arguments []string, given []*os.File) error {
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

func forwardStream(forwarder *forwarder, connection net.Conn) {
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
	for _, name := range file.Names {
		names[name] = struct{}{}
	}
	return names, err
}

// subtreesIn returns what finds the nearest subtree rule in a file that a name is below or at, or "" if there is none.
func subtreesIn(path string) func(name string) string {
	file := hotfile.New(path, parseSubtrees)
	return func(name string) string {
		names, _ := file.Fresh()
		for above := range hostname.Around(name) {
			if _, known := names[above]; known {
				return above
			}
		}
		return ""
	}
}
