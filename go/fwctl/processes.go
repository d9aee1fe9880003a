package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// processes is the folder with the processes of this container (proc(5)).
const processes = "/proc"

// commandOf returns the command line of a process. It fails if the process has ended.
func commandOf(proc, process string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(proc, process, "cmdline"))
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00"), nil
}

// unknownStay is how long an unknown process must exist before it is reported. When the engine executes this helper,
// for a health check for example, a process of the engine exists for a moment before it becomes the helper.
const unknownStay = 300 * time.Millisecond

// unknownProcesses lists the processes in this container other than the program, its companions and this helper, by id
// and command line.
func unknownProcesses(proc string, companions []companion) ([]string, error) {
	found, err := unknownNow(proc, companions)
	for end := time.Now().Add(unknownStay); err == nil && len(found) > 0 && time.Now().Before(end); {
		time.Sleep(pollEvery)
		var now map[string]string
		now, err = unknownNow(proc, companions)
		maps.DeleteFunc(found, func(process, _ string) bool { return now[process] == "" })
	}
	return slices.Sorted(maps.Values(found)), err
}

// processDifferences lists unknown processes, the companions that are missing, and those that keep ending.
func processDifferences(proc, root string, sibling Sibling) ([]string, error) {
	found, err := unknownProcesses(proc, companionsOf(root, sibling))
	if err != nil {
		return found, err
	}
	failing, err := failingCompanions(proc, root, sibling)
	// The keeper may be about to write down that one has ended.
	for end := time.Now().Add(unknownStay); err == nil && len(failing) > 0 && time.Now().Before(end); {
		time.Sleep(pollEvery)
		failing, err = failingCompanions(proc, root, sibling)
	}
	return append(found, failing...), err
}

// failingCompanions lists the companions that are missing, unless the keeper starts them again, and those that keep ending.
func failingCompanions(proc, root string, sibling Sibling) ([]string, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, err
	}
	restarts, err := readRestarts(root)
	if err != nil {
		return nil, err
	}
	exists := func(wanted companion) bool {
		return slices.ContainsFunc(entries, func(each fs.DirEntry) bool { return wanted.is(proc, each.Name()) })
	}
	var found []string
	kept, now := exists(keeperOf(root)), time.Now()
	for _, each := range companionsOf(root, sibling) {
		restart := restartOf(restarts, each)
		switch command := strings.Join(each.command, " "); {
		case restart.keepsEnding(now):
			found = append(found, fmt.Sprintf("keeps ending: %s: %s", command, restart.Reason))
		case !exists(each) && !(kept && restart.isUnderWay(now)):
			found = append(found, "missing: "+command)
		}
	}
	return found, nil
}

// unknownNow maps unknown processes, identified by id and start time, to descriptions. A process whose executable can't
// be read is unknown, because the helper can always read its own.
func unknownNow(proc string, companions []companion) (map[string]string, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, err
	}
	helper, err := os.Stat(filepath.Join(proc, "self", "exe"))
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for _, entry := range entries {
		number := entry.Name()
		if _, err := strconv.Atoi(number); err != nil || number == "1" {
			continue
		}
		program, err := os.Stat(filepath.Join(proc, number, "exe"))
		if errors.Is(err, fs.ErrNotExist) || err == nil && os.SameFile(program, helper) ||
			slices.ContainsFunc(companions, func(each companion) bool { return each.is(proc, number) }) {
			continue // ended since it was listed, or another fwctl: a health check, a commit, a companion
		}
		started, err := startOf(proc, number)
		if err != nil {
			continue // ended just now
		}
		command, err := commandOf(proc, number)
		if err != nil {
			command = []string{err.Error()}
		}
		found[number+" "+started] = fmt.Sprintf("%s: %s", number, strings.Join(command, " "))
	}
	return found, nil
}

// startOf returns the start time of a process in clock ticks since boot (proc(5), field 22 of stat). Together with the
// id it identifies a process uniquely.
func startOf(proc, process string) (string, error) {
	text, err := os.ReadFile(filepath.Join(proc, process, "stat"))
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(string(text), ") ") // skip the name, which may contain anything, even ") "
	fields := strings.Fields(rest[strings.LastIndex(rest, ")")+1:])
	if len(fields) < 20 {
		return "", fmt.Errorf("%s/%s/stat has %d fields", proc, process, len(fields))
	}
	return fields[19], nil
}
