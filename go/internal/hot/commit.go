// Package hot puts the files that a sibling's program reads while it runs in place, proves them live, and restores the
// last good set.
package hot

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

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

// backWithin is how long the restored good set may take to be live again.
const backWithin = time.Second

// Commit moves the staged files into place by rename (Envoy watches only renames) and waits until the program proves
// them live. If it does not, commit restores the last good set, because a half-applied update must not stay. It calls
// `taken` before the proof, once the program has accepted every file that has a version.
func Commit(
	root string, resources []boot.Resource, program serving.Program, now func() time.Time, taken func(),
) (Result, error) {
	unlock, err := lockHot(root)
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	stage := stageFolder(root)
	var wanted record.Commit
	if err := volume.ReadJSON(filepath.Join(stage, "commit.json"), &wanted); err != nil {
		return Result{}, err
	}
	return commitFrom(root, stage, wanted, resources, program, now, taken)
}

// commitFrom commits a set that is staged in a folder, and removes the folder. No other commit may be at work.
func commitFrom(
	root, stage string, wanted record.Commit, resources []boot.Resource, program serving.Program, now func() time.Time, taken func(),
) (Result, error) {
	hot := filepath.Join(root, "hot")
	if err := wanted.Verify(filepath.Join(stage, "hot")); err != nil {
		return Result{}, err
	}
	if err := saveGood(root); err != nil {
		return Result{}, err
	}
	before, err := program.Rejections(resources)
	if err != nil {
		return Result{}, err
	}
	wanted.Version = record.NewVersion()
	if err := mark(filepath.Join(stage, "hot"), wanted.Version, wanted.Paths()); err != nil {
		return Result{}, err
	}
	if err := place(filepath.Join(stage, "hot"), hot, wanted.Paths()); err != nil {
		return Result{}, errors.Join(err, giveGood(root))
	}
	seconds := time.Duration(wanted.Seconds * float64(time.Second))
	result := prove(program, resources, Proof{wanted.Live, wanted.Version, before, seconds, taken}, now)
	if !result.Committed {
		return giveBack(root, stage, resources, program, result, now)
	}
	if err := removeOthers(hot, wanted.Paths()); err != nil { // hot/ must match the record exactly
		return result, err
	}
	// What is staged goes first: where the disk is full, its room is needed.
	if err := removeUnfinished(root, stage); err != nil {
		return result, err
	}
	usual := func() error { return saveProven(root, wanted) }
	return result, withoutRoom(usual, func() error { return errors.Join(removeUnfinished(root), saveProvenInPlace(root, wanted)) })
}

// giveBack restores the last good set and waits until it is live. It marks a program that no longer answers as hung.
func giveBack(
	root, stage string, resources []boot.Resource, program serving.Program, result Result, now func() time.Time,
) (Result, error) {
	if err := giveGood(root); err != nil {
		return result, err
	}
	if result.Hung {
		return result, removeUnfinished(root, stage)
	}
	good, err := record.Read(root)
	if err != nil {
		return result, errors.Join(err, removeUnfinished(root, stage))
	}
	counts, err := program.Rejections(resources)
	result.Hung = err != nil
	if err == nil {
		result.Hung = prove(program, resources, Proof{good.Live, good.Version, counts, backWithin, func() {}}, now).Hung
	}
	return result, removeUnfinished(root, stage)
}

// giveGood restores the last good set, also where the disk is full: with the files of good/ themselves then.
func giveGood(root string) error {
	return withoutRoom(func() error { return restore(root) }, func() error { return restoreInPlace(root) })
}

// removeUnfinished removes the temporary folders of a commit, including those of one that died halfway. The stages are
// those of this commit, or of all: another one may be staged meanwhile.
func removeUnfinished(root string, stages ...string) error {
	var failed error
	for _, folder := range append(
		stages, restoreFolder(root), unfinished(restoreFolder(root)), unfinished(goodFolder(root)),
	) {
		failed = errors.Join(failed, os.RemoveAll(folder))
	}
	return failed
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
			missing, err = notLive(program, resources, wanted.live)
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

// notLive lists the resources that are not live as wanted.
func notLive(program serving.Program, resources []boot.Resource, wanted map[string]string) ([]string, error) {
	live, err := program.Live(resources)
	if err != nil {
		return nil, err
	}
	return record.Differing(wanted, live), nil
}

// mark writes the version into the files.
func mark(folder, version string, paths []string) error {
	for _, path := range paths {
		path := filepath.Join(folder, path)
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		content, err := volume.ReadFile(path)
		if err != nil {
			return err
		}
		if err := volume.WriteLike(path, record.WithVersion(content, version), info); err != nil {
			return err
		}
	}
	return nil
}

// place renames each file from one tree into the other, making folders as needed.
func place(from, to string, paths []string) error {
	for _, path := range paths {
		target := filepath.Join(to, path)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(from, path), target); err != nil {
			return err
		}
	}
	return nil
}

// Check fails unless the program serves what the last commit says. It compares the version of versioned files, and the
// digest of hashed ones.
func Check(root string, resources []boot.Resource, program serving.Program) error {
	committed, err := record.Read(root)
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
