// Package refusals writes down what is refused to agents, by the kernel and by the program, with a share of the log for
// each.
package refusals

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/hotfile"
	"clawker-fw/internal/kernel"
	"clawker-fw/internal/page"
	"clawker-fw/internal/reason"
	"clawker-fw/internal/statussocket"
	"clawker-fw/internal/usage"
)

// The recorder writes down what the kernel refuses to agents, as Envoy and CoreDNS do with what they refuse, and passes on
// what they write. It remembers some of it for the page on which agents read why (package page). It is a process
// of its own beside the program, without privileges and with nothing but its sockets and what the program writes: `fwctl
// record`.

const recorderBuffer = 1 << 17

// Socket is where the recorder tells fwctl how many lines it has written. Only root may open it.
const Socket = "/tmp/lines.sock"

// AskWritten asks the recorder at a socket how many lines it has written.
func AskWritten(socket string) (Written, error) {
	var answer Written
	err := statussocket.Ask(socket, 2*time.Second, nil, &answer)
	return answer, err
}

// Record writes a line for each refusal that it reads from the first file that it is given, and those of the program, which are in
// the second one, until that fails. At the third one it tells how many there are. If this sibling has a page, it serves that at a
// further one, and if it has to remember what is used, it does so in the rest.
func Record(root string, sibling boot.Sibling, given []*os.File, out io.Writer) error {
	sockets := 3
	if sibling.Page != nil {
		sockets++
	}
	if len(given) < sockets {
		return errors.New("record needs the sockets that the supervisor gives it")
	}
	journal := newJournal(out)
	if sibling.Usage != nil {
		keeper, err := usage.Keep(given[sockets:], sibling.Usage.Except)
		if err != nil {
			return err
		}
		journal.used = keeper.Table
	}
	telling, err := net.FileListener(given[2])
	if err != nil {
		return fmt.Errorf("telling how many lines are written: %w", err)
	}
	defer telling.Close()
	if err := os.Mkdir(telling.Addr().String()+".began", 0o700); err != nil { // only a container's first recorder can do that
		journal.written = time.Now().UnixMicro()
	}
	go statussocket.Tell(telling, journal.status)
	failed := make(chan error)
	if sibling.Page != nil {
		store := page.NewStore(page.NewHolders(sibling.Limits.Subnet))
		journal.own = store.Add
		go func() { failed <- store.Serve(root, given[3], *sibling.Page) }()
	}
	go func() { failed <- journal.write() }()
	go func() { failed <- newRecorder(root, sibling, journal).read(given[0]) }()
	go func() {
		if err := journal.follow(given[1]); err != nil {
			failed <- err
		}
	}()
	for counting := time.Tick(time.Second); ; {
		select {
		case err := <-failed:
			return err
		case <-counting:
			journal.count()
		}
	}
}

func (r *recorder) read(socket io.Reader) error {
	buffer := make([]byte, recorderBuffer)
	for {
		size, err := socket.Read(buffer)
		if err != nil {
			return err
		}
		refusals, err := kernel.ReadRefusals(buffer[:size])
		if err != nil {
			return err
		}
		if err := r.record(refusals); err != nil {
			return err
		}
	}
}

type recorder struct {
	journal   *journal
	listening listening
	names     virtualNames
	private   []netip.Addr // at which nothing is for agents, whatever listens
	next      *uint32      // the number of the next copy, once there was one
}

func newRecorder(root string, sibling boot.Sibling, journal *journal) *recorder {
	return &recorder{
		journal: journal, private: sibling.Limits.Private,
		listening: listening{folder: kernel.SocketLists, except: sibling.Limits.PrivatePort},
		names:     virtualNames{hotfile.New(filepath.Join(root, "hot", "numbers", "numbers.json"), parseNumbers), sibling.Blocks},
	}
}

type line struct {
	Address  netip.Addr `json:"address"`
	Name     *string    `json:"name"`
	Port     uint16     `json:"port"`
	Protocol string     `json:"protocol"`
	Reason   string     `json:"reason"`
	Source   string     `json:"source"`
	Time     string     `json:"time"`
}

// record writes refusals down. While nothing listens at all, nothing is refused: the program is starting, or ending.
func (r *recorder) record(refusals []kernel.Refusal) error {
	if len(refusals) == 0 {
		return nil
	}
	lost := r.lost(refusals)
	if err := r.listening.refresh(); err != nil || !r.listening.anything() {
		return err
	}
	r.journal.lose(lost)
	for _, refusal := range refusals {
		name := r.names.at(refusal.Place.Addr())
		text, err := json.Marshal(line{
			Address: refusal.Place.Addr(), Port: refusal.Place.Port(), Source: refusal.Source.String(),
			Name: name, Protocol: map[byte]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}[refusal.Protocol],
			Reason: r.reason(refusal, name), Time: written(r.journal.now()),
		})
		if err != nil {
			return err
		}
		r.journal.add(refusal.Source.Addr(), append(text, '\n'), 1)
	}
	return nil
}

// lost returns how many copies are missing before and between some that were read: the kernel had no room for them, or they
// could not be read. Nobody knows whose they were.
func (r *recorder) lost(read []kernel.Refusal) (lost int) {
	for _, refusal := range read {
		if r.next != nil && refusal.Number > *r.next { // the number may begin anew after 2^32
			lost += int(refusal.Number - *r.next)
		}
		r.next = new(refusal.Number + 1)
	}
	return lost
}

// reason returns why something was refused. At a virtual address on which something listens, its name has a rule, but
// for another port or protocol. Elsewhere no name is known, and no rule is for this port.
func (r *recorder) reason(refused kernel.Refusal, name *string) string {
	switch {
	case slices.Contains(r.private, refused.Place.Addr()):
		return reason.NoRule
	case refused.Protocol == unix.IPPROTO_TCP && r.listening.at(refused.Place):
		return reason.Limit
	case name != nil && r.listening.on(refused.Place.Addr()):
		return reason.WrongPort
	}
	return reason.NoRule
}

// virtualNames knows which name each virtual address stands for, or has stood for: hot/numbers/numbers.json.
type virtualNames struct {
	file   *hotfile.File[map[uint32]string]
	blocks []netip.Prefix
}

func parseNumbers(content []byte) (map[uint32]string, error) {
	var file struct {
		Names map[string]uint32 `json:"names"`
	}
	names := map[uint32]string{}
	err := json.Unmarshal(content, &file)
	for name, number := range file.Names {
		names[number] = name
	}
	return names, err
}

// at returns the name of an address, or nil if it has none. Addresses are numbered from the first one of the first block.
// Without a file that can be read, no name is known.
func (v *virtualNames) at(address netip.Addr) *string {
	if len(v.blocks) == 0 {
		return nil
	}
	names, status := v.file.Fresh()
	if name, known := names[number(address)-number(v.blocks[0].Addr())]; known && status.Reason == "" {
		return &name
	}
	return nil
}

func number(address netip.Addr) uint32 { return binary.BigEndian.Uint32(address.AsSlice()) }

// readingShare is the part of the time that may be spent on reading what listens, as one in so many.
const readingShare = 100

// listening knows at which places programs in this network namespace listen for TCP connections, and at which addresses
// they take datagrams as well. It is read again when it is asked, but not so often that many ports cost much.
type listening struct {
	folder string // with the kernel's lists of sockets
	except uint16 // a port that is not for agents, or 0
	places map[netip.AddrPort]bool
	hosts  map[netip.Addr]bool
	fresh  time.Time // until when it need not be read again
}

func (l *listening) refresh() error {
	started := time.Now()
	if started.Before(l.fresh) {
		return nil
	}
	l.places, l.hosts = map[netip.AddrPort]bool{}, map[netip.Addr]bool{}
	for _, transport := range []string{"tcp", "udp"} {
		places, err := kernel.Listening(l.folder, transport)
		if err != nil {
			return err
		}
		for _, place := range places {
			if l.except != 0 && place.Port() == l.except {
				continue
			}
			l.hosts[place.Addr()] = true
			if transport == "tcp" {
				l.places[place] = true
			}
		}
	}
	ended := time.Now()
	l.fresh = ended.Add(readingShare * ended.Sub(started))
	return nil
}

func (l *listening) anything() bool { return len(l.places) > 0 }

func (l *listening) at(place netip.AddrPort) bool {
	return l.places[place] || l.places[netip.AddrPortFrom(netip.IPv4Unspecified(), place.Port())]
}

func (l *listening) on(address netip.Addr) bool { return l.hosts[address] }

// The journal is the only one that writes lines about agents into the container's log: what the kernel refuses, and what
// the program writes to its standard output. So lines never mix, an agent has its share of the log whoever refuses it what,
// and a reader that stalls delays nobody.

// An agent may cause linesOctetsInSecond octets of lines for as long as the log has room for them (below), and linesOctetsAtOnce
// after it was quiet. A line costs leastOfLine at least: that is what most have. Its other refusals are only counted.
const (
	leastOfLine         = 256
	linesPerSecond      = 50
	linesAtOnce         = 200
	linesOctetsInSecond = linesPerSecond * leastOfLine
	linesOctetsAtOnce   = linesAtOnce * leastOfLine

	// The engine removes its oldest file of the log when it begins another: two of three are whole (LOG in
	// clawker_fw/stack/container.py).
	logKeeps = 2 * 6_000_000
	// logShare is what an agent that was quiet may fill of it. What is filled within keptFor, beside that, all agents share
	// whose share is not whole: what is written about one that is quiet stays there for about as long.
	logShare = logKeeps / 64
	keptFor  = 24 * time.Hour
	// besideLine is what the engine and the number add to a line.
	besideLine = 100

	// mostCounted bounds the octets of the lines that stand for what is counted of an agent: some dozens.
	mostCounted = 64 * leastOfLine

	// mostAgents bounds the agents that are remembered: a bridge has no more ports.
	mostAgents = 1024

	// mostUnread bounds the octets of lines that wait for the reader of the log. Further lines are only counted.
	mostUnread = 1 << 20
	// longestLine is how long a line of the program may be: more than any has.
	longestLine = 1 << 14
)

type journal struct {
	out  io.Writer
	now  func() time.Time
	own  func(agent netip.Addr, line []byte) // remembers a line within its share for the page, or nil
	used *usage.Table                        // nil without one

	mutex   sync.Mutex
	agents  map[netip.Addr]*share
	unknown *share    // of nobody knows whom: one of them, which is never forgotten
	filled  time.Time // until when agents have got more room in the log
	waiting [][]byte
	octets  int           // of all that is waiting
	written int64         // lines with a number
	arrived chan struct{} // tells the writer that something is waiting
}

func newJournal(out io.Writer) *journal {
	made := &journal{
		out: out, now: time.Now, agents: map[netip.Addr]*share{}, filled: time.Now(), arrived: make(chan struct{}, 1),
	}
	made.unknown = made.agent(netip.Addr{})
	return made
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
	if !within || len(from.counted) > 0 || !j.fill(from, line) {
		from.count(line, refusals, j.now())
	}
	return within
}

// fill has a line written if there is room for it in the agent's share of the log, and among those that wait.
func (j *journal) fill(from *share, line []byte) bool {
	kept, _ := json.Marshal(string(line)) // as the engine keeps it
	octets := float64(len(kept) + besideLine)
	if octets > from.room || j.octets+len(line) > mostUnread {
		return false
	}
	from.room -= octets
	j.waiting = append(j.waiting, bytes.Clone(line))
	j.octets += len(line)
	select {
	case j.arrived <- struct{}{}:
	default:
	}
	return true
}

func (j *journal) count() {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	filling := 0
	for _, agentShare := range j.agents {
		if agentShare.room < logShare {
			filling++
		}
	}
	now := j.now()
	octets := logKeeps * now.Sub(j.filled).Seconds() / keptFor.Seconds()
	j.filled = now
	for _, agentShare := range j.agents {
		agentShare.room = min(agentShare.room+octets/float64(max(filling, 1)), logShare)
		j.tell(agentShare)
	}
}

// tell writes what was counted, the oldest first, until there is no room.
func (j *journal) tell(from *share) {
	for len(from.counted) > 0 && j.fill(from, from.counted[0].line()) {
		from.octetsCounted -= len(from.counted[0].begun)
		from.counted = slices.Delete(from.counted, 0, 1)
	}
}

func written(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05.000Z") }

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
		if bytes.HasSuffix(line, endOfRecord) {
			j.written++
		}
		number := j.written
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

// Written is the number of the last line that was written, and what has been counted and is not written yet: lines as they
// would be.
type Written struct {
	Lines   int64             `json:"lines,omitempty"`
	Counted []json.RawMessage `json:"counted,omitempty"`
}

func (j *journal) status() any {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	status := Written{Lines: j.written}
	for _, from := range j.agents {
		for _, group := range from.counted {
			status.Counted = append(status.Counted, group.line())
		}
	}
	return status
}

// agent returns the share of an agent. Agents whose shares are full are forgotten first, and what was only counted of one that
// is forgotten is told before.
func (j *journal) agent(source netip.Addr) *share {
	known := j.agents[source]
	if known == nil {
		if len(j.agents) >= mostAgents {
			j.forget()
		}
		octets := rate.NewLimiter(linesOctetsInSecond, linesOctetsAtOnce)
		known = &share{source: source, octets: octets, room: logShare}
		j.agents[source] = known
	}
	return known
}

func (j *journal) forget() {
	for source, agentShare := range j.agents {
		if source.IsValid() && (agentShare.room >= logShare || len(j.agents) >= mostAgents) {
			j.tell(agentShare)
			for _, untold := range agentShare.counted {
				j.unknown.count(nil, untold.times, untold.last)
			}
			delete(j.agents, source)
		}
	}
}

type share struct {
	source        netip.Addr
	octets        *rate.Limiter
	room          float64    // octets of the log
	counted       []*counted // the oldest first
	octetsCounted int
}

// counted stands for refusals of an agent that are alike, or for all others: those for whose line there was no room.
type counted struct {
	alike
	begun []byte // the first one's line, until its number
	times int
	last  time.Time
}

type alike struct {
	Address, Method, Name, Path, Protocol, Reason string
	Port                                          json.Number // Envoy writes some as text
}

func alikeIn(line []byte) alike {
	var fields alike
	if !bytes.HasSuffix(line, endOfRecord) || json.Unmarshal(line, &fields) != nil || fields.Reason == "" {
		return alike{}
	}
	if fields.Reason != "path" && fields.Reason != "no-websocket" { // no other reason depends on it
		fields.Path = ""
	}
	return fields
}

func (s *share) count(line []byte, refusals int, now time.Time) {
	kind := alikeIn(line)
	isLike := func(group *counted) bool { return group.alike == kind }
	at := slices.IndexFunc(s.counted, isLike)
	if at < 0 && s.octetsCounted+len(line) > mostCounted {
		kind = alike{}
		at = slices.IndexFunc(s.counted, isLike)
	}
	if at < 0 {
		begun := fmt.Appendf(nil, `%s,"times":`, bytes.TrimSuffix(line, endOfRecord))
		if kind == (alike{}) {
			source, _ := s.source.MarshalText() // nothing of nobody knows whom
			begun = fmt.Appendf(nil, `{"source":"%s","suppressed":`, source)
		}
		at = len(s.counted)
		s.counted = append(s.counted, &counted{alike: kind, begun: begun})
		s.octetsCounted += len(begun)
	}
	s.counted[at].times += refusals
	s.counted[at].last = now
}

func (c *counted) line() []byte {
	return fmt.Appendf(nil, `%s%d,"last":"%s"%s`, c.begun, c.times, written(c.last), endOfRecord)
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
	if refusals > 0 {
		j.unknown.count(nil, refusals, j.now())
	}
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
	_, rest, ok := bytes.Cut(line, sourceKey)
	if !ok {
		return netip.Addr{}, 1
	}
	source, _, _ := bytes.Cut(rest, []byte(`"`))
	if place, err := netip.ParseAddrPort(string(source)); err == nil {
		agent = place.Addr().Unmap()
	}
	refusals = 1
	if _, rest, ok := bytes.Cut(line, suppressedKey); ok {
		digits := len(rest) - len(bytes.TrimLeft(rest, "0123456789"))
		if number, err := strconv.ParseUint(string(rest[:digits]), 10, 31); err == nil { // more than these nobody counts
			refusals += int(number)
		}
	}
	return agent, refusals
}
