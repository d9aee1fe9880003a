package start

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/users"
)

// CommandOf returns the command line of a process. It fails if the process has ended.
func CommandOf(proc, process string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(proc, process, "cmdline"))
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00"), nil
}

// ProcessDifferences lists unknown processes, the companions that are missing, and those that keep ending.
func ProcessDifferences(proc, root string, sibling boot.Sibling) ([]string, error) {
	found, err := unknownProcesses(proc, root, companionsOf(root, sibling))
	if err != nil {
		return found, err
	}
	shared, err := users.Shared(proc)
	if err != nil {
		return found, err
	}
	failing, err := failingCompanions(proc, root, sibling)
	return slices.Concat(found, shared, failing), err
}

// failingCompanions lists the companions that are missing, unless the keeper starts them again, and those that keep ending.
// While there is a keeper that runs, a companion that is missing has just ended, or waits for its next start: the keeper
// never gives up, and writes down each end.
func failingCompanions(proc, root string, sibling boot.Sibling) ([]string, error) {
	running, err := allProcesses(proc)
	if err != nil {
		return nil, err
	}
	restarts, err := ReadRestarts(root)
	if err != nil {
		return nil, err
	}
	exists := func(wanted companion) bool {
		return slices.ContainsFunc(running, func(each process) bool { return wanted.is(proc, each.id) && each.isAtWork() })
	}
	var found []string
	kept, up := exists(keeperOf(root)), sinceStart()
	for _, each := range companionsOf(root, sibling) {
		restart := restartOf(restarts, each)
		switch command := strings.Join(each.command, " "); {
		case restart.keepsEnding(up):
			found = append(found, fmt.Sprintf("keeps ending: %s: %s", command, restart.Reason))
		case !kept && !exists(each):
			found = append(found, "missing: "+command)
		}
	}
	return found, nil
}

// unknownProcesses lists the processes in this container other than the program, its companions and this helper, by id
// and command line. A process whose executable can't be read is unknown, because the helper can always read its own.
//
// A process that somebody is about to execute a program with is neither, however long it takes: the engine's, for a
// health check or for this helper, and the keeper's, for a companion. The kernel knows both: such a process was forked by
// one that we trust, and has executed nothing yet.
func unknownProcesses(proc, root string, companions []companion) ([]string, error) {
	running, err := allProcesses(proc)
	if err != nil {
		return nil, err
	}
	helper, err := os.Stat(filepath.Join(proc, "self", "exe"))
	if err != nil {
		return nil, err
	}
	found := []string{}
	for _, each := range running {
		starts := each.parent == outside || keeperOf(root).is(proc, each.parent)
		if each.id == "1" || each.forkedOnly && starts {
			continue
		}
		awaitExecution(proc, each.id)
		program, err := os.Stat(filepath.Join(proc, each.id, "exe"))
		if hasEnded(err) || err == nil && os.SameFile(program, helper) ||
			slices.ContainsFunc(companions, func(wanted companion) bool { return wanted.is(proc, each.id) }) {
			continue // ended since it was listed, or another fwctl: a health check, a commit, a companion
		}
		command, err := CommandOf(proc, each.id)
		if hasEnded(err) {
			continue
		}
		if err != nil {
			command = []string{err.Error()}
		}
		found = append(found, fmt.Sprintf("%s: %s", each.id, strings.Join(command, " ")))
	}
	slices.Sort(found)
	return found, nil
}

// awaitExecution returns when a process does not execute a program just now. In the middle of that, it has its new
// program, but not yet the privileges with which this helper may see it. The kernel lets nobody open its environment
// meanwhile (mm_access() waits for execve(2)); whether it can be opened then does not matter.
func awaitExecution(proc, process string) {
	if file, err := os.Open(filepath.Join(proc, process, "environ")); err == nil {
		file.Close()
	}
}

// hasEnded reports whether a file of a process can't be read because the process has ended.
func hasEnded(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }

// outside is the parent of a process that was put into this container from outside (proc(5), field 4 of stat). Nobody
// inside can make such a process: those who lose their parent are given to process 1.
const outside = "0"

// forkedOnly is the kernel's flag of a process that has executed no program since it was forked (PF_FORKNOEXEC,
// linux/sched.h; proc(5), field 9 of stat).
const forkedOnly = 0x40

// process is what the kernel says of a process to everybody.
type process struct {
	id, state, parent string
	forkedOnly        bool
}

// isAtWork reports whether a process runs or can: it has neither ended nor been stopped.
func (p process) isAtWork() bool { return !strings.Contains("ZXTt", p.state) }

// allProcesses returns the processes of this container. One that has ended since it was listed is left out.
func allProcesses(proc string) ([]process, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, err
	}
	var found []process
	for _, entry := range entries {
		if _, err := strconv.Atoi(entry.Name()); err != nil {
			continue
		}
		each, err := readProcess(proc, entry.Name())
		if hasEnded(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found = append(found, each)
	}
	return found, nil
}

// readProcess reads the stat of a process (proc(5)).
func readProcess(proc, id string) (process, error) {
	text, err := os.ReadFile(filepath.Join(proc, id, "stat"))
	if err != nil {
		return process{}, err
	}
	// The name is in parentheses and may contain anything, even those.
	fields := strings.Fields(string(text[strings.LastIndex(string(text), ")")+1:]))
	if len(fields) < 7 {
		return process{}, fmt.Errorf("%s/%s/stat has %d fields after the name", proc, id, len(fields))
	}
	flags, err := strconv.ParseUint(fields[6], 10, 64)
	if err != nil {
		return process{}, fmt.Errorf("%s/%s/stat: %w", proc, id, err)
	}
	return process{id, fields[0], fields[1], flags&forkedOnly != 0}, nil
}
