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

// processes is where the kernel shows the processes of this container (proc(5)).
const processes = "/proc"

// commandOf is the command line of a process; nothing for one that is gone.
func commandOf(proc, process string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(proc, process, "cmdline"))
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00"), nil
}

// strangersStay is how long a stranger must be there to be one. An engine that runs this helper, for a check of its
// own, begins with a process of the engine's, which takes a moment to become the helper.
const strangersStay = 300 * time.Millisecond

// strangers lists, by number and command line, what runs in this container beside the program and this helper.
func strangers(proc string) ([]string, error) {
	found, err := notOurs(proc)
	for end := time.Now().Add(strangersStay); err == nil && len(found) > 0 && time.Now().Before(end); {
		time.Sleep(pollEvery)
		var now map[string]string
		now, err = notOurs(proc)
		maps.DeleteFunc(found, func(process, _ string) bool { return now[process] == "" })
	}
	return slices.Sorted(maps.Values(found)), err
}

// notOurs maps processes, by number and start, to a description. One whose program can't be read is not ours: the
// helper's own are always readable to it.
func notOurs(proc string) (map[string]string, error) {
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
		if errors.Is(err, fs.ErrNotExist) || err == nil && os.SameFile(program, helper) {
			continue // ended since it was listed, or one of us: a check, or a commit at work
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

// startOf says when a process started, in clock ticks since the machine did: with its number it names a process
// for good (proc(5), field 22 of stat).
func startOf(proc, process string) (string, error) {
	text, err := os.ReadFile(filepath.Join(proc, process, "stat"))
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the name, which may hold anything but ends there
	fields := strings.Fields(rest[strings.LastIndex(rest, ")")+1:])
	if len(fields) < 20 {
		return "", fmt.Errorf("%s/%s/stat has %d fields", proc, process, len(fields))
	}
	return fields[19], nil
}
