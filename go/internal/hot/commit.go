// Package hot puts the files that a sibling's program reads while it runs in place, proves them live, and restores the
// last good set.
package hot

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/record"
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

// Commit puts the staged files in place and waits until the program proves them live. If it does not, the set before is
// restored, because a half-applied update must not stay. It calls `taken` before the proof, once the program has accepted
// every file that has a version.
func Commit(
	root string, resources []boot.Resource, program serving.Program, now func() time.Time, taken func(),
) (Result, error) {
	unlock, err := lock(root, unix.LOCK_EX)
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	stage := stageFolder(root)
	var wanted record.Commit
	if err := volume.ReadJSON(filepath.Join(stage, "commit.json"), &wanted); err != nil {
		return Result{}, err
	}
	staged, err := loadSet(filepath.Join(stage, "hot"), wanted)
	if err != nil {
		return Result{}, err
	}
	result, err := staged.commit(root, resources, program, now, taken)
	if err != nil {
		return result, err
	}
	return result, os.RemoveAll(stage)
}

// CommitSent commits files that are sent, as a tar of so many octets, without staging them.
func CommitSent(
	root string, size int64, from io.Reader, resources []boot.Resource, program serving.Program, now func() time.Time, taken func(),
) (Result, error) {
	sent, err := readSent(size, from)
	if err != nil {
		return Result{}, err
	}
	unlock, err := lock(root, unix.LOCK_EX)
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	if err := os.RemoveAll(stageFolder(root)); err != nil { // what has arrived of it before the disk was full
		return Result{}, err
	}
	return sent.commit(root, resources, program, now, taken)
}

func stageFolder(root string) string { return filepath.Join(root, "stage") }

func (s set) commit(
	root string, resources []boot.Resource, program serving.Program, now func() time.Time, taken func(),
) (Result, error) {
	if err := restore(root, resources); err != nil && !errors.Is(err, errUnproven) {
		return Result{}, err
	}
	before, err := program.Rejections(resources)
	if err != nil {
		return Result{}, err
	}
	next := s.withVersion(record.NewVersion())
	if err := next.prepare(root); err != nil {
		return Result{}, errors.Join(err, finish(root))
	}
	if err := put(root, resources); err != nil {
		return Result{}, errors.Join(err, restore(root, resources), finish(root))
	}
	seconds := time.Duration(next.record.Seconds * float64(time.Second))
	result := prove(program, resources, Proof{next.record.Live, next.record.Version, before, seconds, taken}, now)
	if !result.Committed {
		return giveBack(root, resources, program, result, now)
	}
	if err := accept(root); err != nil {
		result.Committed = false
		return result, errors.Join(err, restore(root, resources), finish(root))
	}
	return result, finish(root)
}

func put(root string, resources []boot.Resource) error {
	if err := turn(root); err != nil {
		return err
	}
	return ring(resources)
}

// restore makes hot/ the set that was proven last, if it is not, and has the program read it.
func restore(root string, resources []boot.Resource) error {
	turned, err := settle(root)
	if turned {
		err = errors.Join(err, ring(resources))
	}
	return err
}

// giveBack puts the set before in place again and waits until it is live. It marks a program that no longer answers as hung.
func giveBack(
	root string, resources []boot.Resource, program serving.Program, result Result, now func() time.Time,
) (Result, error) {
	if err := put(root, resources); err != nil {
		return result, errors.Join(err, restore(root, resources))
	}
	if !result.Hung {
		counts, err := program.Rejections(resources)
		result.Hung = err != nil
		if good, unreadable := record.Read(record.Path(root)); err == nil && unreadable == nil {
			result.Hung = prove(program, resources, Proof{good.Live, good.Version, counts, backWithin, func() {}}, now).Hung
		}
	}
	return result, finish(root)
}

// Proof is the condition for a successful commit: every resource is live, and was loaded from this commit's files.
type Proof struct {
	live    map[string]string
	version string
	before  map[string]int // rejected updates before the commit
	within  time.Duration
	taken   func() // called once the program has accepted every file that has a version
}

// prove polls until everything is live, an update is rejected, the program is silent for too long, or the time is up.
func prove(program serving.Program, resources []boot.Resource, wanted Proof, now func() time.Time) Result {
	result := Result{Rejected: []string{}, Missing: slices.Sorted(maps.Keys(wanted.live))}
	answered := now()
	limit := answered.Add(wanted.within)
	tell := sync.OnceFunc(wanted.taken)
	for ; ; time.Sleep(serving.PollEvery) {
		missing, err := serving.NotTaken(program, resources, wanted.version)
		if err == nil && len(missing) == 0 {
			tell()
			var live map[string]string
			live, err = program.Live(resources)
			missing = record.Differing(wanted.live, live)
		}
		if err == nil {
			result.Missing = missing
			if result.Committed = len(missing) == 0; result.Committed {
				result.Evidence = program.Evidence()
				return result
			}
			var rejections map[string]int
			if rejections, err = program.Rejections(resources); err == nil {
				answered = now()
				for resource, count := range rejections {
					if count > wanted.before[resource] {
						result.Rejected = append(result.Rejected, resource)
					}
				}
			}
		}
		slices.Sort(result.Rejected)
		over := now().After(limit)
		silence := now().Sub(answered)
		if err != nil && (over || silence.Seconds() > hungAfter*wanted.within.Seconds()) {
			result.Hung = true
			result.Reason = "the program no longer answers: " + err.Error()
			return result
		}
		if len(result.Rejected) > 0 || over {
			result.Reason = program.Reason()
			return result
		}
	}
}

// Check fails unless the program serves what the last commit says. It compares the version of versioned files, and the
// digest of hashed ones.
func Check(root string, resources []boot.Resource, program serving.Program) error {
	committed, err := record.Read(record.Path(root))
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
	digests := slices.DeleteFunc(slices.Clone(resources), func(each boot.Resource) bool { return !each.Hashed })
	live, err := program.Live(digests)
	if err != nil {
		return err
	}
	for _, each := range digests {
		if live[each.Name] != committed.Live[each.Name] {
			return fmt.Errorf("live content differs from the committed one: %s", each.Name)
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
	for _, each := range resources {
		if each.Watched == "" {
			continue
		}
		if err := os.MkdirAll(each.Watched, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(each.Watched, bell[0]), nil, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// ring has the program read its files again, in the order of its resources, so that a file comes before those that refer
// to it.
func ring(resources []boot.Resource) error {
	for _, each := range resources {
		if each.Watched == "" {
			continue
		}
		one, other := filepath.Join(each.Watched, bell[0]), filepath.Join(each.Watched, bell[1])
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
