package start

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A helper that has ended once is a fact to be told. One that ended restartsTolerated times within restartsWithin does
// not work: that is a difference.
const (
	restartsTolerated = 5
	restartsWithin    = 10 * time.Minute
)

// Restart is what became of a helper since its container has started.
type Restart struct {
	Helper string          `json:"helper"`
	Count  int             `json:"count"`
	Last   time.Time       `json:"last"` // when it ended last, for people: to the second
	Reason string          `json:"reason"`
	Recent []time.Duration `json:"recent"` // its last ends since the machine has started, at most restartsTolerated
}

// sinceStart returns for how long the machine has been up: what is counted with it does not change when somebody sets the
// clock. All processes of a container have the same.
func sinceStart() time.Duration {
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return 0 // no kernel that we need lacks it (2.6.39)
	}
	return time.Duration(up.Nano())
}

// restarts is the record of the ends of helpers. It is written in place: a further file in the volume, even for a
// moment, would be a difference.
type restarts struct {
	path string
	each []Restart
}

func restartsRecord(root string) string { return filepath.Join(root, "state", "restarts.json") }

// newRestarts begins a record, and removes that of an earlier start.
func newRestarts(root string) (*restarts, error) {
	path := restartsRecord(root)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return &restarts{path: path}, nil
}

// add counts the end of a helper, and writes the record.
func (r *restarts) add(helper, reason string, now time.Time, up time.Duration) error {
	at := slices.IndexFunc(r.each, func(each Restart) bool { return each.Helper == helper })
	if at < 0 {
		at = len(r.each)
		r.each = append(r.each, Restart{Helper: helper})
	}
	counted := &r.each[at]
	counted.Count++
	counted.Last, counted.Reason = now.UTC().Truncate(time.Second), reason
	counted.Recent = append(counted.Recent, up)
	if more := len(counted.Recent) - restartsTolerated; more > 0 {
		counted.Recent = slices.Delete(counted.Recent, 0, more)
	}
	content, err := json.Marshal(r.each)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(r.path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(r.path, content, 0o644)
}

// ReadRestarts returns the record, which is missing unless a helper has ended.
func ReadRestarts(root string) ([]Restart, error) {
	content, err := os.ReadFile(restartsRecord(root))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(content) == 0 { // it is about to be written
		return []Restart{}, nil
	}
	if err != nil {
		return nil, err
	}
	var found []Restart
	err = json.Unmarshal(content, &found)
	return found, err
}

func (r Restart) keepsEnding(up time.Duration) bool {
	return len(r.Recent) >= restartsTolerated && up-r.Recent[len(r.Recent)-restartsTolerated] < restartsWithin
}

// restartOf returns what became of a companion, which is nothing if it has never ended.
func restartOf(all []Restart, wanted companion) Restart {
	if at := slices.IndexFunc(all, func(each Restart) bool { return each.Helper == wanted.name() }); at >= 0 {
		return all[at]
	}
	return Restart{}
}
