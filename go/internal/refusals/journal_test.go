package refusals

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"clawker-fw/internal/must"
	"clawker-fw/internal/nettest"
	"clawker-fw/internal/statussocket"
	"clawker-fw/internal/usage"
)

// journalAt returns a journal whose clock is now, and what it has written since the last time.
func journalAt(t *testing.T, now *time.Time) (*journal, func() []suppressedLine) {
	t.Helper()
	var out bytes.Buffer
	found := newJournal(&out)
	found.now = func() time.Time { return *now }
	return found, func() (lines []suppressedLine) {
		t.Helper()
		must.Succeed(t, found.flush())
		for text := range strings.Lines(out.String()) {
			var each suppressedLine
			if err := json.Unmarshal([]byte(text), &each); err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			lines = append(lines, each)
		}
		out.Reset()
		return lines
	}
}

// lineOf returns a line about an agent with so many octets more.
func lineOf(agent netip.Addr, octets int) []byte {
	return fmt.Appendf(nil, `{"path":"%s","source":"%s:1024"}`+"\n", strings.Repeat("x", octets), agent)
}

// suppressed returns how many refusals of an agent lines tell of that were only counted.
func suppressed(lines []suppressedLine, agent string) (sum int) {
	for _, each := range lines {
		if each.Source == agent {
			sum += each.Suppressed
		}
	}
	return sum
}

// The flood of one agent is counted after its share of lines, and another's refusals are still written. What was counted is
// told by the clock, whether or not anybody is refused anything later.
func TestFloodOfRefusals(t *testing.T) {
	now := time.Now()
	journal, lines := journalAt(t, &now)
	for range 1000 {
		journal.add(nettest.Agent, lineOf(nettest.Agent, 0), 1)
	}
	journal.add(nettest.OtherAgent, lineOf(nettest.OtherAgent, 0), 1)
	if found := lines(); len(found) != linesAtOnce+1 {
		t.Errorf("%d lines", len(found))
	}
	journal.count()
	if found := lines(); len(found) != 1 || suppressed(found, nettest.Agent.String()) != 1000-linesAtOnce {
		t.Errorf("got %+v", found)
	}
	journal.count()
	if found := lines(); len(found) != 0 {
		t.Errorf("told twice: %+v", found)
	}
	now = now.Add(time.Second)
	for range 1000 {
		journal.add(nettest.Agent, lineOf(nettest.Agent, 0), 1)
	}
	if found := lines(); len(found) != linesPerSecond {
		t.Errorf("%d lines after a second", len(found))
	}
}

// Long lines count for as many short ones as they have room for, so the record of one agent is bounded in octets.
func TestLongLines(t *testing.T) {
	now := time.Now()
	journal, _ := journalAt(t, &now)
	written := 0
	for range 600 {
		for range 1000 {
			before := journal.octets
			journal.add(nettest.Agent, lineOf(nettest.Agent, 2500), 1)
			written += journal.octets - before
		}
		must.Succeed(t, journal.flush())
		now = now.Add(time.Second)
	}
	if most := linesOctetsAtOnce + 600*linesOctetsInSecond; written > most || written < most/2 {
		t.Errorf("%d octets in 600 s, at most %d", written, most)
	}
}

// However many addresses an agent forges, those that are remembered are bounded. What was counted of nobody knows whom is told,
// however many agents are forgotten meanwhile and whatever waits for the reader.
func TestTheUnknownAgentIsNotForgotten(t *testing.T) {
	now := time.Now()
	journal, lines := journalAt(t, &now)
	for journal.wait(lineOf(nettest.Agent, 0)) { // there is no room to tell
	}
	refused, source := 0, nettest.AgentNet.Addr()
	for range linesAtOnce {
		journal.add(netip.Addr{}, lineOf(netip.Addr{}, 0), 1)
		refused++
	}
	for range 2*mostAgents + 2 {
		source = source.Next()
		journal.add(source, lineOf(source, 0), 1)
		refused++
		if found := len(journal.agents); found > mostAgents {
			t.Fatalf("%d are remembered", found)
		}
	}
	journal.lose(10)
	refused += 10
	waiting := len(journal.waiting)
	told := 0
	for _, each := range lines()[waiting:] {
		told += max(each.Suppressed, 1)
	}
	journal.count()
	for _, each := range lines() {
		told += each.Suppressed
	}
	if told != refused {
		t.Errorf("%d of %d are told of", told, refused)
	}
}

// A reader that stalls delays nobody: what waits is bounded, the rest is counted, and told when it reads again.
func TestAReaderThatStalls(t *testing.T) {
	read, write, err := os.Pipe()
	must.Succeed(t, err)
	defer read.Close()
	journal := newJournal(write)
	go func() { _ = journal.write() }()
	refused := 0
	for number := range 100 {
		source := netip.AddrFrom4([4]byte{10, 213, 1, byte(number)})
		for range linesAtOnce {
			journal.add(source, lineOf(source, 100), 1)
			refused++
		}
	}
	journal.mutex.Lock()
	if journal.octets > mostUnread {
		t.Errorf("%d octets are waiting", journal.octets)
	}
	journal.mutex.Unlock()
	stop := time.Now().Add(10 * time.Second)
	lines := make(chan suppressedLine)
	go func() {
		for decoder := json.NewDecoder(read); ; {
			var each suppressedLine
			if decoder.Decode(&each) != nil {
				return
			}
			lines <- each
		}
	}()
	for told := 0; told < refused; {
		select {
		case each := <-lines:
			told += max(each.Suppressed, 1)
		case <-time.After(50 * time.Millisecond):
			journal.count()
		}
		if time.Now().After(stop) {
			t.Fatalf("%d of %d are told of", told, refused)
		}
	}
	write.Close()
}

// What a program writes is charged to the agent that it is about, whatever that agent has chosen, and passed on unchanged.
func TestLinesOfTheProgram(t *testing.T) {
	for text, wanted := range map[string]struct {
		agent    netip.Addr
		refusals int
	}{
		`{"name":"a","source":"10.213.0.7:1024"}`:                              {nettest.Agent, 1},
		`{"source":"10.213.0.7:1024","suppressed":7}`:                          {nettest.Agent, 8},
		`{"name":"\",\"source\":\"10.213.0.8:1\"","source":"10.213.0.7:1024"}`: {nettest.Agent, 1},
		`{"source":"10.213.0.7:1024","name":",\"suppressed\":99"}`:             {nettest.Agent, 1},
		`{"source":"nowhere"}`:                                                 {netip.Addr{}, 1},
		`[INFO] plugin/policy: source is 10.213.0.7`:                           {netip.Addr{}, 1},
	} {
		if agent, refusals := readLine([]byte(text)); agent != wanted.agent || refusals != wanted.refusals {
			t.Errorf("%s: %s, %d", text, agent, refusals)
		}
	}
	var out bytes.Buffer
	journal := newJournal(&out)
	program := "[INFO] started\n" + string(lineOf(nettest.Agent, 10)) + strings.Repeat("x", 3*longestLine) + "\n" + string(lineOf(nettest.Agent, 20))
	must.Succeed(t, errors.Join(journal.follow(strings.NewReader(program)), journal.flush()))
	if wanted := "[INFO] started\n" + string(lineOf(nettest.Agent, 10)) + string(lineOf(nettest.Agent, 20)); unnumbered(out.String()) != wanted {
		t.Errorf("got %q", out.String())
	}
	if lost := journal.unknown.suppressed; lost != 1 {
		t.Errorf("%d are counted", lost)
	}
}

// A request that its agent gives up was not refused; one that has failed was, whoever ends the connection first. What an agent
// has chosen is never taken for either.
func TestARequestThatIsGivenUp(t *testing.T) {
	kept := []string{
		`{"ended":"Normal","flags":"-","source":"10.213.0.7:1024"}`,
		`{"ended":"RemoteReset","flags":"UF","source":"10.213.0.7:1024"}`,
		`{"name":"\"ended\":\"RemoteReset\"","flags":"-","source":"10.213.0.7:1024"}`,
	}
	var out bytes.Buffer
	journal := newJournal(&out)
	program := `{"ended":"RemoteReset","flags":"-","source":"10.213.0.7:1024"}` + "\n" + strings.Join(kept, "\n") + "\n"
	must.Succeed(t, errors.Join(journal.follow(strings.NewReader(program)), journal.flush()))
	if wanted := strings.Join(kept, "\n") + "\n"; unnumbered(out.String()) != wanted {
		t.Errorf("got %q", out.String())
	}
}

// The recorder ends when it can't write any more, and not before.
func TestTheRecorderEndsWithItsLog(t *testing.T) {
	lines, program, err := os.Pipe()
	must.Succeed(t, err)
	defer program.Close()
	silent, never, err := os.Pipe()
	must.Succeed(t, err)
	defer never.Close()
	log := filepath.Join(t.TempDir(), "log")
	out := must.Get[*os.File](t)(os.Create(log))
	asked := filepath.Join(t.TempDir(), "lines.sock")
	told, err := statussocket.Prepare(asked, 0o600)
	must.Succeed(t, err)
	defer told.Close()
	ended := make(chan error, 1)
	go func() { ended <- Record(t.TempDir(), nettest.NewSibling(), []*os.File{silent, lines, told}, out) }()
	must.Get[int](t)(program.Write(lineOf(nettest.Agent, 0)))
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if content, _ := os.ReadFile(log); unnumbered(string(content)) == string(lineOf(nettest.Agent, 0)) {
			if told, err := AskWritten(asked); err != nil || told.Lines != 1 {
				t.Errorf("%d lines are written, %v", told.Lines, err)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatal("the line is not written")
		}
	}
	out.Close()
	must.Get[int](t)(program.Write(lineOf(nettest.Agent, 0)))
	select {
	case err := <-ended:
		if err == nil {
			t.Error("it ended without an error")
		}
	case <-time.After(5 * time.Second):
		t.Error("it goes on")
	}
}

// Lines about an agent are remembered for its page as far as they are within its share, whether anybody reads the log or not.
func TestLinesAreRemembered(t *testing.T) {
	var written bytes.Buffer
	journal := newJournal(&written)
	now := time.Now()
	journal.now = func() time.Time { return now }
	own := map[netip.Addr]int{}
	journal.own, journal.octets = func(agent netip.Addr, _ []byte) { own[agent]++ }, mostUnread
	for range 2 * linesAtOnce {
		journal.add(nettest.Agent, lineOf(nettest.Agent, 0), 3)
	}
	must.Succeed(t, journal.follow(bytes.NewReader(lineOf(nettest.OtherAgent, 0))))
	if own[nettest.Agent] != linesAtOnce || own[nettest.OtherAgent] != 1 {
		t.Errorf("%v", own)
	}
}

// Lines of what is allowed are counted and never written down, and take no agent's share of the log, however many they are. A
// refusal whose text begins alike is one all the same.
func TestWhatIsAllowedIsNotWrittenDown(t *testing.T) {
	var out bytes.Buffer
	used := usage.New(nil, time.Now)
	journal := newJournal(&out)
	journal.used = used
	line := "used https a.test 443 " + nettest.Agent.String() + ":4711 1 2 Ended 10.1.0.20:999 tls\n"
	refused := `{"name":"used https a.test","source":"` + nettest.Agent.String() + `:4711"}` + "\n"
	must.Succeed(t, journal.follow(strings.NewReader(strings.Repeat(line, 10*linesAtOnce)+refused)))
	journal.count()
	must.Succeed(t, journal.flush())
	if unnumbered(out.String()) != refused || used.History().Uses[0].Connections != 10*linesAtOnce {
		t.Errorf("%+v were counted, and this was written: %s", used.History(), out.String())
	}
}

// unnumbered returns lines without their numbers.
func unnumbered(text string) string {
	return regexp.MustCompile(`,"line":[0-9]+\}\n`).ReplaceAllString(text, "}\n")
}

// Each record has the next number, so that one that is missing in a log is noticed. Other lines have none.
func TestRecordsAreNumbered(t *testing.T) {
	var out bytes.Buffer
	journal := newJournal(&out)
	journal.add(nettest.Agent, []byte(`{"name":"a.test"}`+"\n"), 1)
	journal.add(nettest.Agent, []byte("[INFO] started\n"), 1)
	journal.add(nettest.Agent, []byte(`{"name":"\",\"line\":9}"}`+"\n"), 1)
	must.Succeed(t, journal.flush())
	wanted := `{"name":"a.test","line":1}` + "\n[INFO] started\n" + `{"name":"\",\"line\":9}","line":2}` + "\n"
	if out.String() != wanted || journal.status() != (Written{2}) {
		t.Errorf("got %s, %v", out.String(), journal.status())
	}
}
