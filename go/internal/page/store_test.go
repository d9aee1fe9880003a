package page

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

var (
	subnet  = netip.MustParsePrefix("10.213.0.0/23")
	someone = netip.MustParseAddr("10.213.0.7")
	another = netip.MustParseAddr("10.213.0.8")
	then    = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
)

const (
	first, second = "56:11:22:33:44:55", "56:11:22:33:44:66"
	follows       = "02:42:0a:d5:00:07"
)

// scene is a store with the test's clock and neighbours.
type scene struct {
	*Store
	at       time.Time
	ahead    time.Duration // of the clock that is set
	hardware map[netip.Addr]string
}

func newScene() *scene {
	made := &scene{at: then, hardware: map[netip.Addr]string{someone: first, another: second}}
	holders := NewHolders(subnet)
	holders.now = func() time.Time { return made.at }
	holders.list = func() (map[netip.Addr]string, error) { return made.hardware, nil }
	made.Store = NewStore(holders)
	made.now, made.began = holders.now, then
	made.wall = func() time.Time { return made.at.Add(made.ahead) }
	return made
}

// refuse has the resolver refuse a name to an agent, now.
func (s *scene) refuse(source netip.Addr, name string) { s.refuseAt(source, name, s.wall()) }

func (s *scene) refuseAt(source netip.Addr, name string, at time.Time) {
	text, err := json.Marshal(map[string]any{
		"time": at, "source": source.String() + ":4711", "protocol": "dns", "port": 53, "name": name, "type": "A", "reason": "no-rule",
	})
	if err != nil {
		panic(err)
	}
	s.Add(source, text)
}

func names(history agentHistory) string {
	var all []string
	for _, refusal := range history.Refusals {
		all = append(all, fmt.Sprintf("%s:%d", refusal.Name, refusal.Count))
	}
	return strings.Join(all, " ")
}

// An agent's history has its own refusals, identical ones once, latest last, and no others'.
func TestToldIsOnesOwn(t *testing.T) {
	s := newScene()
	for _, name := range []string{"a.test", "b.test", "a.test"} {
		s.at = s.at.Add(time.Second)
		s.refuse(someone, name)
	}
	s.refuse(another, "c.test")
	if got := s.History(someone, first); names(got) != "b.test:1 a.test:2" || !got.Since.Equal(then) || got.More != 0 {
		t.Errorf("%+v", got)
	}
	if got := s.History(another, second); names(got) != "c.test:1" {
		t.Errorf("%+v", got)
	}
	if got := s.History(netip.MustParseAddr("10.213.0.9"), first); len(got.Refusals) != 0 {
		t.Errorf("somebody else is told %+v", got)
	}
}

// A container with a former agent's address sees neither its earlier refusals nor later lines about it, but sees
// its own.
func TestAddressesAreReused(t *testing.T) {
	s := newScene()
	s.refuse(someone, "former.test")
	if got := s.History(someone, second); len(got.Refusals) != 0 {
		t.Errorf("before the kernel has told of it: %+v", got)
	}
	s.at = then.Add(time.Minute)
	s.at, s.hardware[someone] = s.at.Add(time.Second), second
	s.refuseAt(someone, "late.test", then.Add(59*time.Second))
	if got := s.History(someone, second); len(got.Refusals) != 0 {
		t.Errorf("%+v", got)
	}
	s.refuse(someone, "own.test")
	got := s.History(someone, second)
	if names(got) != "own.test:1" || !got.Since.Equal(s.at) {
		t.Errorf("%+v", got)
	}
	if got := s.History(someone, first); len(got.Refusals) != 0 {
		t.Errorf("the former one, who has gone, is told %+v", got)
	}
}

// Where a MAC address derives from the address, so that it identifies nobody, the history has only the last two
// minutes.
func TestOfTheUnsureLessIsTold(t *testing.T) {
	for hardware, want := range map[string]string{first: "old.test:1 new.test:1", follows: "new.test:1"} {
		s := newScene()
		s.hardware[someone] = hardware
		s.refuse(someone, "old.test")
		s.at = then.Add(rememberedUnsure)
		s.refuse(someone, "new.test")
		s.at = s.at.Add(time.Second)
		if got := s.History(someone, hardware); names(got) != want {
			t.Errorf("%s: %+v", hardware, got)
		}
		s.at = s.at.Add(remembered)
		if got := s.History(someone, hardware); len(got.Refusals) != 0 || !got.Since.After(then) {
			t.Errorf("%s: after an hour %+v", hardware, got)
		}
	}
}

// An agent with many refusals loses its own oldest, and others lose none. The memory for all is limited.
func TestBounds(t *testing.T) {
	s := newScene()
	s.refuse(another, "quiet.test")
	for number := range 10_000 {
		s.refuse(someone, fmt.Sprintf("%d.%s.test", number, strings.Repeat("a", 300)))
	}
	got := s.History(someone, first)
	if len(got.Refusals) != mostRefusals || got.More != 10_000-mostRefusals || !strings.HasPrefix(got.Refusals[mostRefusals-1].Name, "9999.") {
		t.Errorf("%d, %d more", len(got.Refusals), got.More)
	}
	for number := range 512 {
		address := netip.AddrFrom4([4]byte{10, 213, byte(number >> 8), byte(number)})
		s.hardware[address] = first
		for number := range mostRefusals {
			s.refuse(address, fmt.Sprintf("%d.%s.test", number, strings.Repeat("b", 300)))
		}
	}
	if s.size > mostBytes || s.size < mostBytes/2 {
		t.Errorf("%d octets", s.size)
	}
	counted := 0
	for _, agent := range s.agents {
		for _, refusal := range agent.refusals {
			counted += refusal.size()
		}
	}
	if counted != s.size {
		t.Errorf("%d octets are counted as %d", counted, s.size)
	}
	if names(s.History(another, second)) == "" {
		t.Error("the quiet one lost its refusal")
	}
}

// Lines of each kind are read, and lines without a refusal are left out.
func TestLinesOfEachKind(t *testing.T) {
	for text, want := range map[string]string{
		`{"details":null,"flags":"-","name":"b.test","port":443,"protocol":"tls","reason":"no-rule","source":"10.213.0.7:1","time":"2026-11-29T12:00:00.000Z","upstream":null}`: "tls b.test 443 no-rule",
		`{"method":"GET","name":"b.test","path":"/x","port":"80","protocol":"http","reason":"unreachable","time":"2026-11-29T12:00:00.000Z"}`:                                   "http b.test 80 unreachable GET /x",
		`{"address":"10.213.1.64","name":null,"port":22,"protocol":"tcp","reason":"wrong-port","time":"2026-11-29T12:00:00.000Z"}`:                                              "tcp  22 wrong-port",
		`{"source":"10.213.0.7","suppressed":3,"time":"2026-11-29T12:00:00.000Z"}`:                                                                                              "",
		`{"suppressed":3,"reason":"no-rule","time":"2026-11-29T12:00:00.000Z"}`:                                                                                                 "",
		`no line`: "",
	} {
		s := newScene()
		s.Add(someone, []byte(text))
		var names string
		for _, refusal := range s.History(someone, first).Refusals {
			names = strings.TrimSpace(fmt.Sprintf("%s %s %d %s %s %s", refusal.Protocol, refusal.Name, refusal.Port, refusal.Reason, refusal.Method, refusal.Path))
		}
		if names != want {
			t.Errorf("%s: %q", text, names)
		}
	}
	s := newScene()
	s.refuse(netip.MustParseAddr("127.0.0.1"), "own.test")
	s.refuse(netip.MustParseAddr("10.213.0.99"), "unknown.test")
	if len(s.agents) != 0 {
		t.Errorf("who is no agent, or no neighbour, is remembered: %v", s.agents)
	}
}

// Whenever the clock is set, forwards or back, refusals are remembered for the usual time, and only of their
// agent.
func TestTheClockIsSet(t *testing.T) {
	for _, ahead := range []time.Duration{-24 * time.Hour, 24 * time.Hour} {
		s := newScene()
		s.at = s.at.Add(time.Minute)
		s.refuse(someone, "before.test")
		s.ahead = ahead
		s.at = s.at.Add(time.Minute)
		s.refuse(someone, "after.test")
		if got := names(s.History(someone, first)); got != "before.test:1 after.test:1" {
			t.Errorf("%s: %q", ahead, got)
		}
		s.at = s.at.Add(remembered - 30*time.Second)
		if got := names(s.History(someone, first)); got != "after.test:1" {
			t.Errorf("%s, later: %q", ahead, got)
		}
		s.at = s.at.Add(remembered)
		if got := names(s.History(someone, first)); got != "" {
			t.Errorf("%s, much later: %q", ahead, got)
		}
	}
	s := newScene()
	begun := s.at.Add(time.Minute)
	s.at = s.at.Add(2 * time.Minute)
	s.ahead = -time.Hour
	s.refuseAt(someone, "of nobody knows whom", begun.Add(-24*time.Hour))
	s.at, s.hardware[someone] = s.at.Add(time.Second), second
	s.refuseAt(someone, "of the one before", begun)
	if got := names(s.History(someone, second)); got != "" {
		t.Errorf("another one's: %q", got)
	}
}
