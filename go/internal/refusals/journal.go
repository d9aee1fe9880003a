package refusals

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"clawker-fw/internal/usage"
)

// The journal is the only one that writes lines about agents into the container's log: what the kernel refuses, and what
// the program writes to its standard output. So lines never mix, an agent has its share of the log whoever refuses it what,
// and a reader that stalls delays nobody.

// An agent may cause octetsPerSecond octets of lines for as long as it likes, and octetsAtOnce after it was quiet. A line
// costs leastOfLine at least: that is what most have. Its other refusals are only counted.
const (
	leastOfLine         = 256
	linesPerSecond      = 50
	linesAtOnce         = 200
	linesOctetsInSecond = linesPerSecond * leastOfLine
	linesOctetsAtOnce   = linesAtOnce * leastOfLine

	// mostAgents bounds the agents that are remembered.
	mostAgents = 4096

	// mostUnread bounds the octets of lines that wait for the reader of the log. Further lines are only counted.
	mostUnread = 1 << 20
	// longestLine is how long a line of the program may be: more than any has.
	longestLine = 1 << 14

	// countEvery is when refusals are written that were only counted.
	countEvery = time.Second
)

type journal struct {
	out  io.Writer
	now  func() time.Time
	own  func(agent netip.Addr, line []byte) // remembers a line within its share for the page, or nil
	used *usage.Table                        // nil without one

	mutex   sync.Mutex
	agents  map[netip.Addr]*share
	unknown *share // of nobody knows whom, which is never forgotten
	waiting [][]byte
	octets  int           // of all that is waiting
	written int64         // lines with a number
	arrived chan struct{} // tells the writer that something is waiting
}

func newJournal(out io.Writer) *journal {
	return &journal{
		out: out, now: time.Now, agents: map[netip.Addr]*share{}, unknown: newShare(),
		arrived: make(chan struct{}, 1),
	}
}

func (j *journal) add(agent netip.Addr, line []byte, refusals int) {
	if j.share(agent, line, refusals) && j.own != nil {
		j.own(agent, line)
	}
}

// share has a line written or counted, and reports whether it was within the agent's share: a log that nobody reads is not the
// agent's fault.
func (j *journal) share(agent netip.Addr, line []byte, refusals int) bool {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	from := j.agent(agent)
	within := from.octets.AllowN(j.now(), max(len(line), leastOfLine))
	if !within || !j.wait(line) {
		from.suppressed += refusals
	}
	return within
}

type suppressedLine struct {
	Source     string `json:"source"` // an address, or nothing if it is not known
	Suppressed int    `json:"suppressed"`
	Time       string `json:"time"`
}

func (j *journal) count() {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	for agent, each := range j.agents {
		j.tell(agent, each)
	}
	j.tell(netip.Addr{}, j.unknown)
}

func (j *journal) tell(agent netip.Addr, from *share) {
	if from.suppressed == 0 {
		return
	}
	line := suppressedLine{Suppressed: from.suppressed, Time: written(j.now())}
	if agent.IsValid() {
		line.Source = agent.String()
	}
	if text, err := json.Marshal(line); err == nil && j.wait(append(text, '\n')) {
		from.suppressed = 0
	}
}

func written(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05.000Z") }

func (j *journal) wait(line []byte) bool {
	if j.octets+len(line) > mostUnread {
		return false
	}
	j.waiting = append(j.waiting, bytes.Clone(line))
	j.octets += len(line)
	select {
	case j.arrived <- struct{}{}:
	default:
	}
	return true
}

// write writes lines as they arrive, until that fails. What waits is bounded while the reader does not read.
func (j *journal) write() error {
	for range j.arrived {
		if err := j.flush(); err != nil {
			return err
		}
	}
	return nil
}

// flush writes all that is waiting. A line counts as waiting until it has been written.
func (j *journal) flush() error {
	for {
		j.mutex.Lock()
		if len(j.waiting) == 0 {
			j.mutex.Unlock()
			return nil
		}
		line := j.waiting[0]
		j.waiting = j.waiting[1:]
		number := j.written
		if bytes.HasSuffix(line, endOfRecord) {
			number++
		}
		j.written = number
		j.mutex.Unlock()
		if _, err := j.out.Write(numbered(line, number)); err != nil {
			return err
		}
		j.mutex.Lock()
		j.octets -= len(line)
		j.mutex.Unlock()
	}
}

var endOfRecord = []byte("}\n")

// numbered returns a line with its number, if it is a record. An engine whose disk is full loses lines without a trace:
// a number that is missing is one.
func numbered(line []byte, number int64) []byte {
	record, ok := bytes.CutSuffix(line, endOfRecord)
	if !ok {
		return line
	}
	return fmt.Appendf(bytes.Clone(record), `,"line":%d}%s`, number, "\n")
}

// Written is how many numbered lines have been written.
type Written struct {
	Lines int64 `json:"lines,omitempty"`
}

func (j *journal) status() any {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	return Written{j.written}
}

// agent returns the share of an agent. Agents whose shares are full are forgotten first, and what was only counted of one that
// is forgotten is told before.
func (j *journal) agent(source netip.Addr) *share {
	if !source.IsValid() {
		return j.unknown
	}
	known := j.agents[source]
	if known == nil {
		if len(j.agents) >= mostAgents {
			j.forget()
		}
		known = newShare()
		j.agents[source] = known
	}
	return known
}

func (j *journal) forget() {
	now := j.now()
	for source, each := range j.agents {
		if each.octets.TokensAt(now) >= linesOctetsAtOnce || len(j.agents) >= mostAgents {
			j.tell(source, each)
			j.unknown.suppressed += each.suppressed // if there was no room to tell
			delete(j.agents, source)
		}
	}
}

type share struct {
	octets     *rate.Limiter
	suppressed int
}

func newShare() *share {
	return &share{octets: rate.NewLimiter(linesOctetsInSecond, linesOctetsAtOnce)}
}

// follow adds the lines that the program writes, until it ends. What is no line about an agent has a share of its own.
func (j *journal) follow(program io.Reader) error {
	lines := bufio.NewReaderSize(program, longestLine)
	for {
		line, err := lines.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) { // no program of ours writes such a line
			line = nil
			_, err = lines.ReadSlice('\n')
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case line == nil:
			j.lose(1)
		case bytes.HasPrefix(line, usage.Mark):
			if j.used != nil {
				j.used.Take(line)
			}
		case bytes.Contains(line, givenUp) && bytes.Contains(line, notFailed):
		default:
			agent, refusals := readLine(line)
			j.add(agent, line, refusals)
		}
	}
}

func (j *journal) lose(refusals int) {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	j.agent(netip.Addr{}).suppressed += refusals
}

var (
	sourceKey     = []byte(`"source":"`)
	suppressedKey = []byte(`,"suppressed":`)
)

// Both are in Envoy's line of a request that the agent has given up before there was an answer: it was not refused. Envoy
// writes down which end it was, but no filter of its lines can tell (clawker_fw/stack/envoy/refusals.py).
var (
	givenUp   = []byte(`"ended":"RemoteReset"`)
	notFailed = []byte(`"flags":"-"`)
)

// readLine returns whom a line of the program is about, and of how many refusals it tells. Within the text of a JSON
// document every quotation mark is escaped, so neither key can be in what an agent has chosen.
func readLine(line []byte) (agent netip.Addr, refusals int) {
	_, rest, found := bytes.Cut(line, sourceKey)
	if !found {
		return netip.Addr{}, 1
	}
	source, _, _ := bytes.Cut(rest, []byte(`"`))
	if place, err := netip.ParseAddrPort(string(source)); err == nil {
		agent = place.Addr().Unmap()
	}
	refusals = 1
	if _, rest, found := bytes.Cut(line, suppressedKey); found {
		digits := len(rest) - len(bytes.TrimLeft(rest, "0123456789"))
		if number, err := strconv.ParseUint(string(rest[:digits]), 10, 31); err == nil { // more than these nobody counts
			refusals += int(number)
		}
	}
	return agent, refusals
}
