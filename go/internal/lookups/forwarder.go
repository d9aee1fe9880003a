// Package lookups is the forwarder, the name server that Envoy asks. It asks the engine's resolver, with room for only so
// many lookups at once, so that names whose servers are slow or silent are in nobody else's way, and it knows when to give
// up. Envoy can do neither. It is a process of its own beside Envoy, without privileges: `fwctl forward`.
//
// Agents can invent names below a subtree rule. Envoy asks for these with one label more, which says whose share the
// lookup is: the last digit of the agent's address (clawker_fw/stack/envoy/lookups.py). Lookups of one share below one
// rule wait for each other, and for nobody else's.
package lookups

import (
	"errors"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
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

// queryTimes is when a name is asked for, counted from the first query.
var queryTimes = [queriesOfALookup]time.Duration{0, 1200 * time.Millisecond, 3 * time.Second}

// shareMark begins the last label of a name that Envoy asks for in an agent's share. No name can have it: neither those in
// rules nor those that agents name.
const shareMark = "*"

const longestName = 255

// inquiry identifies a lookup: whose share it is, and the question. A name of no share has "".
type inquiry struct {
	share  string
	stream bool
	name   string // in lower case, with a dot at its end, without the share
	kind   dnsmessage.Type
	class  dnsmessage.Class
}

type asker struct {
	id    uint16
	reply func([]byte)
}

type pendingLookup struct {
	inquiry
	question dnsmessage.Question        // as Envoy has asked it
	size     *dnsmessage.ResourceHeader // of the OPT record (RFC 6891), if the query has one
	rule     string                     // the subtree rule that decides the name, or "" if one names it exactly
	askers   []asker
	since    time.Time
}

// share is whose lookups are counted together. Those of names that rules name are a share as well: namedShare.
type share struct {
	running int
	below   map[string]int // of them, by rule
	waiting []*pendingLookup
}

const namedShare = "named"

// tally is how many names a share was told since a time.
type tally struct {
	since time.Time
	names int
}

type forwarder struct {
	exchange func(l *pendingLookup) ([]byte, error) // asks the engine's resolver
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

func newForwarder(exchange func(*pendingLookup) ([]byte, error), rule func(string) string) *forwarder {
	return &forwarder{
		exchange: exchange, rule: rule, now: time.Now, sleep: time.Sleep,
		pending: map[inquiry]*pendingLookup{}, shares: map[string]*share{}, failed: map[inquiry]time.Time{},
		told: map[string]*tally{},
	}
}

// take takes on a query, which is answered later, or drops what is none.
func (f *forwarder) take(query []byte, stream bool, reply func([]byte)) {
	var message dnsmessage.Message
	if message.Unpack(query) != nil {
		answerTooLong(query, reply)
		return
	}
	if message.Response || message.OpCode != 0 || len(message.Questions) != 1 {
		return
	}
	question := message.Questions[0]
	if strings.EqualFold(question.Name.String(), lookedUpAgain) {
		reply(known(message.ID, question))
		return
	}
	name, share := shareOf(strings.ToLower(question.Name.String()))
	wanted := &pendingLookup{
		inquiry:  inquiry{share, stream, name, question.Type, question.Class},
		question: question, size: optOf(message), askers: []asker{{message.ID, reply}},
	}
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
		if len(known.askers) < mostAskers && !slices.ContainsFunc(known.askers, func(a asker) bool { return a.id == message.ID }) {
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
func known(id uint16, question dnsmessage.Question) []byte {
	var answers []dnsmessage.Resource
	if question.Type == dnsmessage.TypeA {
		answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: question.Name, Type: question.Type, Class: question.Class},
			Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
		}}
	}
	return response(dnsmessage.Header{ID: id}, question, answers...)
}

// response returns the response to a question. It can be packed, because the question was read from a packed message.
func response(header dnsmessage.Header, question dnsmessage.Question, answers ...dnsmessage.Resource) []byte {
	header.Response, header.RecursionDesired, header.RecursionAvailable = true, true, true
	message := dnsmessage.Message{Header: header, Questions: []dnsmessage.Question{question}, Answers: answers}
	packed, _ := message.Pack()
	return packed
}

// answerTooLong answers that a name does not exist whose query can't be read: with the label of a share, one of over 250
// characters is longer than names can be (RFC 1035, section 2.3.4). Envoy sends it all the same, and would wait.
func answerTooLong(query []byte, reply func([]byte)) {
	var parser dnsmessage.Parser
	header, err := parser.Start(query)
	if err != nil || header.Response || header.OpCode != 0 || len(query) <= longestName {
		return
	}
	answer := slices.Clone(query)
	answer[2] |= 1 << 7 // it is a response
	answer[3] = answer[3]&^15 | byte(dnsmessage.RCodeNameError)
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

// start starts those that wait and for which there is room, in their order.
func (f *forwarder) start(shared *share) {
	oldest := f.now().Add(-waitTime)
	shared.waiting = slices.DeleteFunc(shared.waiting, func(l *pendingLookup) bool {
		if f.running >= mostLookups || !shared.hasRoom(l.rule) || l.since.Before(oldest) {
			return false
		}
		f.running++
		shared.running++
		shared.below[l.rule]++
		go f.run(l, shared)
		return true
	})
}

func (s *share) hasRoom(rule string) bool {
	if rule == "" {
		return s.running < lookupsOfNamed
	}
	return s.running < lookupsOfAShare && s.below[rule] < lookupsOfARule
}

// run asks for a name, answers all who wait for it, and starts others.
func (f *forwarder) run(l *pendingLookup, shared *share) {
	reply, err := f.exchange(l)
	f.lock.Lock()
	defer f.lock.Unlock()
	silent := errors.Is(err, os.ErrDeadlineExceeded)
	switch {
	case silent:
		f.fail(l, rememberSilence)
	case err != nil || code(reply) == dnsmessage.RCodeServerFailure || has(reply, f.agents):
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
	for name, each := range f.shares {
		if f.start(each); each.running == 0 && len(each.waiting) == 0 {
			delete(f.shares, name)
		}
	}
}

// ttlFor returns for how long Envoy may keep an answer: names that a rule names as long as their answers say.
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

// giveUp answers those that have waited for room for too long.
func (f *forwarder) giveUp() {
	f.lock.Lock()
	defer f.lock.Unlock()
	oldest := f.now().Add(-waitTime)
	for name, each := range f.shares {
		each.waiting = slices.DeleteFunc(each.waiting, func(l *pendingLookup) bool {
			over := l.since.Before(oldest)
			if over {
				f.fail(l, rememberCrowd)
			}
			return over
		})
		if each.running == 0 && len(each.waiting) == 0 {
			delete(f.shares, name)
		}
	}
}

// fail answers that a lookup has failed, also to those who ask again for a while.
func (f *forwarder) fail(l *pendingLookup, during time.Duration) {
	delete(f.pending, l.inquiry)
	f.remember(l.inquiry, during)
	l.answer(l.failure())
}

// remember keeps a failure. Beyond mostRemembered, all are forgotten: they only save queries.
func (f *forwarder) remember(failed inquiry, during time.Duration) {
	if len(f.failed) >= mostRemembered {
		now := f.now()
		for each, until := range f.failed {
			if now.After(until) {
				delete(f.failed, each)
			}
		}
		if len(f.failed) >= mostRemembered {
			clear(f.failed)
		}
	}
	f.failed[failed] = f.now().Add(during)
}

// query returns what the engine's resolver is asked: the question, and nothing of what Envoy has added to it.
func (l *pendingLookup) query() ([]byte, error) {
	name, err := dnsmessage.NewName(l.name)
	if err != nil {
		return nil, err
	}
	message := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: uint16(rand.Uint32()), RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: name, Type: l.kind, Class: l.class}},
	}
	if l.size != nil {
		message.Additionals = []dnsmessage.Resource{{Header: *l.size, Body: &dnsmessage.OPTResource{}}}
	}
	return message.Pack()
}

// told returns what Envoy is told of the resolver's reply: the records of the type that it has asked for, under the name
// that it has asked for. It need not know of aliases. It may keep them for so long.
func (l *pendingLookup) told(reply []byte, ttl time.Duration) []byte {
	var parser dnsmessage.Parser
	header, err := parser.Start(reply)
	if err != nil || parser.SkipAllQuestions() != nil {
		return l.failure()
	}
	message := dnsmessage.Message{Header: header, Questions: []dnsmessage.Question{l.question}}
	for {
		record, err := parser.Answer()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err != nil {
			return l.failure()
		}
		ttl = min(ttl, time.Duration(record.Header.TTL)*time.Second)
		if record.Header.Type == l.kind && record.Header.Class == l.class {
			record.Header.Name = l.question.Name
			message.Answers = append(message.Answers, record)
		}
	}
	for number := range message.Answers {
		message.Answers[number].Header.TTL = uint32(ttl / time.Second)
	}
	packed, err := message.Pack()
	if err != nil {
		return l.failure()
	}
	return packed
}

func (l *pendingLookup) failure() []byte {
	return response(dnsmessage.Header{RCode: dnsmessage.RCodeServerFailure}, l.question)
}

func (l *pendingLookup) answer(reply []byte) {
	for _, each := range l.askers {
		own := slices.Clone(reply)
		if len(own) >= 2 {
			own[0], own[1] = byte(each.id>>8), byte(each.id)
			each.reply(own)
		}
	}
}

func answers(query, message []byte) bool {
	var asked, said dnsmessage.Parser
	wanted, err := asked.Start(query)
	if err != nil {
		return false
	}
	header, err := said.Start(message)
	if err != nil || header.ID != wanted.ID || !header.Response {
		return false
	}
	question, err := asked.Question()
	if err != nil {
		return false
	}
	repeated, err := said.Question()
	return err == nil && repeated.Type == question.Type && repeated.Class == question.Class &&
		strings.EqualFold(repeated.Name.String(), question.Name.String())
}

func has(reply []byte, network netip.Prefix) bool {
	var parser dnsmessage.Parser
	if _, err := parser.Start(reply); err != nil || parser.SkipAllQuestions() != nil {
		return false
	}
	for {
		record, err := parser.Answer()
		if err != nil {
			return false
		}
		if address, is := record.Body.(*dnsmessage.AResource); is && network.Contains(netip.AddrFrom4(address.A)) {
			return true
		}
	}
}

func code(message []byte) dnsmessage.RCode {
	if len(message) < 4 {
		return dnsmessage.RCodeServerFailure
	}
	return dnsmessage.RCode(message[3] & 15)
}

func optOf(message dnsmessage.Message) *dnsmessage.ResourceHeader {
	for _, each := range message.Additionals {
		if each.Header.Type == dnsmessage.TypeOPT {
			header := each.Header
			return &header
		}
	}
	return nil
}

// exchangeWith returns a function that asks a name server, over the protocol over which Envoy has asked.
func exchangeWith(server netip.AddrPort) func(*pendingLookup) ([]byte, error) {
	return func(l *pendingLookup) ([]byte, error) {
		query, err := l.query()
		if err != nil {
			return nil, err
		}
		end := l.since.Add(lookupTime)
		if l.stream {
			return exchangeOverTCP(server, query, end)
		}
		return exchangeOverUDP(server, query, end)
	}
}

func exchangeOverUDP(server netip.AddrPort, query []byte, end time.Time) ([]byte, error) {
	connection, err := net.Dial("udp", server.String())
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	begun, message := time.Now(), make([]byte, longestDatagram)
	for number := range queryTimes {
		if _, err := connection.Write(query); err != nil {
			return nil, err
		}
		until := end
		if number+1 < len(queryTimes) {
			until = slices.MinFunc([]time.Time{end, begun.Add(queryTimes[number+1])}, time.Time.Compare)
		}
		if err := connection.SetReadDeadline(until); err != nil {
			return nil, err
		}
		var size int
		for size, err = connection.Read(message); err == nil; size, err = connection.Read(message) {
			if answers(query, message[:size]) {
				return message[:size], nil
			}
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, err
		}
	}
	return nil, os.ErrDeadlineExceeded
}
