// Package hot puts the files that a sibling's program reads while it runs in place, proves them live, and restores the
// last good set.
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

// Result is the output of commit. When Committed is false, the last good set has already been restored.
type Result struct {
	Committed bool             `json:"committed"`
	Rejected  []string         `json:"rejected"` // resources that the program rejected
	Missing   []string         `json:"missing"`  // resources that did not become live in time
	Reason    string           `json:"reason"`
	Hung      bool             `json:"hung"`               // the program no longer answers and must be restarted
	Evidence  serving.Evidence `json:"evidence,omitempty"` // by which it was proven
}

// Taken is what commit says before its result, as soon as the program has accepted every file that has a version. That
// it serves as they say, and with nothing else, is proven afterwards.
type Taken struct {
	Taken bool `json:"taken"`
}

// hungAfter is the share of the proof's time after which a silent program counts as hung. A program that is loading
// a large set does not answer for a while either.
const hungAfter = 0.6

const backWithin = time.Second

// Volume is where files are committed, and the program that reads them.
type Volume struct {
	Root      string
	Resources []boot.Resource
	Program   serving.Program
	Now       func() time.Time
}

// Commit puts files in place that are sent, as a tar of so many octets, and waits until the program proves them live. If it
// does not, the set before is restored, because a half-applied update must not stay. It calls `taken` before the proof, once the
// program has accepted every file that has a version.
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

// prove polls until every resource is live, from the files of a commit, an update is rejected beyond those before, the program is
// silent for too long, or the time is up.
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

// Check fails unless the program serves what the last commit says. It compares the version of versioned files, and the
// digest of hashed ones.
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

// Envoy reads a file again when something is renamed into a folder that it watches, and its watch stays with the folder
// when that is moved. So it watches a folder of its own for each file, outside both trees, in which a commit renames an
// empty file: its bell. They are in the container's memory, and so take no room on the disk.

var bell = [...]string{"0", "1"}

// MakeBells makes the folders that the program watches, before it starts.
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

// ring has the program read its files again, in the order of its resources, so that a file comes before those that refer
// to it.
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

// Rules end at their times although nobody runs anything: hot/ends/ends.json says what the hot files become then.
// clawker-fw has rendered these files, so what is live afterwards is what it wants at that time. The supervisor knows the
// next time, and starts `fwctl end`, which commits them like any others. `serve` does so before it starts the program,
// so that no restart brings back a rule that has ended.

const endsPath = "ends/ends.json"

// endsRead is how often the supervisor looks whether the ends are others, and EndAgain how long it waits after a failure.
const (
	endsRead = time.Second
	EndAgain = 2 * time.Second
)

// End is a time at which rules end, in seconds since 1970, and what becomes of the files that change then: those of
// before it, or of the end before it. Live and Rules are those of the record afterwards.
type End struct {
	At    int64                `json:"at"`
	Files map[string]EndedFile `json:"files"` // by path below hot/
	Live  map[string]string    `json:"live"`
	Rules json.RawMessage      `json:"rules"`
}

// EndedFile is a file's new content: the old one with some parts replaced, in order. Its version is left out of both.
type EndedFile struct {
	Digest string `json:"sha256"`
	Parts  []Part `json:"parts"`
}

// Part replaces the octets of a file from one position to another.
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
			return nil, fmt.Errorf("there is no part from %d to %d", part.From, part.To)
		}
		after = append(append(after, content[position:part.From]...), part.Text...)
		position = part.To
	}
	after = append(after, content[position:]...)
	if DigestOf(after) != f.Digest {
		return nil, errors.New("it would have another digest")
	}
	return after, nil
}

// endsFile is hot/ends/ends.json. Those that are left are written again just as they were.
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

// endedSet returns what the hot files are to be by now, if rules have ended since they were committed. It reports whether
// that is so.
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

// EndRules commits what the hot files are to be by now, if rules have ended. A program that rejects it keeps the old ones. It
// also undoes a commit that has died.
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
		err = fmt.Errorf("what has ended is still in force: %s", result.Reason)
	}
	return err
}

// EndAtStart does so before the program has started, which then reads these files.
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

// Deadline knows when the next rules end. While that can't be read, it is as it was.
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

// Due reports whether rules have ended by now, or a commit has died, and for how long to wait before the next look.
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
