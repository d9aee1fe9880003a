package signing

import (
	"container/list"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// mostHeld limits Envoy's certificates. Envoy keeps each until it is removed, and each spelling of a name is
// another one. Beyond the limit, the rule with the most certificates loses its oldest: an agent that invents names
// or spellings below one rule takes no certificate from other rules. (Envoy does not report the agent.) Secrets
// don't count: there are as many as rules name, and Envoy would keep using a removed one.
const mostHeld = 1000

type counters struct {
	held, rejected atomic.Int64
	lastFailure    atomic.Pointer[string]
}

func (c *counters) fail(what string) { c.lastFailure.Store(&what) }

// subscription is the state of one stream: Envoy's resources and open requests. Each answer follows from the state
// when it is sent, whatever has changed. It belongs to one goroutine.
type subscription struct {
	sources      sources
	counts       *counters
	most         int
	held         map[string]*holding
	order        *list.List      // names of held resources, oldest first
	certificates int             // number of held certificates
	ofRules      map[string]int  // number of certificates by rule
	pending      []string        // names to answer, in order
	awaiting     map[string]bool // unanswered ones; true for a removal
	nonce        uint64
}

type holding struct {
	stamp
	nonce string
	place *list.Element
}

func newSubscription(from sources, counts *counters) *subscription {
	return &subscription{
		sources: from, counts: counts, most: mostHeld,
		held: map[string]*holding{}, order: list.New(), ofRules: map[string]int{}, awaiting: map[string]bool{},
	}
}

// take processes a request. Every subscription gets an answer, even a repeated one.
func (s *subscription) take(message request) {
	if message.rejected {
		s.reject(message)
	}
	for _, name := range message.unsubscribe {
		delete(s.awaiting, name)
		s.forget(name)
	}
	for _, name := range message.subscribe {
		s.await(name, false)
	}
}

// reject forgets a certificate that Envoy rejected. Envoy would wait for another one and never ask again, so it is
// removed. Secrets were verified before they were sent.
func (s *subscription) reject(message request) {
	s.counts.rejected.Add(1)
	s.counts.fail("Envoy rejected a certificate or secret: " + message.reason)
	for name, holding := range s.held {
		if holding.nonce == message.nonce && !isSecret(name) {
			s.forget(name)
			s.await(name, true)
			return
		}
	}
}

func (s *subscription) review(now time.Time) {
	for element := s.order.Front(); element != nil; element = element.Next() {
		name := element.Value.(string)
		if !s.sources.of(name).isCurrent(name, s.held[name].stamp, now) {
			s.await(name, false)
		}
	}
}

func isSecret(name string) bool { return strings.HasPrefix(name, SecretPrefix) }

func (s *subscription) await(name string, nothing bool) {
	if _, already := s.awaiting[name]; !already {
		s.pending = append(s.pending, name)
	}
	s.awaiting[name] = nothing
}

func (s *subscription) forget(name string) {
	if holding := s.held[name]; holding != nil {
		s.order.Remove(holding.place)
		delete(s.held, name)
		s.count(name, holding.rule, -1)
		s.counts.held.Add(-1)
	}
}

func (s *subscription) count(name, rule string, more int) {
	if isSecret(name) {
		return
	}
	s.certificates += more
	if s.ofRules[rule] += more; s.ofRules[rule] == 0 {
		delete(s.ofRules, rule)
	}
}

func (s *subscription) next(now time.Time) []byte {
	for len(s.pending) > 0 {
		name := s.pending[0]
		s.pending = s.pending[1:]
		nothing, awaited := s.awaiting[name]
		if !awaited {
			continue
		}
		delete(s.awaiting, name)
		s.nonce++
		nonce := strconv.FormatUint(s.nonce, 10)
		if !nothing {
			if resource, ok := s.issue(name, now); ok {
				s.hold(name, resource.stamp, nonce)
				return response(name, resource.version, nonce, resource.secret)
			}
		}
		s.forget(name)
		return removed(name, nonce)
	}
	s.pending = nil
	return nil
}

func (s *subscription) issue(name string, now time.Time) (issued, bool) {
	resource, err := s.sources.of(name).issue(name, now)
	if err != nil && !errors.Is(err, errRefused) {
		s.counts.fail(strconv.Quote(name) + ": " + err.Error())
	}
	return resource, err == nil
}

// hold remembers a sent resource. One too many is removed; Envoy requests it again if it is still used.
func (s *subscription) hold(name string, issued stamp, nonce string) {
	s.count(name, issued.rule, 1)
	if before := s.held[name]; before != nil {
		s.count(name, before.rule, -1)
		before.stamp, before.nonce = issued, nonce
		return
	}
	s.held[name] = &holding{issued, nonce, s.order.PushBack(name)}
	s.counts.held.Add(1)
	if s.certificates > s.most {
		oldest := s.oldest()
		s.forget(oldest)
		s.await(oldest, true)
	}
}

func (s *subscription) oldest() string {
	most := slices.Max(slices.Collect(maps.Values(s.ofRules)))
	for element := s.order.Front(); ; element = element.Next() {
		if name := element.Value.(string); !isSecret(name) && s.ofRules[s.held[name].rule] == most {
			return name
		}
	}
}

func (s *subscription) end() { s.counts.held.Add(-int64(len(s.held))) }
