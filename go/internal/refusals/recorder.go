// Package refusals logs the refusals by the kernel and by the program, with a share of the log for each agent.
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

// `fwctl record`, an unprivileged process beside the program, logs the kernel's refusals in the form of Envoy's
// and CoreDNS's, and passes their lines on. It remembers some for the page about refusals (package page).

const recorderBuffer = 1 << 17

// Socket is the recorder's socket for its line count. Only root may open it.
const Socket = "/tmp/lines.sock"

// AskWritten asks the recorder at a socket for its line count.
func AskWritten(socket string) (Written, error) {
	var answer Written
	err := statussocket.Ask(socket, 2*time.Second, nil, &answer)
	return answer, err
}

// Record logs refusals from the first given file, and the program's lines from the second, until that fails. The
// third is the socket for its line count, then the page's if there is one. The rest is for the use of rules.
func Record(root string, sibling boot.Sibling, files []*os.File, out io.Writer) error {
	sockets := 3
	if sibling.Page != nil {
		sockets++
	}
	if len(files) < sockets {
		return errors.New("record needs the sockets that the supervisor gives it")
	}
	journal := newJournal(out)
	if sibling.Usage != nil {
		keeper, err := usage.Keep(files[sockets:], sibling.Usage.Except)
		if err != nil {
			return err
		}
		journal.used = keeper.Table
	}
	telling, err := net.FileListener(files[2])
	if err != nil {
		return fmt.Errorf("the socket for the line count: %w", err)
	}
	defer telling.Close()
	if err := os.Mkdir(telling.Addr().String()+".began", 0o700); err != nil { // only a container's first recorder can create it
		journal.written = time.Now().UnixMicro()
	}
	go statussocket.Tell(telling, journal.status)
	failed := make(chan error)
	if sibling.Page != nil {
		store := page.NewStore(page.NewHolders(sibling.Limits.Subnet))
		journal.own = store.Add
		go func() { failed <- store.Serve(root, files[3], *sibling.Page) }()
	}
	go func() { failed <- journal.write() }()
	go func() { failed <- newRecorder(root, sibling, journal).read(files[0]) }()
	go func() {
		if err := journal.follow(files[1]); err != nil {
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
	private   []netip.Addr // closed to agents, whoever listens there
	next      *uint32      // the number of the next copy, after the first
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

// record logs refusals. Nothing is refused while nothing listens: the program is starting, or ending.
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

// lost returns the number of missing copies, before and between the read ones: the kernel had no room for them, or
// they were unreadable. Their agents are unknown.
func (r *recorder) lost(read []kernel.Refusal) (lost int) {
	for _, refusal := range read {
		if r.next != nil && refusal.Number > *r.next { // after 2^32, the number may start again
			lost += int(refusal.Number - *r.next)
		}
		r.next = new(refusal.Number + 1)
	}
	return lost
}

// reason returns the reason for a refusal. A virtual address with a listener belongs to a name with a rule, but
// for another port or protocol. Elsewhere no name is known, and no rule has this port.
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

// virtualNames maps current and former virtual addresses to names: hot/numbers/numbers.json.
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

// at returns the name of an address, or nil without one. Addresses are numbered from the start of the first block.
func (v *virtualNames) at(address netip.Addr) *string {
	if len(v.blocks) == 0 {
		return nil
	}
	names, status := v.file.Fresh()
	if name, ok := names[number(address)-number(v.blocks[0].Addr())]; ok && status.Reason == "" {
		return &name
	}
	return nil
}

func number(address netip.Addr) uint32 { return binary.BigEndian.Uint32(address.AsSlice()) }

// readingShare limits the time for reading the listeners to one part in so many.
const readingShare = 100

// listening has the addresses and ports on which programs in this network namespace listen, and the addresses at
// which they receive datagrams. It is refreshed on request, but rarely enough that many ports cost little.
type listening struct {
	folder string // with the kernel's lists of sockets
	except uint16 // a port that is closed to agents, or 0
	places map[netip.AddrPort]bool
	hosts  map[netip.Addr]bool
	fresh  time.Time // until then, it isn't read again
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

// Only the journal writes to the container's log: the kernel's refusals, and the program's standard output. So
// lines never mix, each agent has its share of the log, and a stalled reader delays nothing.

// An agent may cause lineBytesPerSecond bytes of lines while the log has room (below), and lineBytesAtOnce
// after a pause. A line counts as at least leastOfLine, which most have. Further refusals are only counted.
const (
	leastOfLine        = 256
	linesPerSecond     = 50
	linesAtOnce        = 200
	lineBytesPerSecond = linesPerSecond * leastOfLine
	lineBytesAtOnce    = linesAtOnce * leastOfLine

	// Docker removes the oldest log file when it starts another: two of three are complete (LOG in
	// clawker_fw/stack/container.py).
	logKeeps = 2 * 6_000_000
	// logShare is a quiet agent's share of the log. All agents with incomplete shares divide the room that becomes
	// free within keptFor, so a quiet agent's lines stay for about that time.
	logShare = logKeeps / 64
	keptFor  = 24 * time.Hour
	// besideLine is what Docker and the number add to a line.
	besideLine = 100

	// mostCounted limits the bytes of an agent's waiting counts: some dozens.
	mostCounted = 64 * leastOfLine

	// mostAgents limits the remembered agents: a bridge has no more ports.
	mostAgents = 1024

	// mostUnread limits the bytes of lines that wait for the log's reader. Further lines are only counted.
	mostUnread = 1 << 20
	// longestLine limits a program's line: more than any has.
	longestLine = 1 << 14
)

type journal struct {
	out  io.Writer
	now  func() time.Time
	own  func(agent netip.Addr, line []byte) // remembers a line within the share for the page, or nil
	used *usage.Table                        // or nil

	mutex   sync.Mutex
	agents  map[netip.Addr]*share
	unknown *share    // for lines without an agent; never forgotten
	filled  time.Time // when agents last got more room in the log
	waiting [][]byte
	size    int           // of all waiting lines
	written int64         // numbered lines
	arrived chan struct{} // wakes the writer
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

// share queues or counts a line, and reports whether the agent's share had room: an unread log is not its fault.
func (j *journal) share(agent netip.Addr, line []byte, refusals int) bool {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	from := j.agent(agent)
	within := from.limiter.AllowN(j.now(), max(len(line), leastOfLine))
	if !within || len(from.counted) > 0 || !j.fill(from, line) {
		from.count(line, refusals, j.now())
	}
	return within
}

// fill queues a line if there is room in the agent's share of the log and in the queue.
func (j *journal) fill(from *share, line []byte) bool {
	kept, _ := json.Marshal(string(line)) // in Docker's form
	size := float64(len(kept) + besideLine)
	if size > from.room || j.size+len(line) > mostUnread {
		return false
	}
	from.room -= size
	j.waiting = append(j.waiting, bytes.Clone(line))
	j.size += len(line)
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
	freed := logKeeps * now.Sub(j.filled).Seconds() / keptFor.Seconds()
	j.filled = now
	for _, agentShare := range j.agents {
		agentShare.room = min(agentShare.room+freed/float64(max(filling, 1)), logShare)
		j.tell(agentShare)
	}
}

// tell queues the counts, oldest first, while there is room.
func (j *journal) tell(from *share) {
	for len(from.counted) > 0 && j.fill(from, from.counted[0].line()) {
		from.countedSize -= len(from.counted[0].begun)
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

// flush writes all queued lines. A line leaves the queue's size after it has been written.
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
		j.size -= len(line)
		j.mutex.Unlock()
	}
}

var endOfRecord = []byte("}\n")

// numbered adds a number to a record. Docker with a full disk loses lines silently: missing numbers reveal that.
func numbered(line []byte, number int64) []byte {
	record, ok := bytes.CutSuffix(line, endOfRecord)
	if !ok {
		return line
	}
	return fmt.Appendf(bytes.Clone(record), `,"line":%d}%s`, number, "\n")
}

// Written has the number of the last written line, and the waiting counts as lines.
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

// agent returns an agent's share. Agents with full shares are forgotten first, after their counts are queued.
func (j *journal) agent(source netip.Addr) *share {
	agentShare := j.agents[source]
	if agentShare == nil {
		if len(j.agents) >= mostAgents {
			j.forget()
		}
		limiter := rate.NewLimiter(lineBytesPerSecond, lineBytesAtOnce)
		agentShare = &share{source: source, limiter: limiter, room: logShare}
		j.agents[source] = agentShare
	}
	return agentShare
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
	source      netip.Addr
	limiter     *rate.Limiter
	room        float64    // bytes of the log
	counted     []*counted // oldest first
	countedSize int
}

// counted stands for similar refusals of an agent, or for all those without room for a line.
type counted struct {
	alike
	begun []byte // the first line, up to its number
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
	if fields.Reason != "path" && fields.Reason != "no-websocket" { // no other reason depends on the path
		fields.Path = ""
	}
	return fields
}

func (s *share) count(line []byte, refusals int, now time.Time) {
	kind := alikeIn(line)
	isLike := func(group *counted) bool { return group.alike == kind }
	at := slices.IndexFunc(s.counted, isLike)
	if at < 0 && s.countedSize+len(line) > mostCounted {
		kind = alike{}
		at = slices.IndexFunc(s.counted, isLike)
	}
	if at < 0 {
		begun := fmt.Appendf(nil, `%s,"times":`, bytes.TrimSuffix(line, endOfRecord))
		if kind == (alike{}) {
			source, _ := s.source.MarshalText() // empty without an agent
			begun = fmt.Appendf(nil, `{"source":"%s","suppressed":`, source)
		}
		at = len(s.counted)
		s.counted = append(s.counted, &counted{alike: kind, begun: begun})
		s.countedSize += len(begun)
	}
	s.counted[at].times += refusals
	s.counted[at].last = now
}

func (c *counted) line() []byte {
	return fmt.Appendf(nil, `%s%d,"last":"%s"%s`, c.begun, c.times, written(c.last), endOfRecord)
}

// follow adds the program's lines until it ends. Lines that aren't about an agent have a separate share.
func (j *journal) follow(program io.Reader) error {
	lines := bufio.NewReaderSize(program, longestLine)
	for {
		line, err := lines.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) { // no program here writes such a line
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

// Envoy's line has both if the agent gave up before an answer, which is no refusal. No filter of Envoy's lines can
// tell which end gave up (clawker_fw/stack/envoy/refusals.py).
var (
	givenUp   = []byte(`"ended":"RemoteReset"`)
	notFailed = []byte(`"flags":"-"`)
)

// readLine returns the agent of a program's line, and the number of refusals. JSON escapes quotation marks in
// texts, so no text of an agent contains these keys.
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
		if number, err := strconv.ParseUint(string(rest[:digits]), 10, 31); err == nil { // larger numbers are not counted
			refusals += int(number)
		}
	}
	return agent, refusals
}
