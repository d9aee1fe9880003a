package hot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"clawker-fw/internal/record"
	"clawker-fw/internal/volume"
)

// The good set is a copy of the hot files that were last proven live, and their record: good/hot and
// good/committed.json. Whenever a commit fails, however it fails, this set is restored.

func goodFolder(root string) string { return filepath.Join(root, "good") }

func restoreFolder(root string) string { return filepath.Join(root, "restore") }

func unfinished(folder string) string { return folder + ".new" }

// saveGood makes the hot files the good set if they match the record of the last commit. If they don't, a commit died
// halfway or somebody has changed them, and the existing good set stays. If there is no good set at all, hot/ is
// copied as it is: a failed commit then restores that, although StartGood never accepts it. The copy is on the disk
// before it takes the place of the former one.
func saveGood(root string) error {
	path := record.Path(root)
	if intact(filepath.Join(root, "hot"), path) != nil {
		if _, err := os.Lstat(goodFolder(root)); err == nil {
			return nil
		}
	}
	if same(path, goodRecord(root)) && intact(filepath.Join(goodFolder(root), "hot"), goodRecord(root)) == nil {
		return nil
	}
	copied := unfinished(goodFolder(root))
	if err := os.RemoveAll(copied); err != nil {
		return err
	}
	if err := volume.CopyTree(filepath.Join(root, "hot"), filepath.Join(copied, "hot")); err != nil {
		return err
	}
	if text, err := os.ReadFile(path); err == nil {
		if err := volume.WriteFile(filepath.Join(copied, "committed.json"), text); err != nil {
			return err
		}
	}
	if err := flushTree(copied); err != nil {
		return err
	}
	if err := os.RemoveAll(goodFolder(root)); err != nil {
		return err
	}
	if err := os.Rename(copied, goodFolder(root)); err != nil {
		return err
	}
	return flush(root)
}

// StartGood makes sure that hot/ holds a proven set, and restores the good set if it does not. It fails if neither is
// proven, since a program must never start on unproven files.
func StartGood(root string) error {
	changed := intact(filepath.Join(root, "hot"), record.Path(root))
	if changed == nil {
		// The engine has put these files there, and does not wait until they are on the disk.
		if err := errors.Join(flushTree(filepath.Join(root, "hot")), flushTree(filepath.Join(root, "state"))); err != nil {
			return err
		}
		reserveAll(filepath.Join(root, "hot"))
		reserveAll(filepath.Join(root, "state"))
		return errors.Join(saveGood(root), removeUnfinished(root, stages(root)...))
	}
	if err := intact(filepath.Join(goodFolder(root), "hot"), goodRecord(root)); err != nil {
		return fmt.Errorf("the hot files are not what was committed (%w), and neither is their copy (%w)", changed, err)
	}
	if err := errors.Join(restore(root), removeUnfinished(root, stages(root)...)); err != nil {
		return err
	}
	return intact(filepath.Join(root, "hot"), record.Path(root))
}

// stageFolder is where clawker-fw stages a commit's files.
func stageFolder(root string) string { return filepath.Join(root, "stage") }

// stages are the folders in which a commit's files are staged, or were by an earlier release.
func stages(root string) []string { return []string{stageFolder(root), filepath.Join(root, "ended")} }

func goodRecord(root string) string { return filepath.Join(goodFolder(root), "committed.json") }

// intact fails unless a folder holds exactly the files of a record, with its digests and its version. A program with
// another version would be unhealthy.
func intact(folder, path string) error {
	var committed record.Commit
	if err := volume.ReadJSON(path, &committed); err != nil {
		return err
	}
	present, err := volume.FilesBelow(folder)
	if err != nil {
		return err
	}
	recorded := committed.Paths()
	for _, path := range present {
		if !slices.Contains(recorded, path) {
			return fmt.Errorf("%s is not in the record", path)
		}
		// The target of a link may change at any time.
		if info, err := os.Lstat(filepath.Join(folder, path)); err != nil || !info.Mode().IsRegular() {
			return errors.Join(fmt.Errorf("%s is not a regular file", path), err)
		}
	}
	if err := committed.Verify(folder); err != nil {
		return err
	}
	return committed.VerifyVersions(folder)
}

// restore replaces hot/ with a copy of good/ under a new version. It places the files in the order of their record,
// then removes all others. good/ itself is not touched.
func restore(root string) error {
	hot, good, copied := filepath.Join(root, "hot"), filepath.Join(goodFolder(root), "hot"), restoreFolder(root)
	before, err := volume.FilesBelow(good)
	if err != nil {
		return err
	}
	var kept record.Commit
	if err := volume.ReadJSON(goodRecord(root), &kept); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	order := kept.Paths()
	slices.SortStableFunc(before, func(one, other string) int {
		return slices.Index(order, one) - slices.Index(order, other)
	})
	if err := copyFolder(good, copied); err != nil {
		return err
	}
	kept.Version = record.NewVersion()
	if err := mark(copied, kept.Version, before); err != nil {
		return err
	}
	if err := place(copied, hot, before); err != nil {
		return err
	}
	if err := removeOthers(hot, before); err != nil {
		return err
	}
	return errors.Join(writeRecord(root, kept), os.RemoveAll(copied))
}

// removeOthers removes every file in a folder that is not in paths.
func removeOthers(folder string, paths []string) error {
	present, err := volume.FilesBelow(folder)
	if err != nil {
		return err
	}
	for _, path := range present {
		if !slices.Contains(paths, path) {
			if err := os.Remove(filepath.Join(folder, path)); err != nil {
				return err
			}
		}
	}
	return nil
}

// copyFolder makes a complete copy, or none: a partial copy never has the target's name.
func copyFolder(from, to string) error {
	if err := errors.Join(os.RemoveAll(to), os.RemoveAll(unfinished(to))); err != nil {
		return err
	}
	if err := volume.CopyTree(from, unfinished(to)); err != nil {
		return err
	}
	return os.Rename(unfinished(to), to)
}
