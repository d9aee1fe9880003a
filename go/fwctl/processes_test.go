package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Any process except the program and this helper is reported, with its id and command line.
func TestUnknownProcesses(t *testing.T) {
	other := exec.Command("/bin/sleep", "60")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := other.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = other.Wait()
	}()

	starting := strconv.Itoa(other.Process.Pid) + ": " // its command line appears a moment later
	found, err := unknownProcesses(processes, nil)
	for err == nil && slices.Contains(found, starting) {
		found, err = unknownProcesses(processes, nil)
	}

	if err != nil {
		t.Fatal(err)
	}
	if wanted := strconv.Itoa(other.Process.Pid) + ": /bin/sleep 60"; !slices.Contains(found, wanted) {
		t.Errorf("%q is not among %q", wanted, found)
	}
	own := strconv.Itoa(os.Getpid()) + ":"
	if slices.ContainsFunc(found, func(text string) bool { return strings.HasPrefix(text, own) }) {
		t.Errorf("this process is a stranger to itself: %q", found)
	}
}

// A list of processes that can't be read is an error, never an empty one.
func TestUnknownProcessesUnreadable(t *testing.T) {
	if found, err := unknownProcesses(filepath.Join(t.TempDir(), "none"), nil); err == nil {
		t.Errorf("got %q", found)
	}
}

// A command line is split into the arguments that the program got.
func TestCommandOf(t *testing.T) {
	proc := t.TempDir()
	write(t, proc, tree{"7/cmdline": "/coredns\x00-conf\x00two words\x00"})

	command, err := commandOf(proc, "7")

	if err != nil || !slices.Equal(command, []string{"/coredns", "-conf", "two words"}) {
		t.Errorf("got %q, %v", command, err)
	}
}

// A process's name may contain anything, even what looks like its own end.
func TestStartOf(t *testing.T) {
	proc := t.TempDir()
	rest := " S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0"
	write(t, proc, tree{"7/stat": "7 (odd) name)" + rest, "8/stat": "8 (cut) S 1"})

	if started, err := startOf(proc, "7"); err != nil || started != "4711" {
		t.Errorf("got %q, %v", started, err)
	}
	if started, err := startOf(proc, "8"); err == nil {
		t.Errorf("got %q", started)
	}
}

// A helper is known by its user and its command line. It is missing where agents are limited and nobody is it.
func TestRecorderIsKnown(t *testing.T) {
	proc := t.TempDir()
	write(t, proc, tree{"self/exe": "helper", "1/cmdline": "/coredns\x00"})
	limited, command := Sibling{Limits: &Limits{}}, "/fw/bin/fwctl\x00record\x00"
	const noKeeper = "missing: /fw/bin/fwctl keep"
	expect := func(when string, sibling Sibling, wanted ...string) {
		t.Helper()
		found, err := processDifferences(proc, root, sibling)
		if err != nil || !slices.Equal(found, wanted) {
			t.Errorf("%s: %q, %v", when, found, err)
		}
	}
	expect("without one", limited, "missing: /fw/bin/fwctl record", noKeeper)
	expect("without limits", Sibling{})
	write(t, proc, tree{"9/cmdline": command, "9/exe": "another", "9/stat": "9 (x)" + strings.Repeat(" 1", 30)})
	expect("with another user's", limited, "9: /fw/bin/fwctl record", "missing: /fw/bin/fwctl record", noKeeper)
	if os.Geteuid() != 0 {
		t.Skip("this needs root, to have a process of another user")
	}
	if err := os.Chown(filepath.Join(proc, "9"), recording, recording); err != nil {
		t.Fatal(err)
	}
	expect("with one", limited, noKeeper)
	write(t, proc, tree{"8/cmdline": "/fw/bin/fwctl\x00keep\x00", "8/exe": "another", "8/stat": "8 (x)" + strings.Repeat(" 1", 30)})
	expect("with both", limited)
	write(t, proc, tree{"9/cmdline": "/tmp/shell\x00"})
	expect("with another command", limited, "9: /tmp/shell", "missing: /fw/bin/fwctl record")
}

// A helper that has ended is no difference while its keeper starts it again. It is one when it keeps ending, or when
// nobody is there to start it.
func TestHelpersThatEnd(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("this needs root, who the keeper belongs to")
	}
	volume, proc := t.TempDir(), t.TempDir()
	sibling := Sibling{Limits: &Limits{}}
	command := func(each companion) string { return strings.Join(each.command, "\x00") + "\x00" }
	write(t, proc, tree{"self/exe": "helper", "1/cmdline": "/coredns\x00", "8/cmdline": command(keeperOf(volume)), "8/exe": "another", "8/stat": "8 (x)" + strings.Repeat(" 1", 30)})
	expect := func(when string, wanted ...string) {
		t.Helper()
		found, err := processDifferences(proc, volume, sibling)
		if err != nil || !slices.Equal(found, wanted) {
			t.Errorf("%s: %q, %v", when, found, err)
		}
	}
	name := strings.Join(recorderOf(volume).command, " ")
	record, err := newRestarts(volume)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	ends := func(ago time.Duration) {
		t.Helper()
		if err := record.add(recorderOf(volume).name(), "signal: killed", now.Add(-ago)); err != nil {
			t.Fatal(err)
		}
	}
	expect("nobody has noticed", "missing: "+name)
	ends(20 * time.Second)
	expect("nobody starts it", "missing: "+name)
	ends(0)
	expect("it is started again")
	for range restartsTolerated {
		ends(0)
	}
	expect("it keeps ending", "keeps ending: "+name+": signal: killed")
	if err := os.RemoveAll(filepath.Join(proc, "8")); err != nil {
		t.Fatal(err)
	}
	if record, err = newRestarts(volume); err != nil {
		t.Fatal(err)
	}
	ends(0)
	expect("without its keeper", "missing: "+name, "missing: "+strings.Join(keeperOf(volume).command, " "))
}
