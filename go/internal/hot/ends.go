package hot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/hotfile"
	"clawker-fw/internal/record"
	"clawker-fw/internal/serving"
	"clawker-fw/internal/volume"
)

// Rules end at their times although nobody runs anything: hot/ends/ends.json says what the hot files become then.
// clawker-fw has rendered these files, so what is live afterwards is what it wants at that time. The keeper knows the
// next time, and starts `fwctl end`, which commits them like any others. `serve` does so before it starts the program,
// so that no restart brings back a rule that has ended.

const endsPath = "ends/ends.json"

// endsRead is how often the keeper looks whether the ends are others, and EndAgain how long it waits after a failure.
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
	if record.DigestOf(after) != f.Digest {
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
	text := []byte(`{"ends":[`)
	for number, each := range e.Ends {
		if number > 0 {
			text = append(text, ',')
		}
		text = append(text, each...)
	}
	return append(text, `]}`...)
}

func parseEnds(text []byte) (found endsFile, err error) {
	err = json.Unmarshal(text, &found)
	return found, err
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
	first, there, err := left.first()
	if err != nil || !there || first.At > now.Unix() {
		return set{}, false, err
	}
	committed, err := record.Read(record.Path(root))
	if err != nil {
		return set{}, false, err
	}
	ended, err := loadSet(hot, committed)
	if err != nil {
		return set{}, false, err
	}
	for there && first.At <= now.Unix() {
		for path, change := range first.Files {
			if err := ended.rewrite(path, change.of); err != nil {
				return set{}, false, err
			}
		}
		ended.record.Live, ended.record.Rules = first.Live, first.Rules
		left.Ends = left.Ends[1:]
		if first, there, err = left.first(); err != nil {
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
	after, err := change(record.WithVersion(file.content, record.Unversioned))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	file.content = after
	s.files[path] = file
	s.record.Files = slices.Clone(s.record.Files)
	s.record.Files[place].Digest = record.DigestOf(after)
	return nil
}

// EndRules commits what the hot files are to be by now, if rules have ended. A program that rejects it keeps the old ones. It
// also undoes a commit that has died.
func EndRules(root string, resources []boot.Resource, program serving.Program, now func() time.Time) error {
	unlock, err := lock(root, unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock()
	if err := restore(root, resources); err != nil {
		return err
	}
	ended, due, err := endedSet(root, now())
	if err != nil || !due {
		return errors.Join(err, finish(root))
	}
	result, err := ended.commit(root, resources, program, now, func() {})
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
	next := ended.withVersion(record.NewVersion())
	if err := next.prepare(root); err != nil {
		return err
	}
	return errors.Join(turn(root), accept(root), finish(root))
}

// lock lets no other commit begin until it is unlocked. With LOCK_EX, it waits until none is at work.
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
		found, err := parseEnds(text)
		if err != nil {
			return next, err
		}
		first, there, err := found.first()
		if there {
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
