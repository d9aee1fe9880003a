package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// The good set is a copy of the hot files that were proven live last, with the record of them: good/hot and
// good/committed.json. Whatever a commit does to the program, or to itself, that set is what goes back.

func goodFolder(root string) string { return filepath.Join(root, "good") }

func restoreFolder(root string) string { return filepath.Join(root, "restore") }

func unfinished(folder string) string { return folder + ".new" }

// keepGood makes the hot files the good set when they are what was committed last. Where they are not, a commit died
// halfway or somebody has changed them: the good set stays what it is. Where there is none at all, what lies in hot/
// is kept as it is: it is no good set, but what a commit that fails puts back.
func keepGood(root string) error {
	record := committedRecord(root)
	if intact(filepath.Join(root, "hot"), record) != nil {
		if _, err := os.Lstat(goodFolder(root)); err == nil {
			return nil
		}
	}
	copied := unfinished(goodFolder(root))
	if err := os.RemoveAll(copied); err != nil {
		return err
	}
	if err := copyTree(filepath.Join(root, "hot"), filepath.Join(copied, "hot")); err != nil {
		return err
	}
	if text, err := os.ReadFile(record); err == nil {
		if err := writeFile(filepath.Join(copied, "committed.json"), text); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(goodFolder(root)); err != nil {
		return err
	}
	return os.Rename(copied, goodFolder(root))
}

// startGood passes when what lies in hot/ was proven, after it has put the good set back if it was not. A program is
// never started on anything else.
func startGood(root string) error {
	changed := intact(filepath.Join(root, "hot"), committedRecord(root))
	if changed == nil {
		return errors.Join(keepGood(root), removeUnfinished(root))
	}
	if err := intact(filepath.Join(goodFolder(root), "hot"), goodRecord(root)); err != nil {
		return fmt.Errorf("the hot files are not what was committed (%w), and neither is the copy (%w)", changed, err)
	}
	if err := errors.Join(restore(root), removeUnfinished(root)); err != nil {
		return err
	}
	return intact(filepath.Join(root, "hot"), committedRecord(root))
}

func goodRecord(root string) string { return filepath.Join(goodFolder(root), "committed.json") }

// intact passes when a folder is the set that a record speaks of, nothing less and nothing more, under its version: a
// program is healthy with no other.
func intact(folder, record string) error {
	var committed Commit
	if err := readJSON(record, &committed); err != nil {
		return err
	}
	present, err := filesBelow(folder)
	if err != nil {
		return err
	}
	recorded := committed.paths()
	for _, path := range present {
		if !slices.Contains(recorded, path) {
			return fmt.Errorf("%s is there, too", path)
		}
		// A link may lead to anything tomorrow.
		if info, err := os.Lstat(filepath.Join(folder, path)); err != nil || !info.Mode().IsRegular() {
			return errors.Join(fmt.Errorf("%s is no file", path), err)
		}
	}
	if err := committed.verify(folder); err != nil {
		return err
	}
	return committed.verifyVersions(folder)
}

// restore makes hot/ what good/ is, under a version of its own: first the files that were there, in the order of
// their record, then away with those that were not. Until that is done good/ stays whole.
func restore(root string) error {
	hot, good, copied := filepath.Join(root, "hot"), filepath.Join(goodFolder(root), "hot"), restoreFolder(root)
	before, err := filesBelow(good)
	if err != nil {
		return err
	}
	var record Commit
	if err := readJSON(goodRecord(root), &record); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	order := record.paths()
	slices.SortStableFunc(before, func(one, other string) int {
		return slices.Index(order, one) - slices.Index(order, other)
	})
	if err := copyFolder(good, copied); err != nil {
		return err
	}
	record.Version = newVersion()
	if err := mark(copied, record.Version, before); err != nil {
		return err
	}
	if err := place(copied, hot, before); err != nil {
		return err
	}
	if err := removeOthers(hot, before); err != nil {
		return err
	}
	text, err := json.Marshal(record)
	if err != nil {
		return err
	}
	return errors.Join(writeFile(committedRecord(root), text), os.RemoveAll(copied))
}

// removeOthers takes away what is no file of a set.
func removeOthers(folder string, paths []string) error {
	present, err := filesBelow(folder)
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

// copyFolder makes the target a whole copy, or leaves none that could be taken for one.
func copyFolder(from, to string) error {
	if err := errors.Join(os.RemoveAll(to), os.RemoveAll(unfinished(to))); err != nil {
		return err
	}
	if err := copyTree(from, unfinished(to)); err != nil {
		return err
	}
	return os.Rename(unfinished(to), to)
}
