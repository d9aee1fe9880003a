package usage

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	began = time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	ours  = netip.MustParseAddr("10.0.0.20")
)

// clock is a settable time.
type clock struct{ at time.Time }

func (c *clock) now() time.Time             { return c.at }
func (c *clock) advance(for_ time.Duration) { c.at = c.at.Add(for_) }

func newTable() (*Table, *clock) {
	now := &clock{began}
	return New([]netip.Addr{ours}, now.now), now
}

// ending is the line about an ended connection.
func ending(key, chain string, received, sent uint64) string {
	return fmt.Sprintf("used %s 10.0.0.7:4711 %d %d Ended 10.1.0.20:999 %s\n", key, received, sent, chain)
}

func take(table *Table, lines ...string) {
	for _, line := range lines {
		table.Take([]byte(line))
	}
}

func names(known History) []string {
	var uses []string
	for _, use := range known.Uses {
		uses = append(uses, use.Name)
	}
	return uses
}

// The record of a name, protocol and port has its first and last use, and how much. Another port or protocol is
// another entry, and names are in lower case, as Envoy writes them.
func TestUsesAreCounted(t *testing.T) {
	table, now := newTable()
	take(table, ending("https a.test 443", "tls a.test guarded", 10, 200))
	now.advance(time.Hour)
	take(table, ending("https a.test 443", "tls a.test guarded", 1, 2), ending("http a.test 80", "http 80 a.test", 3, 4), ending("https a.test 8443", "tls", 5, 6))
	known := table.History()
	later := began.Add(time.Hour).Unix()
	want := []Use{
		{"http", "a.test", 80, later, later, 1, 3, 4},
		{"https", "a.test", 443, began.Unix(), later, 2, 11, 202},
		{"https", "a.test", 8443, later, later, 1, 5, 6},
	}
	if !slices.Equal(known.Uses, want) {
		t.Errorf("%+v", known.Uses)
	}
	if known.Since != began.Unix() || known.Now != later || known.Lost != 0 {
		t.Errorf("%+v", known)
	}
}

// An open connection is a use, and counts once, when it ends.
func TestAnOpenConnectionIsAUse(t *testing.T) {
	table, now := newTable()
	open := "used tcp db.test 5432 10.0.0.7:4711 100 200 TcpPeriodic 10.1.0.20:999 tcp\n"
	take(table, open)
	now.advance(time.Minute)
	take(table, open)
	if used := table.History().Uses[0]; used.Connections != 0 || used.Received != 0 || used.Last != began.Add(time.Minute).Unix() {
		t.Errorf("%+v", used)
	}
	take(table, strings.Replace(open, "TcpPeriodic", "TcpConnectionEnd", 1))
	if used := table.History().Uses[0]; used.Connections != 1 || used.Received != 100 || used.Sent != 200 {
		t.Errorf("%+v", used)
	}
}

// Connections without a host don't count, and neither do our own attempts. But agents share one of our connections
// that stays open. Observed traffic is no use of a rule.
func TestWhatIsNoUse(t *testing.T) {
	table, _ := newTable()
	nowhere := strings.Replace(ending("https a.test 443", "tls", 1, 2), "10.1.0.20:999", "-", 1)
	own := strings.Replace(ending("https a.test 443", "tls", 1, 2), "10.0.0.7", ours.String(), 1)
	withoutRule := ending("https b.test 443", "tls * without 0123456789abcdef", 1, 2) + ending("http b.test 80", "http 80 *", 1, 2)
	take(table, append(strings.SplitAfter(withoutRule, "\n")[:2], nowhere, own)...)
	if known := table.History(); len(known.Uses) != 0 || known.Lost != 0 {
		t.Fatalf("%+v", known)
	}
	take(table, strings.Replace(own, "Ended", "TcpPeriodic", 1))
	if known := table.History(); len(known.Uses) != 1 {
		t.Errorf("%+v", known)
	}
}

// Unreadable lines are counted, and change nothing else.
func TestUnreadableLines(t *testing.T) {
	table, _ := newTable()
	good := ending("https a.test 443", "tls", 1, 2)
	bad := []string{
		"used \n", "used https a.test 443\n", strings.Replace(good, "a.test", "a b.test", 1), strings.Replace(good, "a.test", "A.test", 1),
		strings.Replace(good, "a.test", "a\x1b.test", 1), strings.Replace(good, "https", "gopher", 1), strings.Replace(good, "443", "0", 1),
		strings.Replace(good, "443", "65536", 1), strings.Replace(good, " 1 2 ", " -1 2 ", 1), strings.Replace(good, " 1 2 ", " 1 99999999999999999999 ", 1),
		strings.Replace(good, "10.0.0.7:4711", "-", 1), strings.Replace(good, "a.test", strings.Repeat("a.", 127)+"a", 1),
	}
	take(table, bad...)
	if known := table.History(); len(known.Uses) != 0 || known.Lost != uint64(len(bad)) {
		t.Errorf("%d lost of %d: %+v", known.Lost, len(bad), known.Uses)
	}
}

// Names that an agent invents below a subtree rule are one use, of the rule, and take no room from others.
func TestNamesBelowASubtreeAreOneUse(t *testing.T) {
	table, _ := newTable()
	for _, chain := range []string{"tls .cdn.test guarded", "tls 17 below guarded 0123456789abcdef", "https 443 .api.test guarded: /v1", "http 80 .cdn.test"} {
		protocol, _, _ := strings.Cut(strings.Replace(chain, "tls", "https", 1), " ")
		for number := range 3 {
			take(table, ending(fmt.Sprintf("%s x%d.cdn.test 443", protocol, number), chain, 1, 2))
		}
	}
	known := table.History()
	want := []string{".api.test", ".cdn.test", ".cdn.test", "x0.cdn.test", "x1.cdn.test", "x2.cdn.test"}
	if !slices.Equal(names(known), want) {
		t.Error(names(known))
	}
	if used := known.Uses[1]; used.Protocol != "http" || used.Connections != 3 || used.Sent != 6 {
		t.Errorf("%+v", used)
	}
}

// With more rules than room, the least recently used ones go first, and the record starts later.
func TestManyRulesForgetTheOldest(t *testing.T) {
	table, now := newTable()
	table.most = 10
	for number := range 30 {
		now.advance(time.Second)
		take(table, ending(fmt.Sprintf("https n%d.test 443", number), fmt.Sprintf("tls n%d.test", number), 1, 1))
	}
	known := table.History()
	if len(known.Uses) != 10 || known.Since != began.Add(20*time.Second).Unix()+1 {
		t.Fatalf("%d, known since %d", len(known.Uses), known.Since)
	}
}

// A repeated use is the last one to go.
func TestWhatIsUsedAgainStays(t *testing.T) {
	table, _ := newTable()
	table.most = 3
	for _, name := range []string{"a", "b", "c", "a", "d"} {
		take(table, ending("https "+name+".test 443", "tls "+name+".test", 1, 1))
	}
	if got := names(table.History()); !slices.Equal(got, []string{"a.test", "c.test", "d.test"}) {
		t.Error(got)
	}
}

// A use is forgotten after a year.
func TestOldUsesAreForgotten(t *testing.T) {
	table, now := newTable()
	take(table, ending("https a.test 443", "tls a.test", 1, 2))
	now.advance(keptFor + time.Hour)
	take(table, ending("https b.test 443", "tls b.test", 1, 2))
	if known := table.History(); !slices.Equal(names(known), []string{"b.test"}) || known.Since != now.at.Add(-keptFor).Unix() {
		t.Errorf("%+v", known)
	}
}

// No line makes reading fail, or adds an invalid host name.
func FuzzTake(f *testing.F) {
	f.Add("https a.test 443 10.0.0.7:4711 10 20 Ended 10.1.0.20:999 tls a.test guarded\n")
	f.Add("udp a.test 53 10.0.0.7:4711 1 2 UdpPeriodic - udp")
	f.Add("https  443   Ended - ")
	f.Fuzz(func(t *testing.T, line string) {
		table, _ := newTable()
		take(table, "used "+line)
		known := table.History()
		if uint64(len(known.Uses))+known.Lost > 1 {
			t.Errorf("%+v", known)
		}
		for _, use := range known.Uses {
			if _, ok := parse([]byte(use.key())); !ok {
				t.Errorf("%+v", use)
			}
		}
	})
}

// A clock that is set back, at any time and by any amount, neither ends the recorder nor makes it forget: the last
// used entries stay, in the table, in its answers and in its files.
func TestTheClockIsSetBack(t *testing.T) {
	const many = 1000
	table, now := newTable()
	table.most = 10
	for number := range many {
		take(table, ending(fmt.Sprintf("https n%d.test 443", number), fmt.Sprintf("tls n%d.test", number), 1, 1))
		now.advance(-24 * time.Hour)
	}
	known := table.History()
	for number := many - 10; number < many; number++ {
		if name := fmt.Sprintf("n%d.test", number); !slices.Contains(names(known), name) {
			t.Errorf("%s is gone: %v", name, names(known))
		}
	}
	if known.Since < began.Unix() {
		t.Errorf("known since %d, before it began at %d", known.Since, began.Unix())
	}
	if err := known.verify(); err != nil {
		t.Error(err)
	}
	files := opened(t, t.TempDir())
	written(t, files, table)
	take(table, ending("https later.test 443", "tls later.test", 1, 1))
	now.advance(-24 * time.Hour)
	written(t, files, table)
	left, ok := (&kept{files: files.files}).left()
	if !ok || !slices.Contains(names(left), "later.test") {
		t.Errorf("%v: %v", ok, names(left))
	}
	next := New(nil, now.now)
	next.Restore(left)
	if restored := next.History(); !slices.Contains(names(restored), "later.test") || restored.Since != left.Since {
		t.Errorf("%+v", restored)
	}
}

// A clock that was ahead for a while causes no loss when it is right again.
func TestTheClockWasAhead(t *testing.T) {
	table, now := newTable()
	take(table, ending("https a.test 443", "tls a.test", 1, 2))
	now.advance(2 * keptFor)
	table.History()
	now.advance(-2 * keptFor)
	if known := table.History(); !slices.Equal(names(known), []string{"a.test"}) || known.Since != began.Unix() {
		t.Errorf("%+v", known)
	}
}
