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
	"time"

	"golang.org/x/sys/unix"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/serving"
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

// ProcessDifferences lists unknown processes, and helpers that keep ending. A missing helper is no difference: the
// supervisor restarts it, and counts each end.
func ProcessDifferences(proc, root string, sibling boot.Sibling, status Status) ([]string, error) {
	program := strconv.Itoa(status.Program)
	differences, err := unknownProcesses(proc, program, helpersOf(root, sibling))
	if err != nil {
		return differences, err
	}
	shared, err := users.Shared(proc, program)
	differences = append(differences, shared...)
	for _, restart := range status.Restarts {
		if restart.keepsEnding(sinceStart()) {
			differences = append(differences, fmt.Sprintf("keeps ending: %s: %s", restart.Helper, restart.Reason))
		}
	}
	return differences, err
}

// unknownProcesses lists the processes in this container other than the supervisor, the program, its companions
// and this helper, by id and command line. A process with an unreadable executable is unknown, because the helper
// can always read its own.
//
// A process that is about to execute a program is skipped: Docker's, for a health check or for this helper, and
// the supervisor's, for a companion. The kernel shows that it was forked by one of these and has executed nothing
// yet. (The supervisor also inherits the program's orphans, which have the program's group.)
func unknownProcesses(proc, program string, companions []companion) ([]string, error) {
	running, err := allProcesses(proc)
	if err != nil {
		return nil, err
	}
	helper, err := os.Stat(filepath.Join(proc, "self", "exe"))
	if err != nil {
		return nil, err
	}
	unknown := []string{}
	for _, process := range running {
		starts := process.parent == outside || process.parent == "1" && !(companion{group: users.Readers}).owns(proc, process.id)
		if process.id == "1" || process.id == program || process.forkedOnly && starts {
			continue
		}
		awaitExecution(proc, process.id)
		executable, err := executableOf(proc, process.id)
		if hasEnded(err) || err == nil && os.SameFile(executable, helper) ||
			slices.ContainsFunc(companions, func(other companion) bool { return other.is(proc, process.id) }) {
			continue // ended, or another fwctl: a health check, a commit, a companion
		}
		command, err := CommandOf(proc, process.id)
		if hasEnded(err) {
			continue
		}
		if err != nil {
			command = []string{err.Error()}
		}
		unknown = append(unknown, fmt.Sprintf("%s: %s", process.id, strings.Join(command, " ")))
	}
	slices.Sort(unknown)
	return unknown, nil
}

// awaitExecution waits until a process has finished execve(2). In the middle, it has its new program, but not yet
// the privileges with which this helper may see it. Until then, the kernel blocks opening its environment
// (mm_access()); the outcome does not matter.
func awaitExecution(proc, process string) {
	if file, err := os.Open(filepath.Join(proc, process, "environ")); err == nil {
		file.Close()
	}
}

// executableOf returns the file that a process executes. The kernel shows it only to processes with all its
// privileges. Another helper has more than this one, until it has dropped its unneeded ones.
func executableOf(proc, process string) (os.FileInfo, error) {
	for end := time.Now().Add(privilegedAtMost); ; time.Sleep(serving.PollEvery) {
		executable, err := os.Stat(filepath.Join(proc, process, "exe"))
		if !errors.Is(err, fs.ErrPermission) || !(companion{}).owns(proc, process) || time.Now().After(end) {
			return executable, err
		}
	}
}

// privilegedAtMost limits how long a helper takes to drop privileges, on a busy machine.
const privilegedAtMost = 500 * time.Millisecond

func hasEnded(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }

// outside is the parent of a process from outside this container (proc(5), field 4 of stat). No process inside can
// create one: orphans belong to process 1.
const outside = "0"

// forkedOnly is the kernel's flag of a process that has executed no program since its fork (PF_FORKNOEXEC,
// linux/sched.h; proc(5), field 9 of stat).
const forkedOnly = 0x40

type process struct {
	id, parent string
	forkedOnly bool
}

func allProcesses(proc string) ([]process, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, err
	}
	var processes []process
	for _, entry := range entries {
		if _, err := strconv.Atoi(entry.Name()); err != nil {
			continue
		}
		process, err := readProcess(proc, entry.Name())
		if hasEnded(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		processes = append(processes, process)
	}
	return processes, nil
}

func readProcess(proc, id string) (process, error) {
	text, err := os.ReadFile(filepath.Join(proc, id, "stat"))
	if err != nil {
		return process{}, err
	}
	// The name is in parentheses and may contain anything, even parentheses.
	fields := strings.Fields(string(text[strings.LastIndex(string(text), ")")+1:]))
	if len(fields) < 7 {
		return process{}, fmt.Errorf("%s/%s/stat has %d fields after the name", proc, id, len(fields))
	}
	flags, err := strconv.ParseUint(fields[6], 10, 64)
	if err != nil {
		return process{}, fmt.Errorf("%s/%s/stat: %w", proc, id, err)
	}
	return process{id, fields[1], flags&forkedOnly != 0}, nil
}

// A helper that ended restartsTolerated times within restartsWithin is a difference. Fewer ends are only reported.
const (
	restartsTolerated = 5
	restartsWithin    = 10 * time.Minute
)

// Restart has the ends of a helper since its container started.
type Restart struct {
	Helper string          `json:"helper"`
	Count  int             `json:"count"`
	Last   time.Time       `json:"last"` // its last end, to the second
	Reason string          `json:"reason"`
	Recent []time.Duration `json:"recent"` // its last ends since the host's start, at most restartsTolerated
}

// sinceStart returns the host's uptime, the same for all processes. Setting the clock doesn't affect it.
func sinceStart() time.Duration {
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return 0 // the needed kernels have it (2.6.39)
	}
	return time.Duration(up.Nano())
}

// count counts a helper's end.
func (s *Status) count(helper, reason string, now time.Time, up time.Duration) {
	at := slices.IndexFunc(s.Restarts, func(restart Restart) bool { return restart.Helper == helper })
	if at < 0 {
		at = len(s.Restarts)
		s.Restarts = append(s.Restarts, Restart{Helper: helper})
	}
	counted := &s.Restarts[at]
	counted.Count++
	counted.Last, counted.Reason = now.UTC().Truncate(time.Second), reason
	counted.Recent = append(counted.Recent, up)
	if more := len(counted.Recent) - restartsTolerated; more > 0 {
		counted.Recent = slices.Delete(counted.Recent, 0, more)
	}
}

func (r Restart) keepsEnding(up time.Duration) bool {
	return len(r.Recent) >= restartsTolerated && up-r.Recent[len(r.Recent)-restartsTolerated] < restartsWithin
}
