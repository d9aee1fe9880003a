// The verb search: where octets are, in the memory of processes and in the files below folders.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// searchedAtOnce is how much is read at once.
const searchedAtOnce = 1 << 20

// searchHit is a file, or the memory of a process, that has one of the needles.
type searchHit struct {
	Event  string `json:"event"` // found
	Place  string `json:"place"`
	Needle string `json:"needle"`
}

// searchSummary is printed at the end.
type searchSummary struct {
	Event  string `json:"event"` // summary
	Octets int64  `json:"octets"`
}

func declareSearch(flags *flag.FlagSet) action {
	var needles, processes, folders repeated
	flags.Var(&needles, "needle", "what to look for, may be repeated")
	flags.Var(&processes, "processes", "look in the memory and environment of this process and of all in its namespace, may be repeated")
	flags.Var(&folders, "folder", "look in the regular files of this folder, may be repeated")
	since := flags.Float64("since", 0, "leave out files that have not changed since then, in seconds since 1970")
	return func(ctx context.Context, _ []string, out *printer) (bool, error) {
		searched := newSearch(needles, out)
		err := searched.all(ctx, processes, folders, time.UnixMilli(int64(*since*1000)))
		if err != nil {
			// Something can't be read, and so may have what is looked for.
			out.print(map[string]string{"event": "failed", "error": err.Error()})
			return false, nil
		}
		out.print(searched.summary)
		return true, nil
	}
}

type search struct {
	needles [][]byte
	overlap int // so that none is missed that is read in two parts
	buffer  []byte
	out     *printer
	summary searchSummary
}

func newSearch(needles []string, out *printer) *search {
	found := &search{out: out, summary: searchSummary{Event: "summary"}}
	for _, each := range needles {
		found.needles = append(found.needles, []byte(each))
		found.overlap = max(found.overlap, len(each)-1)
	}
	found.buffer = make([]byte, searchedAtOnce+found.overlap)
	return found
}

func (s *search) all(ctx context.Context, processes, folders []string, since time.Time) error {
	for _, each := range processes {
		if err := s.processes(each); err != nil {
			return err
		}
	}
	for _, each := range folders {
		if err := s.folder(ctx, each, since); err != nil {
			return err
		}
	}
	return nil
}

// processes looks in each process that is in the same namespace as one, which must be there.
func (s *search) processes(one string) error {
	space, err := os.Readlink(filepath.Join("/proc", one, "ns", "pid"))
	if err != nil {
		return err
	}
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, each := range all {
		if its, err := os.Readlink(filepath.Join(each, "ns", "pid")); err != nil || its != space {
			continue
		}
		if err := s.process(each); err != nil && (filepath.Base(each) == one || !hasEnded(err)) {
			return err
		}
	}
	return nil
}

// errEnded is of a process that has no memory any more.
var errEnded = errors.New("it has ended")

func hasEnded(err error) bool {
	return errors.Is(err, errEnded) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

// process looks in all memory of a process that it can read itself, and in the environment that it was started with.
func (s *search) process(folder string) error {
	line, err := os.ReadFile(filepath.Join(folder, "cmdline"))
	if err != nil {
		return err
	}
	command := strings.TrimSpace(string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
	memory, err := os.Open(filepath.Join(folder, "mem"))
	if err != nil {
		return err
	}
	defer memory.Close()
	maps, err := os.ReadFile(filepath.Join(folder, "maps"))
	if err != nil {
		return err
	}
	if len(maps) == 0 {
		return errEnded
	}
	told := map[string]bool{}
	lines := bufio.NewScanner(bytes.NewReader(maps))
	for lines.Scan() {
		var first, end int64
		var mode string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &first, &end, &mode); err != nil {
			continue // above what a file can be as long as: the kernel's own page
		}
		if !strings.HasPrefix(mode, "r") {
			continue
		}
		// What can't be read of it is a device's, or has gone since.
		_ = s.content(io.NewSectionReader(memory, first, end-first), "memory of "+command, told)
	}
	environment, err := os.ReadFile(filepath.Join(folder, "environ"))
	if err != nil {
		return err
	}
	return s.content(bytes.NewReader(environment), "environment of "+command, map[string]bool{})
}

// folder looks in each regular file, on whatever is mounted there but the kernel's own. One that has gone meanwhile is none.
func (s *search) folder(ctx context.Context, root string, since time.Time) error {
	if _, err := os.Stat(root); err != nil {
		return err
	}
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case entry.IsDir() && isKernels(path):
			return fs.SkipDir
		case !entry.Type().IsRegular():
			return nil
		}
		info, err := entry.Info()
		if err != nil || info.ModTime().Before(since) {
			return ignoreGone(err)
		}
		file, err := os.Open(path)
		if err != nil {
			return ignoreGone(err)
		}
		defer file.Close()
		return s.content(file, path, map[string]bool{})
	})
}

// isKernels reports whether a folder is on a file system whose files are the kernel's answers, and no content of anybody's
// (linux/magic.h).
func isKernels(folder string) bool {
	var found syscall.Statfs_t
	if err := syscall.Statfs(folder, &found); err != nil {
		return false
	}
	switch uint32(found.Type) {
	case 0x9fa0, 0x62656572, 0x27e0eb, 0x63677270, 0x1cd1, 0x64626720, 0x74726163, 0xcafe4a11, 0x73636673: // proc, sysfs, cgroup, cgroup2, devpts, debugfs, tracefs, bpf, securityfs
		return true
	}
	return false
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// content prints each needle that is in a reader, once for a place.
func (s *search) content(from io.Reader, place string, told map[string]bool) error {
	kept := 0
	for {
		size, err := io.ReadFull(from, s.buffer[kept:])
		s.summary.Octets += int64(size)
		there := s.buffer[:kept+size]
		for _, needle := range s.needles {
			if !told[string(needle)] && bytes.Contains(there, needle) {
				told[string(needle)] = true
				s.out.print(searchHit{"found", place, string(needle)})
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
		kept = copy(s.buffer, there[len(there)-s.overlap:])
	}
}
