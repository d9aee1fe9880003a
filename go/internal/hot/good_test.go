package hot

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"clawker-fw/internal/must"
	"clawker-fw/internal/volume"
)

// spoils are ways in which dynamic files can differ from the last commit.
var spoils = map[string]func(folder string) error{
	"a changed file": func(folder string) error {
		return volume.WriteFile(filepath.Join(folder, Listeners), []byte(Content("x", Listeners)))
	},
	"a file of another version": func(folder string) error {
		return volume.WriteFile(filepath.Join(folder, Routes), WithVersion([]byte(Content("1", Routes)), "beef"))
	},
	"a missing file": func(folder string) error { return os.Remove(filepath.Join(folder, Routes)) },
	"a further file": func(folder string) error {
		return volume.WriteFile(filepath.Join(folder, Added), []byte("{}"))
	},
	"a missing tree": func(folder string) error { return os.RemoveAll(filepath.Join(folder, "rds")) },
	"a link to a file": func(folder string) error {
		elsewhere := filepath.Join(folder, "..", "elsewhere")
		if err := os.Rename(filepath.Join(folder, Routes), elsewhere); err != nil {
			return err
		}
		return os.Symlink(elsewhere, filepath.Join(folder, Routes))
	},
}

// running returns a volume in which set 1 was started, and is also the verified set.
func running(t *testing.T) (root string, files must.Tree) {
	t.Helper()
	root, files = NewVolume(t)
	must.Succeed(t, StartGood(root))
	expectGood(t, root, files)
	return root, files
}

// A start with a verified set leaves it unchanged, and keeps it as the verified set.
func TestStartGoodKeepsWhatIsThere(t *testing.T) {
	root, files := NewVolume(t)

	for range 2 {
		must.Succeed(t, StartGood(root))

		expectTree(t, filepath.Join(root, "hot"), files)
		expectGood(t, root, files)
		expectFinished(t, root)
	}
}

// A start exchanges a set that differs from the verified one with its copy.
func TestStartGoodRestores(t *testing.T) {
	for name, spoil := range spoils {
		t.Run(name, func(t *testing.T) {
			root, files := running(t)
			must.Succeed(t, spoil(filepath.Join(root, "hot")))

			must.Succeed(t, StartGood(root))

			expectSet(t, root, files)
			expectGood(t, root, files)
			expectFinished(t, root)
			if err := Check(root, Resources, StartReader(root)); err != nil {
				t.Errorf("what starts is not healthy: %v", err)
			}
		})
	}
}

// A link in place of a folder is removed, and nothing is written to its target.
func TestStartGoodFollowsNoLink(t *testing.T) {
	root, files := running(t)
	elsewhere := t.TempDir()
	must.Succeed(t, os.RemoveAll(filepath.Join(root, "hot", "rds")))
	must.Succeed(t, os.Symlink(elsewhere, filepath.Join(root, "hot", "rds")))

	must.Succeed(t, StartGood(root))

	expectSet(t, root, files)
	expectGood(t, root, files)
	expectTree(t, elsewhere, must.Tree{})
}

// If neither the dynamic files nor their copy are verified, nothing starts and nothing changes.
func TestStartGoodFailsClosed(t *testing.T) {
	for name, spoil := range spoils {
		for _, other := range []string{"a changed file", "no copy"} {
			t.Run(name+" and "+other, func(t *testing.T) {
				root, _ := running(t)
				must.Succeed(t, spoil(filepath.Join(root, "hot")))
				if other == "no copy" {
					must.Succeed(t, os.RemoveAll(goodFolder(root)))
				} else if err := spoils[other](goodTree(root)); err != nil {
					t.Fatal(err)
				}
				before := readTree(t, filepath.Join(root, "hot"))

				err := StartGood(root)

				if err == nil || !strings.Contains(err.Error(), "the hot files are not what was committed") {
					t.Errorf("got %v", err)
				}
				expectTree(t, filepath.Join(root, "hot"), before)
			})
		}
	}
}

// Without a readable record, nothing starts.
func TestStartGoodNeedsTheRecord(t *testing.T) {
	for _, content := range []string{"", "{", "{}"} {
		root, _ := running(t)
		must.Succeed(t, os.WriteFile(RecordPath(root), []byte(content), 0o644))

		if err := StartGood(root); !errors.Is(err, errUnproven) {
			t.Errorf("%q: got %v", content, err)
		}
	}
}

// An unverified copy does no harm while the dynamic files are verified.
func TestStartGoodRenewsTheCopy(t *testing.T) {
	for name, spoil := range spoils {
		t.Run(name, func(t *testing.T) {
			root, files := running(t)
			must.Succeed(t, spoil(goodTree(root)))

			must.Succeed(t, StartGood(root))

			expectGood(t, root, files)
		})
	}
}

// dying is the variable that makes this test binary play a scene, in which a child changes a volume and is killed.
const dying = "FWCTL_TEST_DYING"

func TestMain(m *testing.M) {
	scene := os.Getenv(dying)
	if scene == "" {
		os.Exit(m.Run())
	}
	if err := playDying(scene); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// playDying plays a scene on a volume: an accepted commit, a rejected one, an end of rules, or a start.
func playDying(scene string) error {
	what, root, _ := strings.Cut(scene, ":")
	program := StartReader(root)
	switch what {
	case "start":
		return StartGood(root)
	case "end":
		return Volume{root, Resources, program, moment(100)}.EndRules()
	case "end at a start":
		return EndAtStart(root, time.Unix(100, 0))
	case "refused":
		program.Refuses = []string{Content("2", Listeners)}
	}
	_, err := commit(root, program)
	return err
}

// changes are the system calls that change files and folders. Files are created by opening them (changesFiles).
var changes = []uint64{
	unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_UNLINKAT, unix.SYS_PWRITE64, unix.SYS_FTRUNCATE, unix.SYS_FALLOCATE,
}

// systemCall is struct ptrace_syscall_info at the entry of a call (ptrace(2)).
type systemCall struct {
	op        uint8
	_         [3]uint8
	_         uint32
	_, _      uint64
	number    uint64
	arguments [6]uint64
}

func (s systemCall) changesFiles() bool {
	const entry = 1
	opens := s.number == unix.SYS_OPENAT && s.arguments[2]&unix.O_CREAT != 0
	return s.op == entry && (opens || slices.Contains(changes, s.number))
}

// dies plays a scene in a child and kills the child before its nth change. It returns false if there are fewer changes.
func dies(t *testing.T, scene string, change int) bool {
	t.Helper()
	return stopped(t, scene, change, func(child int) error { return unix.Kill(child, unix.SIGKILL) })
}

// stopped plays a scene in a child and stops it before its nth change for a function. It returns false if there
// are fewer changes.
func stopped(t *testing.T, scene string, change int, do func(child int) error) bool {
	t.Helper()
	runtime.LockOSThread() // tracing is a matter of threads
	defer runtime.UnlockOSThread()
	child, err := os.StartProcess(os.Args[0], os.Args[:1], &os.ProcAttr{
		Env:   append(os.Environ(), dying+"="+scene),
		Files: []*os.File{nil, nil, os.Stderr},
		Sys:   &unix.SysProcAttr{Ptrace: true},
	})
	must.Succeed(t, err)
	var status unix.WaitStatus
	must.Get[int](t)(unix.Wait4(child.Pid, &status, unix.WALL, nil))
	options := unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_EXITKILL
	must.Succeed(t, unix.PtraceSetOptions(child.Pid, options))
	done := false
	for thread, signal := child.Pid, 0; ; {
		_ = unix.PtraceSyscall(thread, signal) // it may have been killed
		if thread, err = unix.Wait4(-1, &status, unix.WALL, nil); err != nil {
			t.Fatal(err)
		}
		signal = 0
		switch {
		case !status.Stopped() && thread == child.Pid:
			if !done && status.ExitStatus() != 0 {
				t.Fatalf("%s ended with %v", scene, status)
			}
			return done
		case !status.Stopped():
		case status.StopSignal() == unix.SIGTRAP|0x80:
			var call systemCall
			_, _, _ = unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(thread),
				unsafe.Sizeof(call), uintptr(unsafe.Pointer(&call)), 0, 0)
			if call.changesFiles() {
				if change--; change == 0 {
					done = true
					must.Succeed(t, do(child.Pid))
				}
			}
		case status.StopSignal() != unix.SIGTRAP && status.StopSignal() != unix.SIGSTOP:
			signal = int(status.StopSignal())
		}
	}
}

// dead runs a check for every point at which a scene can be killed.
func dead(t *testing.T, what string, volume func(t *testing.T) string, check func(t *testing.T, root string)) {
	t.Helper()
	deaths := 0
	for going := true; going; {
		deaths++
		t.Run(fmt.Sprintf("before change %d", deaths), func(t *testing.T) {
			root := volume(t)
			going = dies(t, what+":"+root, deaths)
			check(t, root)
		})
	}
	if deaths < 10 {
		t.Errorf("it changes no more than %d files", deaths)
	}
}

// staged returns a volume in which set 1 is live and verified, and set 2 is sent with an additional file.
func staged(t *testing.T) string {
	t.Helper()
	root, _ := running(t)
	sendSet(t, root, "2", Routes, Added, Listeners)
	return root
}

// proven returns the set that a volume's record has as verified: 1 or 2.
func proven(t *testing.T, root string) must.Tree {
	t.Helper()
	committed := must.Get[Commit](t)(ReadRecord(RecordPath(root)))
	second, files := Set("2", Routes, Added, Listeners)
	if !slices.Equal(committed.Files, second.Files) {
		_, files = Set("1", Routes, Listeners)
	}
	return files
}

// Wherever a commit is killed, accepted or rejected: a start has the last verified set and is healthy, the next
// commit is accepted, and a rejected one restores the verified set.
func TestCommitDies(t *testing.T) {
	for _, what := range []string{"taken", "refused"} {
		t.Run(what, func(t *testing.T) {
			dead(t, what, staged, func(t *testing.T, root string) {
				files := proven(t, root)
				if first, _ := Set("1", Routes, Listeners); what == "refused" && len(files) != len(first.Files) {
					t.Error("a set that was refused is on record")
				}
				again := copyOf(t, root)
				goesOn(t, copyOf(t, root))
				must.Succeed(t, StartGood(root))
				expectSet(t, root, files)
				expectGood(t, root, files)
				expectFinished(t, root)
				if err := Check(root, Resources, StartReader(root)); err != nil {
					t.Errorf("what starts is not healthy: %v", err)
				}
				isRefused(t, again, files)
			})
		})
	}
}

// Wherever a start with changed files is killed, the next start restores the verified set.
func TestStartGoodDies(t *testing.T) {
	var files must.Tree
	changed := func(t *testing.T) string {
		var root string
		root, files = running(t)
		must.Write(t, filepath.Join(root, "hot"), must.Tree{Listeners: Content("x", Listeners), Added: "{}", "rds/x": ""})
		return root
	}
	dead(t, "start", changed, func(t *testing.T, root string) {
		again := copyOf(t, root)
		goesOn(t, copyOf(t, root))
		must.Succeed(t, StartGood(root))
		expectSet(t, root, files)
		expectGood(t, root, files)
		expectFinished(t, root)
		isRefused(t, again, files)
	})
}

func copyOf(t *testing.T, root string) string {
	t.Helper()
	copied := filepath.Join(t.TempDir(), "copy")
	must.Succeed(t, os.CopyFS(copied, os.DirFS(root)))
	return copied
}

// goesOn checks that set 3 can be committed afterwards.
func goesOn(t *testing.T, root string) {
	t.Helper()
	files := sendSet(t, root, "3", Routes, Added, Listeners)
	mustCommit(t, root)

	expectSet(t, root, files)
	expectGood(t, root, files)
	expectFinished(t, root)
}

// isRefused checks that a rejected commit of set 4 restores the verified set afterwards.
func isRefused(t *testing.T, root string, before must.Tree) {
	t.Helper()
	files := sendSet(t, root, "4", Routes, Added, Listeners)
	program := StartReader(root)
	program.Refuses = slices.Collect(maps.Values(files))

	result, err := commit(root, program)

	if err != nil || result.Committed {
		t.Fatalf("a refused commit: %+v, %v", result, err)
	}
	expectSet(t, root, before)
	expectGood(t, root, before)
	expectFinished(t, root)
}
