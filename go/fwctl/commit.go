package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Commit is stage/commit.json, and once it is live, state/committed.json: a whole set of hot files, and the digest
// that each proven resource has when they are live.
type Commit struct {
	Version string            `json:"version"` // that of the files, never used before
	Live    map[string]string `json:"live"`
	Files   []StagedFile      `json:"files"`  // in the order in which they go into place
	Remove  []string          `json:"remove"` // below hot/, after the new set is live, like everything else there
	Seconds float64           `json:"seconds"`
	Rules   json.RawMessage   `json:"rules,omitempty"` // those that the files are made of: kept for who asks
}

// StagedFile is a path below hot/ and the digest of what the file says: SHA-256 in hexadecimal, without its version.
type StagedFile struct {
	Path   string `json:"path"`
	Digest string `json:"sha256"`
}

// Result is what commit answers. A set that is not taken has been put back before the answer is given.
type Result struct {
	Committed bool     `json:"committed"`
	Rejected  []string `json:"rejected"` // resources that the program refused
	Missing   []string `json:"missing"`  // resources that did not become live in time
	Reason    string   `json:"reason"`
	Hung      bool     `json:"hung"` // the program answers no more: only a new start brings it back
}

const pollEvery = 10 * time.Millisecond

// hungAfter is the share of the time for a proof that a program may be silent. While it takes a large set over it does
// not answer either.
const hungAfter = 0.6

// backWithin is how long the last good set may take to be live again.
const backWithin = time.Second

// commit moves the staged files into place by rename (Envoy looks at nothing else), waits for proof from the
// program, and puts the last good set back when there is none: an update that is half applied must not stay.
func commit(root string, resources []Resource, program Program, now func() time.Time) (Result, error) {
	stage, hot := filepath.Join(root, "stage"), filepath.Join(root, "hot")
	var wanted Commit
	if err := readJSON(filepath.Join(stage, "commit.json"), &wanted); err != nil {
		return Result{}, err
	}
	if err := wanted.verify(filepath.Join(stage, "hot")); err != nil {
		return Result{}, err
	}
	if err := keepGood(root); err != nil {
		return Result{}, err
	}
	before, err := program.Rejections(resources)
	if err != nil {
		return Result{}, err
	}
	wanted.Version = newVersion()
	if err := mark(filepath.Join(stage, "hot"), wanted.Version, wanted.paths()); err != nil {
		return Result{}, err
	}
	if err := place(filepath.Join(stage, "hot"), hot, wanted.paths()); err != nil {
		return Result{}, errors.Join(err, restore(root))
	}
	seconds := time.Duration(wanted.Seconds * float64(time.Second))
	result := prove(program, resources, Proof{wanted.Live, wanted.Version, before, seconds}, now)
	if !result.Committed {
		return giveBack(root, resources, program, result, now)
	}
	if err := removeOthers(hot, wanted.paths()); err != nil { // or the set would not be what is recorded of it
		return result, err
	}
	text, err := json.Marshal(wanted)
	if err != nil {
		return result, err
	}
	if err := writeFile(committedRecord(root), text); err != nil {
		return result, err
	}
	return result, errors.Join(keepGood(root), removeUnfinished(root))
}

// giveBack puts the last good set back and waits until it is live. A program that does not answer any more is hung.
func giveBack(root string, resources []Resource, program Program, result Result, now func() time.Time) (Result, error) {
	if err := restore(root); err != nil {
		return result, err
	}
	if result.Hung {
		return result, removeUnfinished(root)
	}
	good, err := readCommitted(root)
	if err != nil {
		return result, errors.Join(err, removeUnfinished(root))
	}
	counts, err := program.Rejections(resources)
	result.Hung = err != nil
	if err == nil {
		result.Hung = prove(program, resources, Proof{good.Live, good.Version, counts, backWithin}, now).Hung
	}
	return result, removeUnfinished(root)
}

// removeUnfinished takes away what a commit needs, and what one that died halfway has left.
func removeUnfinished(root string) error {
	var failed error
	for _, folder := range []string{
		filepath.Join(root, "stage"), restoreFolder(root), unfinished(restoreFolder(root)), unfinished(goodFolder(root)),
	} {
		failed = errors.Join(failed, os.RemoveAll(folder))
	}
	return failed
}

// Proof is what has to be seen of the program: each resource live, and taken from the files of this commit.
type Proof struct {
	live    map[string]string
	version string
	before  map[string]int // refused updates until now
	within  time.Duration
}

// prove polls until everything is live, something is refused, the program is silent for too long, or the time is over.
func prove(program Program, resources []Resource, wanted Proof, now func() time.Time) Result {
	result := Result{Rejected: []string{}, Missing: slices.Sorted(maps.Keys(wanted.live))}
	answered := now()
	limit := answered.Add(wanted.within)
	for ; ; time.Sleep(pollEvery) {
		missing, err := notLive(program, resources, wanted)
		if err == nil {
			result.Missing = missing
			if result.Committed = len(missing) == 0; result.Committed {
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
			result.Reason = "it does not answer any more: " + err.Error()
			return result
		}
		if len(result.Rejected) > 0 || over {
			result.Reason = program.Reason()
			return result
		}
	}
}

// notLive lists the resources that are not live as wanted. What was live before may be so by chance: where files have
// versions, each must have been taken from the files of now.
func notLive(program Program, resources []Resource, wanted Proof) ([]string, error) {
	older, err := notTaken(program, resources, wanted.version)
	if err != nil || len(older) > 0 {
		return older, err
	}
	live, err := program.Live(resources)
	if err != nil {
		return nil, err
	}
	return differing(wanted.live, live), nil
}

// notTaken lists the resources that were taken from files of another version.
func notTaken(program Program, resources []Resource, version string) ([]string, error) {
	taken, err := program.Versions(resources)
	if err != nil {
		return nil, err
	}
	older := []string{}
	for name, other := range taken {
		if other != version {
			older = append(older, name)
		}
	}
	slices.Sort(older)
	return older, nil
}

// mark gives staged files the version of this commit.
func mark(folder, version string, paths []string) error {
	for _, path := range paths {
		path := filepath.Join(folder, path)
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		content, err := readFile(path)
		if err != nil {
			return err
		}
		if err := writeLike(path, withVersion(content, version), info); err != nil {
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

func (c Commit) verify(folder string) error {
	for _, path := range c.Remove {
		if !filepath.IsLocal(path) {
			return fmt.Errorf("path to remove %q leaves the folder", path)
		}
	}
	for _, file := range c.Files {
		if err := file.verify(folder); err != nil {
			return err
		}
	}
	return nil
}

// verifyVersions passes when no file has another version than the commit: one that died may have left some.
func (c Commit) verifyVersions(folder string) error {
	for _, path := range c.paths() {
		content, err := readFile(filepath.Join(folder, path))
		if err != nil {
			return err
		}
		if version := versionOf(content); version != "" && version != c.Version {
			return fmt.Errorf("%s has version %s, expected %s", path, version, c.Version)
		}
	}
	return nil
}

func (c Commit) paths() []string {
	paths := make([]string, len(c.Files))
	for index, file := range c.Files {
		paths[index] = file.Path
	}
	return paths
}

func (f StagedFile) verify(folder string) error {
	if !filepath.IsLocal(f.Path) {
		return fmt.Errorf("path %q leaves the folder", f.Path)
	}
	content, err := readFile(filepath.Join(folder, f.Path))
	if err != nil {
		return err
	}
	if digestOf(content) != f.Digest {
		return fmt.Errorf("%s has another digest", f.Path) // which one is not told: it may be a secret's
	}
	return nil
}

func committedRecord(root string) string { return filepath.Join(root, "state", "committed.json") }

func readCommitted(root string) (Commit, error) {
	var committed Commit
	err := readJSON(committedRecord(root), &committed)
	return committed, err
}
