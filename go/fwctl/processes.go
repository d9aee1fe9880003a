package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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

// strangers lists, by number and command line, what runs in this container beside the program and this helper. A
// process whose program can't be read is a stranger too: the helper's own are always readable to it.
func strangers(proc string) ([]string, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, err
	}
	helper, err := os.Stat(filepath.Join(proc, "self", "exe"))
	if err != nil {
		return nil, err
	}
	found := []string{}
	for _, entry := range entries {
		number, err := strconv.Atoi(entry.Name())
		if err != nil || number == 1 {
			continue
		}
		program, err := os.Stat(filepath.Join(proc, entry.Name(), "exe"))
		if errors.Is(err, fs.ErrNotExist) || err == nil && os.SameFile(program, helper) {
			continue // ended since it was listed, or one of us: a check, or a commit at work
		}
		command, err := commandOf(proc, entry.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			command = []string{err.Error()}
		}
		found = append(found, fmt.Sprintf("%d: %s", number, strings.Join(command, " ")))
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
