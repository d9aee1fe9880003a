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
	"strconv"
	"strings"
	"testing"
	"time"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/must"
	"clawker-fw/internal/nettest"
	"clawker-fw/internal/statussocket"
	"clawker-fw/internal/usage"
)

// tellingLine is a line that may report counted refusals.
type tellingLine struct {
	Source, Name, Path, Reason string
	Times, Suppressed          int
	Last                       time.Time
}

// journalAt returns a journal with this clock, and a function for its new lines.
func journalAt(t *testing.T, now *time.Time) (*journal, func() []tellingLine) {
	t.Helper()
	var out bytes.Buffer
	journal := newJournal(&out)
	journal.now = func() time.Time { return *now }
	return journal, func() (lines []tellingLine) {
		t.Helper()
		must.Succeed(t, journal.flush())
		for text := range strings.Lines(out.String()) {
			var line tellingLine
			if err := json.Unmarshal([]byte(text), &line); err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			lines = append(lines, line)
		}
		out.Reset()
		return lines
	}
}

// lineOf returns a line about an agent with so many bytes more.
func lineOf(agent netip.Addr, size int) []byte {
	return fmt.Appendf(nil, `{"path":"%s","source":"%s:1024"}`+"\n", strings.Repeat("x", size), agent)
}

// suppressed returns an agent's counted refusals in lines.
func suppressed(lines []tellingLine, agent string) (sum int) {
	for _, line := range lines {
		if line.Source == agent {
			sum += line.Suppressed
		}
	}
	return sum
}

// suppressedOf returns an agent's counted refusals without a line yet.
func suppressedOf(journal *journal, agent netip.Addr) (sum int) {
	if from := journal.agents[agent]; from != nil {
		for _, group := range from.counted {
			sum += group.times
		}
	}
	return sum
}

// An agent's flood is counted beyond its share of lines, and another's refusals still have lines. The count is
// reported by the clock, without further refusals.
func TestFloodOfRefusals(t *testing.T) {
	now := time.Now()
	journal, lines := journalAt(t, &now)
	for range 1000 {
		journal.add(nettest.Agent, lineOf(nettest.Agent, 0), 1)
	}
	journal.add(nettest.OtherAgent, lineOf(nettest.OtherAgent, 0), 1)
	if got := lines(); len(got) != linesAtOnce+1 {
		t.Errorf("%d lines", len(got))
	}
	journal.count()
	if got := lines(); len(got) != 1 || suppressed(got, nettest.Agent.String()) != 1000-linesAtOnce {
		t.Errorf("got %+v", got)
	}
	journal.count()
	if got := lines(); len(got) != 0 {
		t.Errorf("told twice: %+v", got)
	}
	now = now.Add(time.Second)
	for range 1000 {
		journal.add(nettest.Agent, lineOf(nettest.Agent, 0), 1)
	}
	if got := lines(); len(got) != linesPerSecond {
		t.Errorf("%d lines after a second", len(got))
	}
}

// However many addresses an agent forges, the remembered ones are limited. Counts without an agent are reported,
// however many agents are forgotten and however much waits for the reader.
func TestTheUnknownAgentIsNotForgotten(t *testing.T) {
	now := time.Now()
	journal, lines := journalAt(t, &now)
	journal.size = mostUnread // there is no room to tell
	refused, source := 0, nettest.AgentNet.Addr()
	for range linesAtOnce {
		journal.add(netip.Addr{}, lineOf(netip.Addr{}, 0), 1)
		refused++
	}
	for range 2*mostAgents + 2 {
		source = source.Next()
		journal.add(source, lineOf(source, 0), 1)
		refused++
		if got := len(journal.agents); got > mostAgents {
			t.Fatalf("%d are remembered", got)
		}
	}
	journal.lose(10)
	refused += 10
	suppressed := 0
	journal.size = 0
	journal.count()
	for _, line := range lines() {
		suppressed += line.Suppressed
	}
	if suppressed != refused {
		t.Errorf("%d of %d are told of", suppressed, refused)
	}
}

// A stalled reader delays nobody: waiting lines are limited, and the rest is counted, and reported when it reads
// again.
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
	if journal.size > mostUnread {
		t.Errorf("%d octets are waiting", journal.size)
	}
	journal.mutex.Unlock()
	stop := time.Now().Add(10 * time.Second)
	lines := make(chan tellingLine)
	go func() {
		for decoder := json.NewDecoder(read); ; {
			var line tellingLine
			if decoder.Decode(&line) != nil {
				return
			}
			lines <- line
		}
	}()
	for counted := 0; counted < refused; {
		select {
		case line := <-lines:
			counted += max(line.Suppressed, 1)
		case <-time.After(50 * time.Millisecond):
			journal.count()
		}
		if time.Now().After(stop) {
			t.Fatalf("%d of %d are told of", counted, refused)
		}
	}
	write.Close()
}

// A program's line counts for its agent, whatever text the agent has chosen, and is passed on unchanged.
func TestLinesOfTheProgram(t *testing.T) {
	for text, want := range map[string]struct {
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
		if agent, refusals := readLine([]byte(text)); agent != want.agent || refusals != want.refusals {
			t.Errorf("%s: %s, %d", text, agent, refusals)
		}
	}
	var out bytes.Buffer
	journal := newJournal(&out)
	program := "[INFO] started\n" + string(lineOf(nettest.Agent, 10)) + strings.Repeat("x", 3*longestLine) + "\n" + string(lineOf(nettest.Agent, 20))
	must.Succeed(t, errors.Join(journal.follow(strings.NewReader(program)), journal.flush()))
	if want := "[INFO] started\n" + string(lineOf(nettest.Agent, 10)) + string(lineOf(nettest.Agent, 20)); unnumbered(out.String()) != want {
		t.Errorf("got %q", out.String())
	}
	if lost := suppressedOf(journal, netip.Addr{}); lost != 1 {
		t.Errorf("%d are counted", lost)
	}
}

// A request that its agent cancels was not refused; a failed one was, whichever end closes first. An agent's text
// never looks like either.
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
	if want := strings.Join(kept, "\n") + "\n"; unnumbered(out.String()) != want {
		t.Errorf("got %q", out.String())
	}
}

func withLimits(limits boot.Limits) boot.Sibling {
	sibling := nettest.NewSibling()
	sibling.Limits = &limits
	return sibling
}

// The recorder ends when it can no longer write, and not before.
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
	socket, err := statussocket.Prepare(asked, 0o600)
	must.Succeed(t, err)
	defer socket.Close()
	ended := make(chan error, 1)
	go func() {
		ended <- Record(t.TempDir(), withLimits(boot.Limits{}), []*os.File{silent, lines, socket}, out)
	}()
	must.Get[int](t)(program.Write(lineOf(nettest.Agent, 0)))
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if content, _ := os.ReadFile(log); unnumbered(string(content)) == string(lineOf(nettest.Agent, 0)) {
			if written, err := AskWritten(asked); err != nil || written.Lines != 1 {
				t.Errorf("%d lines are written, %v", written.Lines, err)
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

// Lines about an agent are remembered for its page within its share, even if nobody reads the log.
func TestLinesAreRemembered(t *testing.T) {
	var written bytes.Buffer
	journal := newJournal(&written)
	now := time.Now()
	journal.now = func() time.Time { return now }
	own := map[netip.Addr]int{}
	journal.own, journal.size = func(agent netip.Addr, _ []byte) { own[agent]++ }, mostUnread
	for range 2 * linesAtOnce {
		journal.add(nettest.Agent, lineOf(nettest.Agent, 0), 3)
	}
	must.Succeed(t, journal.follow(bytes.NewReader(lineOf(nettest.OtherAgent, 0))))
	if own[nettest.Agent] != linesAtOnce || own[nettest.OtherAgent] != 1 {
		t.Errorf("%v", own)
	}
}

// Lines about allowed connections are counted and never logged, and use no agent's share of the log. A refusal
// whose text starts alike is still logged.
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

// Each record has the next number, so that a gap in a log is noticed. Other lines have none.
func TestRecordsAreNumbered(t *testing.T) {
	var out bytes.Buffer
	journal := newJournal(&out)
	journal.add(nettest.Agent, []byte(`{"name":"a.test"}`+"\n"), 1)
	journal.add(nettest.Agent, []byte("[INFO] started\n"), 1)
	journal.add(nettest.Agent, []byte(`{"name":"\",\"line\":9}"}`+"\n"), 1)
	must.Succeed(t, journal.flush())
	want := `{"name":"a.test","line":1}` + "\n[INFO] started\n" + `{"name":"\",\"line\":9}","line":2}` + "\n"
	if status := journal.status().(Written); out.String() != want || status.Lines != 2 || status.Counted != nil {
		t.Errorf("got %s, %v", out.String(), status)
	}
}

// refusalOf returns a line about a refusal in Envoy's form.
func refusalOf(agent netip.Addr, number int, name, path, because string) []byte {
	return fmt.Appendf(nil, `{"name":"%s","path":"%s","port":443,"protocol":"https","reason":"%s","source":"%s:%d"}`+"\n",
		name, path, because, agent, number%60_000)
}

// Refusals beyond an agent's share of lines are counted by target and reason, so it can't hide one behind others.
// Until the log has room, the counts are reported on request.
func TestWhatIsHiddenInNoise(t *testing.T) {
	now := time.Now()
	journal, lines := journalAt(t, &now)
	for number := range 1000 {
		journal.add(nettest.Agent, refusalOf(nettest.Agent, number, "noise.test", fmt.Sprint("/", number), "no-rule"), 1)
	}
	journal.add(nettest.Agent, refusalOf(nettest.Agent, 1, "noise.test", "/1", "denied"), 1)
	journal.add(nettest.Agent, refusalOf(nettest.Agent, 2, "hidden.test", "/1", "path"), 1)
	journal.add(nettest.Agent, refusalOf(nettest.Agent, 3, "hidden.test", "/2", "path"), 2)
	last := now
	want := []tellingLine{
		{Name: "noise.test", Path: "/200", Reason: "no-rule", Times: 1000 - linesAtOnce},
		{Name: "noise.test", Path: "/1", Reason: "denied", Times: 1},
		{Name: "hidden.test", Path: "/1", Reason: "path", Times: 1},
		{Name: "hidden.test", Path: "/2", Reason: "path", Times: 2},
	}
	compare := func(lines []tellingLine) {
		t.Helper()
		if len(lines) != len(want) {
			t.Fatalf("got %+v", lines)
		}
		for at, line := range lines {
			if difference := last.Sub(line.Last); difference < 0 || difference >= time.Millisecond {
				t.Errorf("it was refused %s before", difference)
			}
			if line.Source, line.Last = "", (time.Time{}); line != want[at] {
				t.Errorf("got %+v", line)
			}
		}
	}
	var asked []tellingLine
	for _, text := range journal.status().(Written).Counted {
		var line tellingLine
		must.Succeed(t, json.Unmarshal(text, &line))
		asked = append(asked, line)
	}
	compare(asked)
	_ = lines()
	now = now.Add(time.Second)
	journal.count()
	compare(lines())
	if counted := journal.status().(Written).Counted; counted != nil {
		t.Errorf("%s is counted still", counted)
	}
}

// The lines for counts are limited. Refusals beyond that are counted together.
func TestSoManyNamesThatTheyAreOnlyCounted(t *testing.T) {
	now := time.Now()
	journal, lines := journalAt(t, &now)
	const refused = 10_000
	for number := range refused {
		journal.add(nettest.Agent, refusalOf(nettest.Agent, number, fmt.Sprint(number, ".test"), "/", "no-rule"), 1)
	}
	if size := journal.agents[nettest.Agent].countedSize; size > mostCounted+leastOfLine {
		t.Errorf("%d octets stand for what is counted", size)
	}
	written := len(lines())
	journal.count()
	kinds := lines()
	for _, line := range kinds {
		written += line.Times + line.Suppressed
	}
	if written != refused || len(kinds) < 24 {
		t.Errorf("%d of %d are told of, in %d lines", written, refused, len(kinds))
	}
}

// engineLog counts the bytes that Docker stores of the written lines.
type engineLog struct{ size int }

func (e *engineLog) Write(line []byte) (int, error) {
	kept, err := json.Marshal(map[string]string{"log": string(line), "stream": "stdout", "time": "2026-12-02T19:41:46.123456789Z"})
	e.size += len(kept) + len("\n")
	return len(line), err
}

// However long agents continue within their shares, with any lines, a quiet agent's refusals stay in the log: for
// hours beside the first lines of fifty, and for most of a day beside one agent's, or beside fifty that continue.
func TestForHowLongTheLogKeepsRefusals(t *testing.T) {
	for name, test := range map[string]struct {
		agents       int
		lines        int // of each, every ten minutes
		before, kept time.Duration
	}{
		"one":              {1, 190, 0, 22 * time.Hour},
		"fifty":            {50, 5, 0, 4 * time.Hour},
		"fifty that go on": {50, 3, time.Hour, 22 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			log := &engineLog{}
			journal := newJournal(log)
			journal.now = func() time.Time { return now }
			path := strings.Repeat(`\u0026<>\"`, 30) // of which the engine keeps more than is written
			refused := 0
			noise := func(lasting, step time.Duration, lines int) {
				for end := now.Add(lasting); now.Before(end); now = now.Add(step) {
					for agent := range test.agents {
						source := netip.AddrFrom4([4]byte{10, 214, byte(agent >> 8), byte(agent)})
						for range lines {
							refused++
							journal.add(source, refusalOf(source, refused, fmt.Sprint(refused%100, ".test"), path, "no-rule"), 1)
						}
					}
					journal.count()
					must.Succeed(t, journal.flush())
				}
			}
			burst := func() { noise(6*time.Second, time.Second, 75) }
			if test.before > 0 {
				burst()
			}
			noise(test.before, 10*time.Minute, test.lines)
			quiet := nettest.Agent
			before := journal.written
			for number := range 40 {
				journal.add(quiet, refusalOf(quiet, number, "quiet.test", "/", "no-rule"), 1)
			}
			must.Succeed(t, journal.flush())
			if journal.written != before+40 {
				t.Fatalf("%d of 40 lines of the quiet agent are written", journal.written-before)
			}
			before = int64(log.size)
			if test.before == 0 {
				burst()
			}
			noise(test.kept, 10*time.Minute, test.lines)
			written := int64(log.size) - before
			if t.Logf("%d octets in %s", written, test.kept); written > logKeeps || written < logKeeps/2 {
				t.Errorf("%d octets are written until then, and the log keeps %d", written, logKeeps)
			}
		})
	}
}

// Agents divide the common room: a single noisy one gets all of it, and two get half each.
func TestTheRoomInTheLogIsShared(t *testing.T) {
	now := time.Now()
	journal, _ := journalAt(t, &now)
	agents := []netip.Addr{nettest.Agent, nettest.OtherAgent}
	for _, agent := range agents {
		journal.agent(agent).room = 0
	}
	now = now.Add(keptFor / 1000)
	journal.count()
	for _, agent := range agents {
		if room := journal.agents[agent].room; room < 0.49*logKeeps/1000 || room > 0.51*logKeeps/1000 {
			t.Errorf("%s has %f octets", agent, room)
		}
	}
	now = now.Add(keptFor)
	journal.count()
	if room := journal.agents[agents[0]].room; room != logShare {
		t.Errorf("%f octets are its share", room)
	}
}

// The first recorder of a container starts with line 1. A later one can't know the number of lost lines, so its
// numbers leave a gap.
func TestARecorderAfterAnother(t *testing.T) {
	asked := filepath.Join(t.TempDir(), "lines.sock")
	socket := must.Open[*os.File](t)(statussocket.Prepare(asked, 0o600))
	var numbers []int64
	for range 3 {
		lines, program, err := os.Pipe()
		must.Succeed(t, err)
		silent, never, err := os.Pipe()
		must.Succeed(t, err)
		log := filepath.Join(t.TempDir(), "log")
		out := must.Get[*os.File](t)(os.Create(log))
		ended := make(chan error, 1)
		go func() {
			ended <- Record(t.TempDir(), withLimits(boot.Limits{}), []*os.File{silent, lines, socket}, out)
		}()
		must.Get[int](t)(program.Write(lineOf(nettest.Agent, 0)))
		for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			if content, _ := os.ReadFile(log); len(content) > 0 {
				var read struct{ Line int64 }
				must.Succeed(t, json.Unmarshal(content, &read))
				if written := must.Get[Written](t)(AskWritten(asked)); read.Line != written.Lines {
					t.Errorf("line %d is told to be %d", read.Line, written.Lines)
				}
				numbers = append(numbers, read.Line)
				break
			}
			if time.Now().After(end) {
				t.Fatal("the line is not written")
			}
		}
		never.Close() // from which it reads what the kernel refuses
		<-ended
		program.Close()
		out.Close()
	}
	if numbers[0] != 1 || numbers[1] < 1<<40 || numbers[2] < numbers[1]+2 {
		t.Errorf("the lines are %v", numbers)
	}
}

// The assumed log size is that of the containers' settings: all files except the newest.
func TestWhatTheLogKeeps(t *testing.T) {
	content := must.Get[[]byte](t)(os.ReadFile("../../../clawker_fw/stack/container.py"))
	match := regexp.MustCompile(`"max-file": "(\d+)", "max-size": "(\d+)m"`).FindSubmatch(content)
	if match == nil {
		t.Fatal("the settings are not there")
	}
	files, size := must.Get[int](t)(strconv.Atoi(string(match[1]))), must.Get[int](t)(strconv.Atoi(string(match[2])))
	if (files-1)*size*1_000_000 != logKeeps {
		t.Errorf("%d files of %d MB", files, size)
	}
}
