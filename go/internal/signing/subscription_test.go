package signing

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// listed issues the resources in a list: names with a version.
type listed map[string]string

func (l listed) issue(asked string, _ time.Time) (issued, error) {
	switch version := l[asked]; version {
	case "":
		return issued{}, errRefused
	case "fails":
		return issued{}, errors.New("it fails")
	default:
		_, rule, _ := strings.Cut(asked, ".")
		return issued{tlsCertificate(asked, []byte(version), []byte("key")), version, stamp{issuer: version, rule: rule}}, nil
	}
}

func (l listed) isCurrent(asked string, before stamp, _ time.Time) bool {
	return l[asked] == before.issuer
}

// scene is a subscription to a list.
type scene struct {
	t testing.TB
	listed
	*subscription
	counters
}

func newScene(t testing.TB, names ...string) *scene {
	made := &scene{t: t, listed: listed{}}
	for _, name := range names {
		made.listed[name] = "1"
	}
	made.subscription = newSubscription(sources{made.listed, newSecrets(Kept{}, time.Now)}, &made.counters)
	return made
}

// answers returns all responses: names with their version, or with a minus for a removal.
func (s *scene) answers() string {
	s.t.Helper()
	var answers []string
	for message := s.next(testTime); message != nil; message = s.next(testTime) {
		if answer := parseAnswer(s.t, message); answer.isRemoval() {
			answers = append(answers, "-"+answer.name)
		} else {
			answers = append(answers, answer.name+"="+answer.version)
		}
	}
	return strings.Join(answers, " ")
}

func (s *scene) expect(when, want string, held ...string) {
	s.t.Helper()
	if got := s.answers(); got != want {
		s.t.Errorf("%s: the answers are %q instead of %q", when, got, want)
	}
	var names []string
	for element := s.order.Front(); element != nil; element = element.Next() {
		names = append(names, element.Value.(string))
	}
	if !slices.Equal(names, held) || len(s.subscription.held) != len(held) || s.counters.held.Load() != int64(len(held)) {
		s.t.Errorf("%s: %q are held, %d, and %d are counted", when, names, len(s.subscription.held), s.counters.held.Load())
	}
}

// Every subscription is answered, each on its own, even a repeated one.
func TestEveryNameIsAnswered(t *testing.T) {
	s := newScene(t, "a", "b")
	s.listed["c"] = "fails"
	s.expect("nothing was asked", "")
	s.take(request{subscribe: []string{"a", "x", "b", "c", "other:a", "a"}})
	s.expect("first", "a=1 -x b=1 -c -other:a", "a", "b")
	s.take(request{subscribe: []string{"a", "x"}, nonce: "1"})
	s.expect("again", "a=1 -x", "a", "b")
	s.take(request{nonce: "2"})
	s.expect("an acknowledgement", "", "a", "b")
	if failure := *s.lastFailure.Load(); failure != `"c": it fails` {
		t.Errorf("told is %s", failure)
	}
}

// An unsubscribed name is forgotten, and no longer answered.
func TestUnsubscribed(t *testing.T) {
	s := newScene(t, "a", "b")
	s.take(request{subscribe: []string{"a", "b"}})
	s.expect("subscribed", "a=1 b=1", "a", "b")
	s.take(request{unsubscribe: []string{"a", "x"}})
	s.expect("unsubscribed", "", "b")
	s.take(request{subscribe: []string{"a"}})
	s.take(request{unsubscribe: []string{"a"}})
	s.expect("before it was answered", "", "b")
	s.take(request{unsubscribe: []string{"b"}, subscribe: []string{"b"}})
	s.expect("both at once", "b=1", "b")
}

// Changes reach Envoy: another version, or a removal.
func TestReview(t *testing.T) {
	s := newScene(t, "a", "b", "c", "d")
	s.take(request{subscribe: []string{"a", "b", "c", "d"}})
	s.expect("at first", "a=1 b=1 c=1 d=1", "a", "b", "c", "d")
	s.review(testTime)
	s.expect("nothing has changed", "", "a", "b", "c", "d")
	s.listed["b"], s.listed["d"] = "2", "fails"
	delete(s.listed, "c")
	s.review(testTime)
	s.review(testTime)
	s.expect("changed", "b=2 -c -d", "a", "b")
	s.take(request{subscribe: []string{"c"}})
	s.expect("asked again", "-c", "a", "b")
}

// Beyond the limit, the oldest name is removed, after the new one was sent. Waiting names are never skipped.
func TestEviction(t *testing.T) {
	s := newScene(t, "a", "b", "c", "d")
	s.most = 2
	s.take(request{subscribe: []string{"a", "b", "x", "c", "d"}})
	s.expect("too many", "a=1 b=1 -x c=1 d=1 -a -b", "c", "d")
	s.take(request{subscribe: []string{"c"}})
	s.expect("one that is held", "c=1", "c", "d")
	s.take(request{subscribe: []string{"a"}})
	s.expect("one that was taken back", "a=1 -c", "d", "a")
}

// However many names are invented below one rule, other rules' certificates stay, and the surplus is that rule's.
func TestARulesEviction(t *testing.T) {
	s := newScene(t, "kept", "a.other.test", "b.other.test")
	s.most = 10
	s.take(request{subscribe: []string{"kept", "a.other.test"}})
	s.answers()
	made := func(number int) string { return fmt.Sprintf("n%d.made.test", number) }
	for number := range 1000 {
		s.listed[made(number)] = "1"
		s.take(request{subscribe: []string{made(number)}})
		s.answers()
	}
	s.take(request{subscribe: []string{"b.other.test"}})
	held := []string{"kept", "a.other.test"}
	for number := 993; number < 1000; number++ {
		held = append(held, made(number))
	}
	s.expect("another rule's", "b.other.test=1 -n992.made.test", append(held, "b.other.test")...)
	for number := range 1000 {
		s.take(request{unsubscribe: []string{made(number)}})
	}
	s.take(request{unsubscribe: []string{"kept", "a.other.test", "b.other.test"}})
	s.expect("nothing", "")
	if len(s.ofRules) != 0 {
		t.Errorf("%v are counted", s.ofRules)
	}
}

// A certificate that Envoy rejects is removed, so that Envoy requests it again.
func TestRejected(t *testing.T) {
	s := newScene(t, "a", "b")
	s.take(request{subscribe: []string{"a", "b"}})
	s.expect("at first", "a=1 b=1", "a", "b")
	s.take(request{nonce: "2", rejected: true, reason: "bad"})
	s.expect("rejected", "-b", "a")
	s.take(request{nonce: "2", rejected: true})
	s.expect("unknown", "", "a")
	s.take(request{subscribe: []string{"b"}})
	s.expect("asked again", "b=1", "a", "b")
	if s.rejected.Load() != 2 {
		t.Errorf("%d are counted", s.rejected.Load())
	}
}

// For any spelling and number of names, no more are remembered than the limit, nor than were requested at once.
func TestMemoryIsBounded(t *testing.T) {
	s := newScene(t)
	for number := range 5000 {
		name := fmt.Sprint("n", number)
		s.listed[name] = "1"
		s.take(request{subscribe: []string{name, "x" + name, "secret:." + name}})
		s.answers()
	}
	if len(s.subscription.held) != mostHeld || s.order.Len() != mostHeld || len(s.awaiting) != 0 || cap(s.pending) > 16 {
		t.Errorf("%d, %d, %d, %d", len(s.subscription.held), s.order.Len(), len(s.awaiting), cap(s.pending))
	}
	s.end()
	if s.counters.held.Load() != 0 {
		t.Errorf("%d are counted", s.counters.held.Load())
	}
}
