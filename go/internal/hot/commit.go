// Package hot applies a program's dynamic files while it runs, verifies that it has loaded them, and rolls back.
package hot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/hotfile"
	"clawker-fw/internal/serving"
	"clawker-fw/internal/volume"
)

// Result is the output of commit. If Committed is false, the last verified set has been restored.
type Result struct {
	Committed bool             `json:"committed"`
	Rejected  []string         `json:"rejected"` // resources that the program rejected
	Missing   []string         `json:"missing"`  // resources that were not loaded in time
	Reason    string           `json:"reason"`
	Hung      bool             `json:"hung"`               // the program no longer answers and must be restarted
	Evidence  serving.Evidence `json:"evidence,omitempty"` // proof of the live content
}

// Taken is the output of commit once the program has accepted all versioned files. Their content is verified next.
type Taken struct {
	Taken bool `json:"taken"`
}

// hungAfter is the part of the time for verification after which a silent program counts as hung. A program that
// loads a large set is also silent for a while.
const hungAfter = 0.6

const backWithin = time.Second

// Volume is a container's volume, and the program that reads its dynamic files.
type Volume struct {
	Root      string
	Resources []boot.Resource
	Program   serving.Program
	Now       func() time.Time
}

// Commit applies files from a tar of this size, and verifies that the program loads them. Otherwise it restores
// the previous set, because a half-applied update must not stay. It calls `taken` once the program has accepted
// all versioned files, before their content is verified.
func (v Volume) Commit(size int64, from io.Reader, taken func()) (Result, error) {
	sent, err := readSent(size, from)
	if err != nil {
		return Result{}, err
	}
	unlock, err := lock(v.Root, unix.LOCK_EX)
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	return v.commit(sent, taken)
}

func (v Volume) commit(s set, taken func()) (Result, error) {
	if err := v.restore(); err != nil && !errors.Is(err, errUnproven) {
		return Result{}, err
	}
	before, err := v.Program.Rejections(v.Resources)
	if err != nil {
		return Result{}, err
	}
	next := s.withVersion(NewVersion())
	if err := next.prepare(v.Root); err != nil {
		return Result{}, errors.Join(err, finish(v.Root))
	}
	if err := v.put(); err != nil {
		return Result{}, errors.Join(err, v.restore(), finish(v.Root))
	}
	result := v.prove(next.record, before, time.Duration(next.record.Seconds*float64(time.Second)), taken)
	if !result.Committed {
		return v.giveBack(result)
	}
	if err := accept(v.Root); err != nil {
		result.Committed = false
		return result, errors.Join(err, v.restore(), finish(v.Root))
	}
	return result, finish(v.Root)
}

func (v Volume) put() error {
	if err := turn(v.Root); err != nil {
		return err
	}
	return ring(v.Resources)
}

func (v Volume) restore() error {
	turned, err := settle(v.Root)
	if turned {
		err = errors.Join(err, ring(v.Resources))
	}
	return err
}

func (v Volume) giveBack(result Result) (Result, error) {
	if err := v.put(); err != nil {
		return result, errors.Join(err, v.restore())
	}
	if !result.Hung {
		counts, err := v.Program.Rejections(v.Resources)
		result.Hung = err != nil
		if good, unreadable := ReadRecord(RecordPath(v.Root)); err == nil && unreadable == nil {
			result.Hung = v.prove(good, counts, backWithin, func() {}).Hung
		}
	}
	return result, finish(v.Root)
}

// prove polls until every resource is live, the program rejects a further update or is silent, or the time is up.
func (v Volume) prove(next Commit, before map[string]int, within time.Duration, taken func()) Result {
	result := Result{Rejected: []string{}, Missing: slices.Sorted(maps.Keys(next.Live))}
	answered := v.Now()
	limit := answered.Add(within)
	tell := sync.OnceFunc(taken)
	for ; ; time.Sleep(serving.PollEvery) {
		missing, err := serving.NotTaken(v.Program, v.Resources, next.Version)
		if err == nil && len(missing) == 0 {
			tell()
			var live map[string]string
			live, err = v.Program.Live(v.Resources)
			missing = Differing(next.Live, live)
		}
		if err == nil {
			result.Missing = missing
			if result.Committed = len(missing) == 0; result.Committed {
				result.Evidence = v.Program.Evidence()
				return result
			}
			var rejections map[string]int
			if rejections, err = v.Program.Rejections(v.Resources); err == nil {
				answered = v.Now()
				for resource, count := range rejections {
					if count > before[resource] {
						result.Rejected = append(result.Rejected, resource)
					}
				}
			}
		}
		slices.Sort(result.Rejected)
		over := v.Now().After(limit)
		silence := v.Now().Sub(answered)
		if err != nil && (over || silence.Seconds() > hungAfter*within.Seconds()) {
			result.Hung = true
			result.Reason = "the program no longer answers: " + err.Error()
			return result
		}
		if len(result.Rejected) > 0 || over {
			result.Reason = v.Program.Reason()
			return result
		}
	}
}

// Check fails unless the program serves the last commit, by the versions of files and the digests of hashed ones.
func Check(root string, resources []boot.Resource, program serving.Program) error {
	committed, err := ReadRecord(RecordPath(root))
	if err != nil {
		return err
	}
	other, err := serving.NotTaken(program, resources, committed.Version)
	if err != nil {
		return err
	}
	if len(other) > 0 {
		return fmt.Errorf("not loaded from the committed files: %v", other)
	}
	if err := program.Serves(); err != nil {
		return err
	}
	digests := slices.DeleteFunc(slices.Clone(resources), func(resource boot.Resource) bool { return !resource.Hashed })
	live, err := program.Live(digests)
	if err != nil {
		return err
	}
	for _, resource := range digests {
		if live[resource.Name] != committed.Live[resource.Name] {
			return fmt.Errorf("live content differs from the committed one: %s", resource.Name)
		}
	}
	return nil
}

// Envoy reads a file again after a rename into a folder that it watches, and a watch stays with a folder that is
// moved. So each file has a watched folder outside both trees, in which a commit renames an empty file, its bell.
// These folders are in memory, so bells take no room on the disk.

var bell = [...]string{"0", "1"}

// MakeBells creates the watched folders, before the program starts.
func MakeBells(resources []boot.Resource) error {
	for _, resource := range resources {
		if resource.Watched == "" {
			continue
		}
		first := filepath.Join(resource.Watched, bell[0])
		if err := errors.Join(os.MkdirAll(resource.Watched, 0o755), os.WriteFile(first, nil, 0o644)); err != nil {
			return err
		}
	}
	return nil
}

// ring makes the program read its files again, in the order of its resources: first those that others refer to.
func ring(resources []boot.Resource) error {
	for _, resource := range resources {
		if resource.Watched == "" {
			continue
		}
		one, other := filepath.Join(resource.Watched, bell[0]), filepath.Join(resource.Watched, bell[1])
		err := os.Rename(one, other)
		if errors.Is(err, fs.ErrNotExist) {
			err = os.Rename(other, one)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Rules expire without anybody's help: hot/ends/ends.json has the changes of the dynamic files at the next expiry
// times. clawker-fw rendered them, so the result is the desired state at that time. The supervisor starts
// `fwctl end` in time, which commits them like any update. `serve` applies them before it starts the program, so
// that no restart brings an expired rule back.

const endsPath = "ends/ends.json"

// endsRead is the interval at which the supervisor reads the expiry times, and EndAgain its wait after a failure.
const (
	endsRead = time.Second
	EndAgain = 2 * time.Second
)

// End is an expiry time, in seconds since 1970, and the changes of the files then, relative to the end before it.
// Live and Rules replace those of the record.
type End struct {
	At    int64                `json:"at"`
	Files map[string]EndedFile `json:"files"` // by path below hot/
	Live  map[string]string    `json:"live"`
	Rules json.RawMessage      `json:"rules"`
}

// EndedFile is a file's new content: the old one with some parts replaced, in order, both without their version.
type EndedFile struct {
	Digest string `json:"sha256"`
	Parts  []Part `json:"parts"`
}

// Part replaces the bytes of a file from one position to another.
type Part struct {
	From int    `json:"from"`
	To   int    `json:"to"`
	Text string `json:"text"`
}

func (f EndedFile) of(content []byte) ([]byte, error) {
	var after []byte
	position := 0
	for _, part := range f.Parts {
		if part.From < position || part.To < part.From || part.To > len(content) {
			return nil, fmt.Errorf("no part from %d to %d", part.From, part.To)
		}
		after = append(append(after, content[position:part.From]...), part.Text...)
		position = part.To
	}
	after = append(after, content[position:]...)
	if DigestOf(after) != f.Digest {
		return nil, errors.New("wrong digest after the change")
	}
	return after, nil
}

// endsFile is hot/ends/ends.json. Its remaining ends are written back unchanged.
type endsFile struct {
	Ends []json.RawMessage `json:"ends"`
}

func (e endsFile) first() (End, bool, error) {
	if len(e.Ends) == 0 {
		return End{}, false, nil
	}
	var first End
	err := json.Unmarshal(e.Ends[0], &first)
	return first, err == nil, err
}

func (e endsFile) text() []byte {
	texts := make([]string, len(e.Ends))
	for number, text := range e.Ends {
		texts[number] = string(text)
	}
	return []byte(`{"ends":[` + strings.Join(texts, ",") + `]}`)
}

func parseEnds(text []byte) (ends endsFile, err error) {
	err = json.Unmarshal(text, &ends)
	return ends, err
}

// endedSet returns the dynamic files at this time, and whether rules have expired since the last commit.
func endedSet(root string, now time.Time) (set, bool, error) {
	hot := hotFolder(root)
	text, err := volume.ReadFile(filepath.Join(hot, endsPath))
	if errors.Is(err, fs.ErrNotExist) {
		return set{}, false, nil
	}
	if err != nil {
		return set{}, false, err
	}
	left, err := parseEnds(text)
	if err != nil {
		return set{}, false, err
	}
	first, pending, err := left.first()
	if err != nil || !pending || first.At > now.Unix() {
		return set{}, false, err
	}
	committed, err := ReadRecord(RecordPath(root))
	if err != nil {
		return set{}, false, err
	}
	ended, err := loadSet(hot, committed)
	if err != nil {
		return set{}, false, err
	}
	for pending && first.At <= now.Unix() {
		for path, change := range first.Files {
			if err := ended.rewrite(path, change.of); err != nil {
				return set{}, false, err
			}
		}
		ended.record.Live, ended.record.Rules = first.Live, first.Rules
		left.Ends = left.Ends[1:]
		if first, pending, err = left.first(); err != nil {
			return set{}, false, err
		}
	}
	return ended, true, ended.rewrite(endsPath, func([]byte) ([]byte, error) { return left.text(), nil })
}

func (s *set) rewrite(path string, change func([]byte) ([]byte, error)) error {
	place := slices.Index(s.record.Paths(), path)
	if place < 0 {
		return fmt.Errorf("%s is not in the record", path)
	}
	file := s.files[path]
	after, err := change(WithVersion(file.content, Unversioned))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	file.content = after
	s.files[path] = file
	s.record.Files = slices.Clone(s.record.Files)
	s.record.Files[place].Digest = DigestOf(after)
	return nil
}

// EndRules removes expired rules like a commit, or rolls back. It also rolls back a commit that was killed.
func (v Volume) EndRules() error {
	unlock, err := lock(v.Root, unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock()
	if err := v.restore(); err != nil {
		return err
	}
	ended, due, err := endedSet(v.Root, v.Now())
	if err != nil || !due {
		return errors.Join(err, finish(v.Root))
	}
	result, err := v.commit(ended, func() {})
	if err == nil && !result.Committed {
		err = fmt.Errorf("expired rules are still in force: %s", result.Reason)
	}
	return err
}

// EndAtStart removes expired rules before the program starts.
func EndAtStart(root string, now time.Time) error {
	ended, due, err := endedSet(root, now)
	if err != nil || !due {
		return err
	}
	next := ended.withVersion(NewVersion())
	if err := next.prepare(root); err != nil {
		return err
	}
	return errors.Join(turn(root), accept(root), finish(root))
}

func lock(root string, how int) (func(), error) {
	folder, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(folder.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(err, folder.Close())
	}
	return func() { folder.Close() }, nil
}

// Deadline is when the next rules expire. While that is unreadable, the last known time counts.
type Deadline struct {
	root string
	next *hotfile.File[time.Time] // the zero time if no rule ends
}

func NewDeadline(root string) Deadline {
	return Deadline{root, hotfile.New(filepath.Join(hotFolder(root), endsPath), func(text []byte) (next time.Time, err error) {
		ends, err := parseEnds(text)
		if err != nil {
			return next, err
		}
		first, pending, err := ends.first()
		if pending {
			next = time.Unix(first.At, 0)
		}
		return next, err
	})}
}

// Due reports whether rules have expired or a commit was killed, and how long to wait before the next check.
func (d Deadline) Due(now time.Time) (bool, time.Duration) {
	if hasDied(d.root) {
		return true, EndAgain
	}
	next, _ := d.next.Fresh()
	switch left := next.Sub(now); {
	case next.IsZero():
		return false, endsRead
	case left <= 0:
		return true, EndAgain
	default:
		return false, min(left, endsRead)
	}
}

func hasDied(root string) bool {
	if _, err := os.Lstat(nextRecord(root)); err != nil {
		return false
	}
	unlock, err := lock(root, unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		return false
	}
	unlock()
	_, err = os.Lstat(nextRecord(root)) // it may have ended in between
	return err == nil
}
