package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Commit is stage/commit.json, and once it is live, state/committed.json: a whole set of hot files.
type Commit struct {
	Version string       `json:"version"`
	Files   []StagedFile `json:"files"`  // in the order in which they go into place
	Remove  []string     `json:"remove"` // below hot/, after the new set is live
	Seconds float64      `json:"seconds"`
}

// StagedFile is a path below hot/ and the SHA-256 of its content in hexadecimal.
type StagedFile struct {
	Path   string `json:"path"`
	Digest string `json:"sha256"`
}

// Result is what commit answers. A set that is not taken has been put back before the answer is given.
type Result struct {
	Committed bool     `json:"committed"`
	Version   string   `json:"version"`
	Rejected  []string `json:"rejected"` // resources that the program refused
	Missing   []string `json:"missing"`  // resources that did not become live in time
	Reason    string   `json:"reason"`
}

const pollEvery = 10 * time.Millisecond

// settleFor is how long nothing more may be refused after the old files are back: a refusal that comes later would
// be taken for somebody else's doing.
const settleFor = 250 * time.Millisecond

// commit moves the staged files into place by rename (Envoy looks at nothing else), waits for proof from the
// program, and puts the last good set back when there is none: an update that is half applied must not stay.
func commit(root string, program Program, now func() time.Time) (Result, error) {
	var wanted Commit
	stage, hot := filepath.Join(root, "stage"), filepath.Join(root, "hot")
	if err := readJSON(filepath.Join(stage, "commit.json"), &wanted); err != nil {
		return Result{}, err
	}
	if err := wanted.verify(filepath.Join(stage, "hot")); err != nil {
		return Result{}, err
	}
	if err := keepGood(root); err != nil {
		return Result{}, err
	}
	before, err := program.Rejections()
	if err != nil {
		return Result{}, err
	}
	if err := place(filepath.Join(stage, "hot"), hot, wanted.paths()); err != nil {
		return Result{}, errors.Join(err, restore(root, wanted))
	}
	limit := now().Add(time.Duration(wanted.Seconds * float64(time.Second)))
	result := prove(program, hot, wanted, before, limit, now)
	if !result.Committed {
		return result, errors.Join(restore(root, wanted), settled(root, program, now), os.RemoveAll(stage))
	}
	if err := noteRefusals(root, program); err != nil {
		return result, err
	}
	for _, path := range wanted.Remove {
		if err := os.Remove(filepath.Join(hot, path)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return result, err
		}
	}
	text, err := json.Marshal(wanted)
	if err != nil {
		return result, err
	}
	return result, errors.Join(writeFile(committedRecord(root), text), os.RemoveAll(stage), removeUnfinished(root))
}

// removeUnfinished takes away what this commit has kept, and what one that died halfway has left.
func removeUnfinished(root string) error {
	var failed error
	for _, folder := range []string{goodFolder(root), restoreFolder(root)} {
		failed = errors.Join(failed, os.RemoveAll(folder), os.RemoveAll(unfinished(folder)))
	}
	return failed
}

// settled waits until the program has refused nothing more for a moment, and notes what it has. One that does not
// answer has ended, and begins to count anew.
func settled(root string, program Program, now func() time.Time) error {
	for quiet, before := now().Add(settleFor), -1; now().Before(quiet); time.Sleep(pollEvery) {
		counts, err := program.Rejections()
		if err != nil {
			return nil
		}
		sum := 0
		for _, count := range counts {
			sum += count
		}
		if sum != before {
			quiet, before = now().Add(settleFor), sum
		}
	}
	return noteRefusals(root, program)
}

// prove polls until every resource has the wanted version, one of them is refused, or the time is over.
func prove(
	program Program, hot string, wanted Commit, before map[string]int, limit time.Time, now func() time.Time,
) Result {
	result := Result{Version: wanted.Version, Rejected: []string{}, Missing: []string{}}
	expected, err := program.Expected(hot)
	if err != nil {
		result.Reason = err.Error()
		return result
	}
	expected = without(expected, wanted.Remove)
	for ; ; time.Sleep(pollEvery) {
		versions, err := program.Versions()
		if err == nil {
			result.Missing = notLive(expected, versions, wanted.Version)
			if len(result.Missing) == 0 {
				result.Committed = true
				return result
			}
		}
		if rejections, err := program.Rejections(); err == nil {
			for resource, count := range rejections {
				if count > before[resource] {
					result.Rejected = append(result.Rejected, resource)
				}
			}
		}
		slices.Sort(result.Rejected)
		if len(result.Rejected) > 0 || now().After(limit) {
			result.Reason = program.Reason()
			return result
		}
	}
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

func goodFolder(root string) string { return filepath.Join(root, "good") }

func restoreFolder(root string) string { return filepath.Join(root, "restore") }

func unfinished(folder string) string { return folder + ".new" }

// keepGood copies the set that is live to good/. Where hot/ is not what was committed last and there is a good/,
// a commit died halfway: what it kept is the last good set still, and what it left in hot/ was never proven.
func keepGood(root string) error {
	if _, err := os.Lstat(goodFolder(root)); err == nil && !intact(root) {
		return nil
	}
	return copyFolder(filepath.Join(root, "hot"), goodFolder(root))
}

// intact says whether hot/ is the set that was committed last, nothing less and nothing more.
func intact(root string) bool {
	hot := filepath.Join(root, "hot")
	committed, err := readCommitted(root)
	if err != nil || committed.verify(hot) != nil {
		return false
	}
	present, err := filesBelow(hot)
	recorded := committed.paths()
	slices.Sort(recorded)
	slices.Sort(present)
	return err == nil && slices.Equal(present, recorded)
}

// restore makes hot/ what good/ is: first the files that were there, those that wanted does not name before
// the others, then away with those that were not. Until that is done good/ stays whole.
func restore(root string, wanted Commit) error {
	hot, good, copied := filepath.Join(root, "hot"), goodFolder(root), restoreFolder(root)
	before, err := filesBelow(good)
	if err != nil {
		return err
	}
	order := wanted.paths()
	slices.SortStableFunc(before, func(one, other string) int {
		return slices.Index(order, one) - slices.Index(order, other)
	})
	if err := copyFolder(good, copied); err != nil {
		return err
	}
	if err := place(copied, hot, before); err != nil {
		return err
	}
	present, err := filesBelow(hot)
	if err != nil {
		return err
	}
	for _, path := range present {
		if !slices.Contains(before, path) {
			if err := os.Remove(filepath.Join(hot, path)); err != nil {
				return err
			}
		}
	}
	return errors.Join(os.RemoveAll(copied), os.RemoveAll(good))
}

// copyFolder makes the target a whole copy, or leaves none that could be taken for one.
func copyFolder(from, to string) error {
	if err := errors.Join(os.RemoveAll(to), os.RemoveAll(unfinished(to))); err != nil {
		return err
	}
	if err := os.CopyFS(unfinished(to), os.DirFS(from)); err != nil {
		return err
	}
	return os.Rename(unfinished(to), to)
}

// filesBelow lists the paths of what is no folder, relative to the folder.
func filesBelow(folder string) ([]string, error) {
	var paths []string
	err := fs.WalkDir(os.DirFS(folder), ".", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			paths = append(paths, path)
		}
		return err
	})
	return paths, err
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

func (c Commit) paths() []string {
	paths := make([]string, len(c.Files))
	for index, file := range c.Files {
		paths[index] = file.Path
	}
	return paths
}

func (f StagedFile) verify(folder string) error {
	if !filepath.IsLocal(f.Path) {
		return fmt.Errorf("staged path %q leaves the folder", f.Path)
	}
	content, err := os.ReadFile(filepath.Join(folder, f.Path))
	if err != nil {
		return err
	}
	sum := sha256.Sum256(content)
	if digest := hex.EncodeToString(sum[:]); digest != f.Digest {
		return fmt.Errorf("staged %s has SHA-256 %s, expected %s", f.Path, digest, f.Digest)
	}
	return nil
}

func notLive(expected []string, versions map[string]string, version string) []string {
	missing := []string{}
	for _, resource := range expected {
		if versions[resource] != version {
			missing = append(missing, resource)
		}
	}
	return missing
}

// without leaves out the resources whose files are about to be removed.
func without(resources, removed []string) []string {
	gone := map[string]bool{}
	for _, path := range removed {
		gone[path[:len(path)-len(filepath.Ext(path))]] = true
	}
	kept := []string{}
	for _, resource := range resources {
		if !gone[resource] {
			kept = append(kept, resource)
		}
	}
	return kept
}

func committedRecord(root string) string { return filepath.Join(root, "state", "committed.json") }

func readCommitted(root string) (Commit, error) {
	var committed Commit
	err := readJSON(committedRecord(root), &committed)
	return committed, err
}

func readJSON(path string, value any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, value); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// writeFile replaces the file in one step, so that a reader sees the old content or the new.
func writeFile(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", content, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
