// Package usage records the agents' use of rules: for each name, protocol and port, the first and last time and
// the bytes. Agents choose the names below a subtree rule, so the subtree stands for all of them. The client
// decides which other rules were used, by its current rules.
package usage

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"container/list"
	"crypto/rand"
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
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"clawker-fw/internal/hostname"
	"clawker-fw/internal/statussocket"
)

const (
	// mostUses limits the table. When it is full, the least recently used entry is dropped, and the record starts
	// later.
	mostUses = 20_000
	// keptFor limits how long an unused entry is kept.
	keptFor = 366 * 24 * time.Hour
)

// Use is the use of one name, protocol and port. Times are in seconds since 1970.
type Use struct {
	Protocol    string `json:"protocol"`
	Name        string `json:"name"` // a host, or a rule's subtree, with a leading dot
	Port        uint16 `json:"port"`
	First       int64  `json:"first"`
	Last        int64  `json:"last"`
	Connections uint64 `json:"connections"` // ended ones
	Received    uint64 `json:"received"`    // bytes from agents in these
	Sent        uint64 `json:"sent"`        // bytes to agents in these
}

// History is the whole record. Since its start, only Lost lines are missing.
type History struct {
	ID    string `json:"id"` // unique
	Since int64  `json:"since"`
	Now   int64  `json:"now"`
	Lost  uint64 `json:"lost"` // unreadable lines
	Uses  []Use  `json:"uses"`
}

func (u *Use) key() string { return u.Protocol + " " + u.Name + " " + strconv.Itoa(int(u.Port)) }

func (u *Use) and(other Use) {
	u.First, u.Last = min(u.First, other.First), max(u.Last, other.Last)
	u.Connections += other.Connections
	u.Received += other.Received
	u.Sent += other.Sent
}

type Table struct {
	now  func() time.Time
	own  []netip.Addr
	most int

	mutex   sync.Mutex
	id      string
	since   int64
	lost    uint64
	changes uint64
	uses    map[string]*list.Element
	latest  *list.List // of *Use, most recently used first, whatever the clock says
}

// New returns an empty table. Connections from our own addresses don't count.
func New(own []netip.Addr, now func() time.Time) *Table {
	table := &Table{now: now, own: own, most: mostUses, id: rand.Text(), since: now().Unix()}
	table.fill(nil)
	return table
}

// moment returns the current time, or the start of the record if the clock was set back: earlier times are
// forgotten.
func (t *Table) moment() int64 { return max(t.now().Unix(), t.since) }

// Take reads an Envoy line that begins with Mark. A connection without a host doesn't count, and neither do our
// own attempts. But one of ours that is kept open serves others as well, so it counts.
func (t *Table) Take(line []byte) {
	use, ok := read(line)
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if !ok {
		t.lose()
		return
	}
	if !use.led || use.over && slices.Contains(t.own, use.source) {
		return
	}
	now := t.moment()
	element := t.uses[string(use.key)]
	if element == nil {
		fresh, ok := parse(use.key)
		if !ok {
			t.lose()
			return
		}
		fresh.First, fresh.Last = now, now
		element = t.insert(fresh)
	}
	t.changes++
	entry := element.Value.(*Use)
	entry.Last = max(entry.Last, now) // the clock may have been set back
	if use.over {
		entry.and(Use{First: entry.First, Connections: 1, Received: use.received, Sent: use.sent})
	}
	t.latest.MoveToFront(element)
}

func (t *Table) lose() {
	t.lost++
	t.changes++
}

func (t *Table) insert(latest Use) *list.Element {
	element := t.latest.PushFront(&latest)
	t.uses[latest.key()] = element
	for len(t.uses) > t.most {
		gone := t.latest.Remove(t.latest.Back()).(*Use)
		delete(t.uses, gone.key())
		t.since = max(t.since, gone.Last+1)
	}
	return element
}

func (t *Table) fill(uses []Use) {
	t.uses, t.latest = map[string]*list.Element{}, list.New()
	slices.SortStableFunc(uses, func(one, other Use) int { return cmp.Compare(one.Last, other.Last) })
	for _, use := range uses {
		t.insert(use)
	}
}

// History returns the whole record, ordered by name, protocol and port.
func (t *Table) History() History {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	return t.history(t.moment() - int64(keptFor/time.Second))
}

// history returns the use since a time. Older entries stay in the table: the clock may be set back.
func (t *Table) history(since int64) History {
	history := History{
		ID: t.id, Since: max(since, t.since), Now: t.moment(), Lost: t.lost,
		Uses: make([]Use, 0, len(t.uses)),
	}
	for element := t.latest.Front(); element != nil; element = element.Next() {
		if entry := element.Value.(*Use); entry.Last >= since {
			history.Uses = append(history.Uses, *entry)
		}
	}
	slices.SortFunc(history.Uses, func(one, other Use) int {
		return cmp.Or(cmp.Compare(one.Name, other.Name), cmp.Compare(one.Protocol, other.Protocol), cmp.Compare(one.Port, other.Port))
	})
	return history
}

// Restore starts with the record from the disk, without its invalid entries.
func (t *Table) Restore(left History) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.id, t.since, t.lost = left.ID, left.Since, left.Lost
	uses := slices.DeleteFunc(slices.Clone(left.Uses), func(use Use) bool {
		_, ok := parse([]byte(use.key()))
		return !ok
	})
	for at := range uses {
		uses[at].Last = max(uses[at].Last, t.since)
	}
	t.changes++
	t.fill(uses)
}

// Mark begins each Envoy line about a connection to a host (clawker_fw/stack/envoy/usage.py). Other lines are
// JSON.
var Mark = []byte("used ")

var (
	periodic = []byte("Periodic") // the end of the moment of an open connection
	unplaced = []byte("-")        // in place of an address: Envoy has connected to no host
	// withoutRule is in the names of the chains for observed names, whose connections use no rule.
	withoutRule = []byte("*")
	protocols   = map[string]bool{"https": true, "http": true, "tcp": true, "udp": true}
)

// observed is a line `used PROTOCOL NAME PORT SOURCE RECEIVED SENT MOMENT FROM CHAIN`.
type observed struct {
	key      []byte // protocol, name or subtree, and port
	source   netip.Addr
	received uint64 // bytes from the agent
	sent     uint64 // bytes to the agent
	over     bool   // the connection has ended
	led      bool   // it had a host
}

// read parses a line that begins with Mark. Only its last word may have spaces: a rule has allowed the name.
func read(line []byte) (observed, bool) {
	const words = 9
	rest := bytes.TrimSuffix(line[len(Mark):], []byte("\n"))
	word := bytes.SplitN(rest, []byte(" "), words)
	if len(word) != words {
		return observed{}, false
	}
	use := observed{key: rest[:len(word[0])+len(word[1])+len(word[2])+2]}
	use.led = !bytes.Equal(word[7], unplaced) && !bytes.Contains(word[8], withoutRule)
	if subtree := subtreeOf(word[8]); subtree != nil {
		use.key = bytes.Join([][]byte{word[0], subtree, word[2]}, []byte(" "))
	}
	source, err := netip.ParseAddrPort(string(word[3]))
	if err != nil {
		return observed{}, false
	}
	use.source = source.Addr().Unmap()
	var failed [2]error
	use.received, failed[0] = strconv.ParseUint(string(word[4]), 10, 63)
	use.sent, failed[1] = strconv.ParseUint(string(word[5]), 10, 63)
	use.over = !bytes.HasSuffix(word[6], periodic)
	return use, failed[0] == nil && failed[1] == nil
}

// subtreeOf returns the subtree of a filter chain's rule, with a leading dot, or nil: `tls .NAME …`,
// `http PORT .NAME …` or `https PORT .NAME …` (clawker_fw/stack/envoy/chains.py).
func subtreeOf(chain []byte) []byte {
	const before = 2
	words := bytes.SplitN(chain, []byte(" "), before+2)
	for _, word := range words[:min(len(words), before+1)] {
		if bytes.HasPrefix(word, []byte(".")) {
			return word
		}
	}
	return nil
}

// parse parses a key. No rule can have allowed a connection with an invalid one.
func parse(key []byte) (Use, bool) {
	words := bytes.Split(key, []byte(" "))
	if len(words) != 3 || !protocols[string(words[0])] || !hostname.Is(strings.TrimPrefix(string(words[1]), ".")) {
		return Use{}, false
	}
	port, err := strconv.ParseUint(string(words[2]), 10, 16)
	return Use{Protocol: string(words[0]), Name: string(words[1]), Port: uint16(port)}, err == nil && port > 0
}

// The record outlives the container in two files of its volume, which are written in turn, because a temporary
// file would be a difference. An incomplete file leaves the other, and gzip's checksum reveals it (RFC 1952).
const (
	slots = 2
	// writeEvery limits the loss of records: nothing can be written when the container stops, because the kernel
	// ends the recorder together with Envoy.
	writeEvery = 5 * time.Second
	// mostWritten limits reading a file: far more than mostUses take.
	mostWritten = 16 << 20
)

type kept struct {
	files   []*os.File
	turn    uint64 // counts writes
	written uint64 // the table's changes then
}

// slot is the content of one file. The turn tells which was written last, whatever the clock said.
type slot struct {
	History
	Turn uint64 `json:"turn"`
}

func (k *kept) left() (History, bool) {
	var latest slot
	ok := false
	for at, file := range k.files {
		candidate, err := readFrom(io.NewSectionReader(file, 0, mostWritten))
		if err == nil && (!ok || cmp.Or(cmp.Compare(candidate.Turn, latest.Turn), cmp.Compare(candidate.Now, latest.Now)) > 0) {
			latest, ok = candidate, true
			k.turn = max(candidate.Turn, uint64(at)+1) // the other one is written next
		}
	}
	return latest.History, ok
}

func readFrom(file io.Reader) (slot, error) {
	var parsed slot
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		return parsed, err
	}
	unzipped.Multistream(false) // the rest is from an earlier, longer content
	content, err := io.ReadAll(io.LimitReader(unzipped, mostWritten))
	if err != nil {
		return parsed, err
	}
	if err := json.Unmarshal(content, &parsed); err != nil {
		return parsed, err
	}
	return parsed, parsed.verify()
}

func (h History) verify() error {
	if h.ID == "" || h.Since <= 0 || h.Now < h.Since {
		return errors.New("invalid record of use")
	}
	return nil
}

func (k *kept) write(table *Table) error {
	history, changes := table.changed(k.written)
	if history == nil {
		return nil
	}
	var content bytes.Buffer
	zipped, err := gzip.NewWriterLevel(&content, gzip.BestSpeed)
	if err != nil {
		return err
	}
	if err := errors.Join(json.NewEncoder(zipped).Encode(slot{*history, k.turn + 1}), zipped.Close()); err != nil {
		return err
	}
	file := k.files[k.turn%slots]
	if _, err := file.WriteAt(content.Bytes(), 0); err != nil {
		return err // the other file has the previous record
	}
	k.turn++
	k.written = changes
	return cmp.Or(file.Truncate(int64(content.Len())), file.Sync())
}

func (t *Table) changed(written uint64) (*History, uint64) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if t.changes == written {
		return nil, written
	}
	history := t.history(0)
	return &history, t.changes
}

// Socket is the recorder's socket for the use of rules. Only root may open it.
const Socket = "/tmp/usage.sock"

const answersWithin = 5 * time.Second

// Prepare opens the socket and the files of the record, to be handed down. They outlive the recorder.
func Prepare(root, socket string) ([]*os.File, error) {
	file, err := statussocket.Prepare(socket, 0o600)
	if err != nil {
		return nil, err
	}
	files, folder := []*os.File{file}, filepath.Join(root, "state")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	for at := range slots {
		path := filepath.Join(folder, fmt.Sprintf("usage-%d.json.gz", at))
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
		if err != nil {
			return nil, fmt.Errorf("the files of the record of use: %w", err)
		}
		files = append(files, file)
	}
	return files, nil
}

type Keeper struct {
	*Table
	kept kept
}

// Keep continues an earlier recorder's record, with the given socket and files.
func Keep(files []*os.File, own []netip.Addr) (*Keeper, error) {
	if len(files) != 1+slots {
		return nil, fmt.Errorf("a record of use needs a socket and %d files, got %d", slots, len(files))
	}
	listener, err := net.FileListener(files[0])
	if err != nil {
		return nil, err
	}
	keeper := &Keeper{Table: New(own, time.Now), kept: kept{files: files[1:]}}
	if left, ok := keeper.kept.left(); ok {
		keeper.Restore(left)
	}
	go statussocket.Tell(listener, func() any { return keeper.History() })
	go func() {
		for range time.Tick(writeEvery) {
			_ = keeper.kept.write(keeper.Table)
		}
	}()
	return keeper, nil
}

func Ask(socket string) (history History, err error) {
	if err := statussocket.Ask(socket, answersWithin, nil, &history); err != nil {
		return History{}, fmt.Errorf("the recorder does not answer: %w", err)
	}
	return history, nil
}
