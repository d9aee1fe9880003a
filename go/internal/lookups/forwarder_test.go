package lookups

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"clawker-fw/internal/must"
)

// resolverStub is a resolver that answers on command.
type resolverStub struct {
	lock  sync.Mutex
	asked []string
	ready map[string]chan *dns.Msg
}

func (r *resolverStub) exchange(l *pendingLookup) (*dns.Msg, error) {
	r.lock.Lock()
	r.asked = append(r.asked, l.question.Name)
	answer := r.of(l.question.Name)
	r.lock.Unlock()
	if message := <-answer; message != nil {
		return message, nil
	}
	return nil, os.ErrDeadlineExceeded
}

// of returns the channel for a name's answer. Without a message, the resolver is silent.
func (r *resolverStub) of(name string) chan *dns.Msg {
	if r.ready[name] == nil {
		r.ready[name] = make(chan *dns.Msg, 1)
	}
	return r.ready[name]
}

func (r *resolverStub) answer(name string, code int) {
	r.lock.Lock()
	defer r.lock.Unlock()
	r.of(name) <- new(dns.Msg).SetRcode(queryFor(name), code)
}

func (r *resolverStub) silence(name string) {
	r.lock.Lock()
	defer r.lock.Unlock()
	r.of(name) <- nil
}

func (r *resolverStub) count(suffix string) int {
	r.lock.Lock()
	defer r.lock.Unlock()
	names := 0
	for _, name := range r.asked {
		if strings.HasSuffix(name, suffix) {
			names++
		}
	}
	return names
}

func queryFor(name string) *dns.Msg { return new(dns.Msg).SetQuestion(name, dns.TypeA) }

// packed returns a message in wire format.
func packed(t testing.TB, message *dns.Msg) []byte {
	t.Helper()
	return must.Get[[]byte](t)(message.Pack())
}

// unpacked parses a message.
func unpacked(t testing.TB, message []byte) *dns.Msg {
	t.Helper()
	parsed := new(dns.Msg)
	must.Succeed(t, parsed.Unpack(message))
	return parsed
}

// resolvedTo returns the resolver's reply with an address of a name and a TTL in seconds.
func resolvedTo(name, address string, ttl uint32) *dns.Msg {
	resolved := new(dns.Msg).SetReply(queryFor(name))
	header := dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttl}
	resolved.Answer = []dns.RR{&dns.A{Hdr: header, A: net.ParseIP(address)}}
	return resolved
}

// asking returns a lookup of a question, without a share.
func asking(query *dns.Msg) *pendingLookup {
	return &pendingLookup{inquiry: inquiry{question: query.Question[0]}, asked: query}
}

// forwarderUnderTest has subtree rules for names that end with `.test.`, and its own clock.
type forwarderUnderTest struct {
	*forwarder
	*resolverStub
	t       *testing.T
	clock   time.Time
	answers chan string

	patience chan struct{} // of the engine's resolver: each receives when it is over
}

func newForwarderUnderTest(t *testing.T) *forwarderUnderTest {
	t.Helper()
	stub := &resolverStub{ready: map[string]chan *dns.Msg{}}
	under := &forwarderUnderTest{resolverStub: stub, t: t, clock: time.Now(), answers: make(chan string, 10_000), patience: make(chan struct{})}
	under.forwarder = newForwarder(stub.exchange, func(name string) string {
		if _, rule, below := strings.Cut(name, "."); below {
			return rule
		}
		return ""
	})
	under.forwarder.now = func() time.Time { return under.clock }
	under.forwarder.cost = func(int) time.Duration { return 0 }
	under.forwarder.sleep = func(time.Duration) { <-under.patience }
	return under
}

// ask asks for a share, with an id. The answer has the form `id code`.
func (f *forwarderUnderTest) ask(name, share string, id uint16) {
	f.t.Helper()
	name += share
	message := queryFor(name)
	message.Id = id
	f.take(packed(f.t, message), false, func(reply []byte) {
		answer := new(dns.Msg)
		if err := answer.Unpack(reply); err != nil || !answer.Response || answer.Question[0].Name != name {
			f.answers <- fmt.Sprintf("not an answer: %x", reply)
			return
		}
		f.answers <- fmt.Sprintf("%d %s", answer.Id, dns.RcodeToString[answer.Rcode])
	})
}

func (f *forwarderUnderTest) expect(want string) {
	f.t.Helper()
	select {
	case answer := <-f.answers:
		if answer != want {
			f.t.Errorf("%q was said, not %q", answer, want)
		}
	case <-time.After(5 * time.Second):
		f.t.Errorf("%q was not said", want)
	}
}

// pass advances the clock.
func (f *forwarderUnderTest) pass(during time.Duration) {
	f.forwarder.lock.Lock()
	defer f.forwarder.lock.Unlock()
	f.clock = f.clock.Add(during)
}

func (f *forwarderUnderTest) quiet() {
	f.t.Helper()
	select {
	case answer := <-f.answers:
		f.t.Errorf("%q was said", answer)
	case <-time.After(20 * time.Millisecond):
	}
}

// A rule's exact name uses no subtree's room, even below a subtree rule.
func TestForwarderNamesWithinASubtree(t *testing.T) {
	under := newForwarderUnderTest(t)
	for number := range 2 * lookupsOfARule {
		under.ask(fmt.Sprintf("x%d.silent.test.", number), "*0.", 1)
	}
	for number := range lookupsOfARule {
		under.ask(fmt.Sprintf("named%d.silent.test.", number), "*0*.", 2)
	}
	must.Happen(t, "only what was invented waits", func() bool { return under.count(".silent.test.") == 2*lookupsOfARule })
}

// Names without a rule use their domain's room, so that a silent domain delays no others.
func TestForwarderNamesWithoutARule(t *testing.T) {
	under := newForwarderUnderTest(t)
	under.forwarder.rule = func(string) string { return "" }
	for number := range 2 * lookupsOfARule {
		under.ask(fmt.Sprintf("x%d.silent.test.", number), "*0.", 1)
	}
	under.ask("x.there.example.", "*0.", 2)
	must.Happen(t, "another domain is asked", func() bool { return under.count(".there.example.") == 1 })
}

// Exact names with silent servers delay neither another agent's lookups nor other domains, whoever asks. A failure
// is remembered for its name.
func TestForwarderSilentExactNames(t *testing.T) {
	for _, hostile := range []string{"*0*.", ""} {
		under := newForwarderUnderTest(t)
		for number := range 70 {
			under.ask(fmt.Sprintf("x%d.silent.test.", number), hostile, 1)
		}
		under.pass(waitTime * 3 / 4)
		for id, ask := range [][2]string{{"healthy.test.", hostile}, {"x69.silent.test.", "*1*."}} {
			under.ask(ask[0], ask[1], uint16(7+id))
			under.answer(ask[0], dns.RcodeSuccess)
			under.expect(fmt.Sprintf("%d NOERROR", 7+id))
		}
		under.pass(waitTime/4 + time.Millisecond)
		under.giveUp()
		for range 70 - lookupsOfARule {
			under.expect("1 SERVFAIL")
		}
		under.ask("other.test.", hostile, 9)
		under.answer("other.test.", dns.RcodeSuccess)
		under.expect("9 NOERROR")
	}
}

// An agent gets a limited number of new names at once, and then one after the other. Others get theirs at once,
// and the agent gets names that Envoy knows.
func TestForwarderBoundsNewNames(t *testing.T) {
	for _, share := range []string{"*0.", "*0*."} {
		under := newForwarderUnderTest(t)
		learn := func(number int) string {
			name := fmt.Sprintf("x%d.rule%d.test.", number, number)
			if number > 0 {
				under.answer(name, dns.RcodeSuccess)
			} else {
				under.of(name) <- resolvedTo(name, "10.1.2.3", 1) // the others have no address, and are not kept
			}
			under.ask(name, share, 1)
			return name
		}
		for number := range newNamesAtOnce {
			learn(number)
			under.expect("1 NOERROR")
		}
		last := learn(newNamesAtOnce)
		under.quiet()
		under.answer("a.test.", dns.RcodeSuccess)
		under.ask("a.test.", "*1"+share[2:], 7)
		under.expect("7 NOERROR")
		under.answer("x0.rule0.test.", dns.RcodeSuccess)
		under.ask("x0.rule0.test.", share, 8)
		under.expect("8 NOERROR")

		under.pass(newNameEvery)
		under.giveUp()
		under.expect("1 NOERROR")
		if count := under.count(last); count != 1 {
			t.Errorf("%s was looked up %d times", last, count)
		}
	}
}

// Envoy keeps a limited number of an agent's names, even if it keeps one with a failed server, for which it asks
// again.
func TestForwarderBoundsKnownNames(t *testing.T) {
	under := newForwarderUnderTest(t)
	shared := under.share("*0*")
	for number := range mostNames[true] - 1 {
		shared.names[fmt.Sprint(number)] = under.clock.Add(time.Hour)
	}
	for _, code := range []int{dns.RcodeSuccess, dns.RcodeServerFailure} {
		under.of("a.test.") <- resolvedTo("a.test.", "10.1.2.3", 1)
		if code != dns.RcodeSuccess {
			<-under.of("a.test.")
			under.answer("a.test.", code)
		}
		under.ask("a.test.", "*0*.", 1)
		under.expect("1 " + dns.RcodeToString[code])
	}
	under.pass(rememberSilence)
	under.giveUp()
	under.ask("b.test.", "*0*.", 2)
	under.answer("b.test.", dns.RcodeSuccess)
	under.quiet()
	under.pass(forgottenAfter + time.Millisecond)
	under.giveUp()
	under.expect("2 NOERROR")
}

// The more names of a kind Envoy has, the slower are all agents' new ones. The agent that has used the least of
// Envoy's time comes first, however many wait for others.
func TestForwarderBoundsNewNamesOfAll(t *testing.T) {
	const names = 10_000
	for kind, slow := range map[string]bool{"*": true, "": false} {
		under := newForwarderUnderTest(t)
		under.cost = timeOfNewName
		for number := range names {
			under.share("*9" + kind).names[fmt.Sprint(number)] = under.clock.Add(time.Hour)
		}
		ask := func(id int, share string) {
			name := fmt.Sprintf("x%d.rule%d.test.", id, id)
			under.answer(name, dns.RcodeSuccess)
			under.ask(name, share, uint16(id))
		}
		ask(1, "*0*.")
		under.expect("1 NOERROR")
		ask(2, "*0*.")
		if !slow {
			under.expect("2 NOERROR")
			continue
		}
		for id := 3; id < 10; id++ {
			ask(id, "*0*.")
		}
		ask(10, "*1*.")
		under.quiet()
		for _, want := range []string{"10 NOERROR", "2 NOERROR", "3 NOERROR"} {
			under.pass(timeOfNewName(names))
			under.giveUp()
			under.expect(want)
			under.quiet()
		}
		ask(11, "*1.") // its kind has few names, and its agent has had less of the time
		under.pass(mostUnused)
		under.giveUp()
		under.quiet()
		under.pass(timeOfNewName(names) - mostUnused)
		under.giveUp()
		must.Happen(t, "it is looked up", func() bool { return under.count("x11.rule11.test.") == 1 })
	}
}

// While eight agents ask for as many names as they can, invented ones and those of rules, a neighbour with 20 new
// names a second waits for only a few of theirs.
func TestForwarderServesANeighbour(t *testing.T) {
	const step, steps = 2 * time.Millisecond, 3_000
	under := newForwarderUnderTest(t)
	under.cost = timeOfNewName
	under.forwarder.exchange = func(l *pendingLookup) (*dns.Msg, error) { return resolvedTo(l.question.Name, "198.51.100.7", 60), nil }
	var waits []time.Duration
	ask := func(name, share string, answered func()) {
		under.take(packed(t, queryFor(name+share)), false, func([]byte) { answered() })
	}
	for at := range steps {
		for agent := range 8 {
			for kind, names := range map[string]int{"": steps, "*": 1000} {
				if at%5 == 0 {
					ask(fmt.Sprintf("x%d.rule%d.test.", rand.IntN(names), agent), fmt.Sprintf("*%d%s.", agent, kind), func() {})
				}
			}
		}
		if at%25 == 0 {
			asked := under.clock
			ask(fmt.Sprintf("own%d.rule.test.", at), "*9.", func() { waits = append(waits, under.clock.Sub(asked)) })
		}
		must.Happen(t, "all answers", func() bool {
			under.forwarder.lock.Lock()
			defer under.forwarder.lock.Unlock()
			return under.forwarder.running == 0
		})
		under.pass(step)
		under.giveUp()
	}
	slices.Sort(waits)
	if late := waits[len(waits)*99/100]; len(waits) < steps/25-1 || late > 25*time.Millisecond {
		t.Errorf("of %d new names, the slowest hundredth waited for %s", len(waits), late)
	}
}

// A new name that waits for time starts without a further query.
func TestForwarderWakes(t *testing.T) {
	under := newForwarderUnderTest(t)
	under.now = time.Now
	under.cost = func(int) time.Duration { return 50 * time.Millisecond }
	for id := range 3 {
		name := fmt.Sprintf("x%d.test.", id)
		under.answer(name, dns.RcodeSuccess)
		under.ask(name, "*0*.", uint16(id))
	}
	for id := range 3 {
		under.expect(fmt.Sprintf("%d NOERROR", id))
	}
}

// Identical queries get the same answer, each with its own id, from one lookup.
func TestForwarderAnswersAll(t *testing.T) {
	under := newForwarderUnderTest(t)
	under.ask("a.rule.test.", "*0.", 1)
	under.ask("a.rule.test.", "*0.", 2)
	under.ask("a.rule.test.", "*0.", 2) // a repetition

	under.answer("a.rule.test.", dns.RcodeNameError)

	under.expect("1 NXDOMAIN")
	under.expect("2 NXDOMAIN")
	under.quiet()
	if count := under.count("a.rule.test."); count != 1 {
		t.Errorf("it was looked up %d times", count)
	}
}

// Lookups of one share below one rule wait for each other, and delay no other rule, share or name.
func TestForwarderSharesRoom(t *testing.T) {
	under := newForwarderUnderTest(t)
	for number := range 2 * lookupsOfARule {
		under.ask(fmt.Sprintf("x%d.silent.test.", number), "*0.", 1)
	}
	must.Happen(t, "room is taken", func() bool { return under.count(".silent.test.") == lookupsOfARule })

	for _, test := range []struct {
		name  string
		share string
	}{{"a.other.test.", "*0."}, {"x.silent.test.", "*1."}, {"x.silent.test.", "*0*."}, {"named.", ""}} {
		under.ask(test.name, test.share, 7)
		under.answer(test.name, dns.RcodeSuccess)
		under.expect("7 NOERROR")
	}
	if count := under.count(".silent.test."); count != lookupsOfARule+2 {
		t.Errorf("%d lookups had room for %d, and two of others", count, lookupsOfARule)
	}
	under.silence("x0.silent.test.")
	under.expect("1 SERVFAIL")
	under.quiet() // it takes room in the engine's resolver
	if count := under.count(".silent.test."); count != lookupsOfARule+2 {
		t.Errorf("%d lookups", count)
	}
	under.patience <- struct{}{}
	must.Happen(t, "the next", func() bool { return under.count(".silent.test.") == lookupsOfARule+3 })
}

// Envoy gets the addresses under the requested name, with the lowest TTL of the records that led to them.
func TestForwarderTellsAddresses(t *testing.T) {
	const asked, alias = "a.rule.test.*7.", "b.test."
	resolved := resolvedTo(alias, "10.1.2.3", 7200)
	resolved.Question, resolved.Truncated = queryFor("a.rule.test.").Question, true
	header := dns.RR_Header{Name: "a.rule.test.", Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: 30}
	resolved.Answer = slices.Insert(resolved.Answer, 0, dns.RR(&dns.CNAME{Hdr: header, Target: alias}))
	l := asking(queryFor(asked))
	for keep, want := range map[time.Duration]uint32{time.Hour: 30, 5 * time.Second: 5} {
		rewritten := l.answerFrom(resolved.Copy(), keep)
		if !rewritten.Response || !rewritten.Truncated || len(rewritten.Question) != 1 || rewritten.Question[0].Name != asked || len(rewritten.Answer) != 1 {
			t.Fatalf("it is told %+v", rewritten)
		}
		if answer := rewritten.Answer[0].(*dns.A); answer.Hdr.Name != asked || answer.Hdr.Ttl != want || answer.A.String() != "10.1.2.3" {
			t.Errorf("it is told %+v, not for %d s", answer, want)
		}
	}
}

// Envoy forgets the names of a share with many of them sooner, and no others.
func TestForwarderKeepsFewNames(t *testing.T) {
	for label, exact := range map[string]bool{"*1": false, "*1*": true} {
		under := newForwarderUnderTest(t)
		many := under.share(label)
		for number := range manyNames {
			if kept := many.longestTTL(); kept != longestTTL {
				t.Fatalf("the name number %d is kept for %s", number, kept)
			}
			many.names[fmt.Sprint(number)] = under.clock.Add(time.Second)
		}
		if kept := many.longestTTL(); kept != longestTTLOfMany[exact] {
			t.Errorf("one name more is kept for %s", kept)
		}
		if kept := under.share("*2").longestTTL(); kept != longestTTL {
			t.Errorf("another share's is kept for %s", kept)
		}
		under.pass(2 * time.Second)
		under.giveUp()
		if kept := many.longestTTL(); kept != longestTTL {
			t.Errorf("later, one is kept for %s", kept)
		}
	}
}

// A name is resolved again after at most a minute, whatever the TTL of its answer.
func TestForwarderBoundsAnswers(t *testing.T) {
	const day = 24 * 60 * 60
	for _, share := range []string{"*3.", "*3*.", ""} {
		under := newForwarderUnderTest(t)
		query := packed(t, queryFor("a.rule.test."+share))
		for _, stream := range []bool{false, true} {
			under.of("a.rule.test.") <- resolvedTo("a.rule.test.", "10.1.2.3", day)
			replies := make(chan []byte, 1)
			under.take(query, stream, func(reply []byte) { replies <- reply })
			if reply := unpacked(t, <-replies); len(reply.Answer) != 1 || reply.Answer[0].Header().Ttl != 60 {
				t.Errorf("in the share %q, it is told %+v", share, reply)
			}
		}
	}
}

// Only Envoy can set a lookup's share: no label of a name has that form.
func TestShareOf(t *testing.T) {
	for asked, want := range map[string][2]string{
		"a.test.*4.": {"a.test.", "*4"}, "a.test.": {"a.test.", ""}, "*4.": {"*4.", ""}, ".": {".", ""}, "a.*4.test.": {"a.*4.test.", ""},
	} {
		if name, share := shareOf(asked); name != want[0] || share != want[1] {
			t.Errorf("%s is %q of %q", asked, name, share)
		}
	}
}

// A name that is too long with its share's label does not exist: nothing waits for it.
func TestForwarderRefusesLongNames(t *testing.T) {
	under := newForwarderUnderTest(t)
	query := []byte{0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for range 127 {
		query = append(query, 1, 'c')
	}
	query = append(query, 2, '*', '1', 0, 0, 1, 0, 1)
	var lastReply []byte
	under.take(query, false, func(reply []byte) { lastReply = reply })
	if len(lastReply) != len(query) || lastReply[2]>>7 != 1 || lastReply[3]&15 != dns.RcodeNameError || !slices.Equal(lastReply[4:], query[4:]) {
		t.Errorf("it is answered with %x", lastReply)
	}
}

// All rules together stay within a share's limit, and all shares within the engine's resolver's.
func TestForwarderBoundsAll(t *testing.T) {
	under := newForwarderUnderTest(t)
	for share := range 40 {
		for number := range 3 * lookupsOfAShare {
			under.ask(fmt.Sprintf("x%d.rule%d.test.", number, number%10), fmt.Sprintf("*%d.", share), 1)
		}
		if share == 3 {
			must.Happen(t, "each has all that a share can have", func() bool { return under.count(".test.") == 4*lookupsOfAShare })
		}
	}
	must.Happen(t, "room is taken", func() bool { return under.count(".test.") == mostLookups })
	under.quiet()

	if count := under.count(".test."); count != mostLookups {
		t.Errorf("%d lookups at once, of %d", count, mostLookups)
	}
}

// A lookup that waits too long for room fails, even if it is repeated; and the number of waiting ones is limited.
func TestForwarderGivesUp(t *testing.T) {
	under := newForwarderUnderTest(t)
	for number := range lookupsOfARule + mostWaiting + 1 {
		under.ask(fmt.Sprintf("x%d.silent.test.", number), "*0.", uint16(number))
	}
	last := lookupsOfARule + mostWaiting
	under.expect(fmt.Sprintf("%d SERVFAIL", last))
	under.pass(rememberFailure - time.Millisecond)
	under.ask(fmt.Sprintf("x%d.silent.test.", last), "*0.", 8)
	under.expect("8 SERVFAIL")
	under.pass(waitTime)
	under.giveUp()

	for number := range mostWaiting {
		under.expect(fmt.Sprintf("%d SERVFAIL", lookupsOfARule+number))
	}
	under.ask(fmt.Sprintf("x%d.silent.test.", lookupsOfARule), "*0.", 7)
	under.expect("7 SERVFAIL")
	under.quiet() // those that have room wait for the resolver
	if count := under.count(".silent.test."); count != lookupsOfARule {
		t.Errorf("%d were looked up", count)
	}
}

// A failure is remembered: for a second if it is the resolver's, and for longer after a silence.
func TestForwarderRemembersFailures(t *testing.T) {
	for name, during := range map[string]time.Duration{"a.bad.test.": rememberFailure, "a.silent.test.": rememberSilence} {
		under := newForwarderUnderTest(t)
		under.ask(name, "*0.", 1)
		if during == rememberSilence {
			under.silence(name)
		} else {
			under.answer(name, dns.RcodeServerFailure)
		}
		under.expect("1 SERVFAIL")

		under.pass(during - time.Millisecond)
		under.ask(name, "*0.", 2)
		under.expect("2 SERVFAIL")
		if count := under.count(name); count != 1 {
			t.Errorf("%s was looked up %d times", name, count)
		}

		under.pass(2 * time.Millisecond)
		under.ask(name, "*0.", 3)
		under.answer(name, dns.RcodeSuccess)
		under.expect("3 NOERROR")
	}
}

// A lookup that has waited too long fails when room appears, and does not start: nothing waits for it any more.
func TestForwarderBeginsNothingLate(t *testing.T) {
	under := newForwarderUnderTest(t)
	for number := range 2 * lookupsOfARule {
		under.ask(fmt.Sprintf("x%d.slow.test.", number), "*0.", 1)
	}
	must.Happen(t, "room is taken", func() bool { return under.count(".slow.test.") == lookupsOfARule })
	under.pass(waitTime + time.Millisecond)

	under.answer("x0.slow.test.", dns.RcodeSuccess)

	under.expect("1 NOERROR")
	for range lookupsOfARule {
		under.expect("1 SERVFAIL")
	}
	under.quiet()
	if count := under.count(".slow.test."); count != lookupsOfARule {
		t.Errorf("%d were begun", count)
	}
}

// Remembered failures are limited.
func TestForwarderForgets(t *testing.T) {
	under := newForwarderUnderTest(t)
	for number := range 2*mostRemembered + 1 {
		lookup := asking(queryFor(fmt.Sprintf("x%d.test.", number)))
		under.fail(lookup, time.Hour)
	}
	if size := len(under.failed); size > mostRemembered {
		t.Errorf("%d are remembered", size)
	}
}

// Anything except a query is dropped.
func TestForwarderDropsJunk(t *testing.T) {
	under := newForwarderUnderTest(t)
	answer := queryFor("a.rule.test.")
	answer.Response = true
	for _, junk := range [][]byte{nil, {1}, make([]byte, 12), packed(t, answer)} {
		under.take(junk, false, func([]byte) { t.Errorf("%x was answered", junk) })
	}
	if len(under.pending) > 0 {
		t.Errorf("pending: %v", under.pending)
	}
}

// The engine's resolver gets the question and the answer's size, and no other option, because others get the same
// answer.
func TestForwarderAsksOnlyWhatMatters(t *testing.T) {
	message := queryFor("a.rule.test.").SetEdns0(1232, false)
	message.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "3132333435363738"}}

	query := unpacked(t, packed(t, asking(message).query()))

	if opt := query.IsEdns0(); opt == nil || len(opt.Option) > 0 || opt.UDPSize() != 1232 {
		t.Errorf("it asks with %+v", query.Extra)
	}
	if query.Question[0] != message.Question[0] {
		t.Errorf("it asks for %v", query.Question)
	}
}

// An unanswered query is repeated, and fails in time. An answer to another query does not count, and an unreadable
// reply fails at once.
func TestExchangeOverUDP(t *testing.T) {
	server := must.Open[*net.UDPConn](t)(net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0"))))
	go func() {
		message := make([]byte, longestDatagram)
		for heard := 0; ; {
			size, from, err := server.ReadFromUDPAddrPort(message)
			if err != nil {
				return
			}
			query := unpacked(t, message[:size])
			switch query.Question[0].Name {
			case "silent.test.":
				continue
			case "late.test.":
				if heard++; heard == 1 {
					continue
				}
			case "broken.test.":
				_, _ = server.WriteToUDPAddrPort(message[:size-1], from)
				continue
			}
			right, wrong := new(dns.Msg).SetReply(query), new(dns.Msg).SetReply(query)
			wrong.Id++
			for _, message := range []*dns.Msg{wrong, right} {
				_, _ = server.WriteToUDPAddrPort(packed(t, message), from)
			}
		}
	}()
	ask := exchangeWith(server.LocalAddr().(*net.UDPAddr).AddrPort())
	for name, silent := range map[string]bool{"late.test.": false, "silent.test.": true, "broken.test.": false} {
		begun := time.Now()
		lookup := asking(queryFor(name))
		lookup.since = begun.Add(-2 * time.Second)
		reply, err := ask(lookup)
		if silent != errors.Is(err, os.ErrDeadlineExceeded) || (name == "late.test.") != (err == nil && reply.Rcode == dns.RcodeSuccess) {
			t.Errorf("%s: %v, %v", name, reply, err)
		}
		if taken := time.Since(begun); taken > lookupTime-time.Second {
			t.Errorf("%s: it took %s", name, taken)
		}
	}
}

// The nearest rule counts. A changed file is read again, and an unreadable one changes nothing.
func TestSubtrees(t *testing.T) {
	file := filepath.Join(t.TempDir(), "subtrees.json")
	around := subtreesIn(file)
	expect := func(name, want string) {
		t.Helper()
		if got := around(name); got != want {
			t.Errorf("%s is below %q, not %q", name, got, want)
		}
	}
	expect("x.a.test", "")
	put := func(text string) {
		t.Helper()
		must.Succeed(t, os.WriteFile(file+".new", []byte(text), 0o600))
		must.Succeed(t, os.Rename(file+".new", file))
	}
	put(`{"names":["a.test","b.a.test"]}`)
	for name, want := range map[string]string{
		"a.test": "a.test", "x.a.test": "a.test", "b.a.test": "b.a.test", "x.y.b.a.test": "b.a.test", "xa.test": "", "test": "",
	} {
		expect(name, want)
	}
	put(`{"names":["c.test"]}`)
	expect("x.a.test", "")
	expect("x.c.test", "c.test")
	put(`{`)
	expect("x.c.test", "c.test")
	put(`{"names":[]}`)
	expect("x.c.test", "")
}

// The engine answers for containers on our networks itself, with a TTL of ten minutes. An address on the agent
// network is no answer, and is forgotten within a second. One on the way out is kept for a moment, and others for
// a minute.
func TestForwarderTakesNoContainerForAHost(t *testing.T) {
	for address, want := range map[string]uint32{
		"10.213.0.2": 0, "10.214.0.2": uint32(longestTTLOfContainers / time.Second), "10.215.0.2": 60,
	} {
		under := newForwarderUnderTest(t)
		under.agents, under.egress = netip.MustParsePrefix("10.213.0.0/20"), netip.MustParsePrefix("10.214.0.0/24")
		under.of("named.") <- resolvedTo("named.", address, 600)
		query := packed(t, queryFor("named."))
		replies := make(chan []byte, 1)
		under.take(query, false, func(reply []byte) { replies <- reply })
		reply := unpacked(t, <-replies)
		if want == 0 {
			if reply.Rcode != dns.RcodeServerFailure || len(reply.Answer) != 0 {
				t.Errorf("%v: it is told %+v", address, reply)
			}
			under.pass(rememberFailure + time.Millisecond)
			under.answer("named.", dns.RcodeNameError) // the container has gone
			under.take(query, false, func(reply []byte) { replies <- reply })
			if unpacked(t, <-replies).Rcode != dns.RcodeNameError {
				t.Errorf("%v: its name outlives the container", address)
			}
			continue
		}
		if len(reply.Answer) != 1 || reply.Answer[0].Header().Ttl != want {
			t.Errorf("%v: it is told %+v, not for %d s", address, reply.Answer, want)
		}
	}
}

// Envoy's name for checking its lookups has an address, and is not forwarded.
func TestKnownName(t *testing.T) {
	under := newForwarderUnderTest(t)
	for _, name := range []string{lookedUpAgain, strings.ToUpper(lookedUpAgain)} {
		under.ask(name, "", 7)
		under.expect("7 NOERROR")
	}
	if asked := under.count(lookedUpAgain); asked != 0 {
		t.Errorf("the engine's resolver was asked %d times", asked)
	}
	for kind, records := range map[uint16]int{dns.TypeA: 1, dns.TypeAAAA: 0} {
		if answer := loopbackAnswer(new(dns.Msg).SetQuestion(lookedUpAgain, kind)); len(answer.Answer) != records || answer.Rcode != dns.RcodeSuccess {
			t.Errorf("of type %d: %v", kind, answer)
		}
	}
}
