package start

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/must"
	"clawker-fw/internal/users"
)

// mounted is the path of a container's volume.
const mounted = "/fw"

// Any process except the program and this helper is reported, with its id and command line.
func TestUnknownProcesses(t *testing.T) {
	other := exec.Command("/bin/sleep", "60")
	must.Succeed(t, other.Start())
	defer func() {
		if err := other.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = other.Wait()
	}()

	unknown := must.Get[[]string](t)(unknownProcesses(users.Processes, "1", nil))
	if want := strconv.Itoa(other.Process.Pid) + ": /bin/sleep 60"; !slices.Contains(unknown, want) {
		t.Errorf("%q is not among %q", want, unknown)
	}
	own := strconv.Itoa(os.Getpid()) + ":"
	if slices.ContainsFunc(unknown, func(text string) bool { return strings.HasPrefix(text, own) }) {
		t.Errorf("this process is a stranger to itself: %q", unknown)
	}
}

// An unreadable list of processes is an error, never an empty one.
func TestUnknownProcessesUnreadable(t *testing.T) {
	if got, err := unknownProcesses(filepath.Join(t.TempDir(), "none"), "1", nil); err == nil {
		t.Errorf("got %q", got)
	}
}

// A process's name may contain anything, even a closing parenthesis.
func TestReadProcess(t *testing.T) {
	proc := t.TempDir()
	must.Write(t, proc, must.Tree{"7/stat": "7 (odd) S 1 1 1 0 -1 64 name) T 12 7 7 0 -1 4194368 1 0", "8/stat": "8 (cut) S 1"})

	if got, err := readProcess(proc, "7"); err != nil || got != (process{"7", "12", true}) {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := readProcess(proc, "8"); err == nil {
		t.Errorf("got %v", got)
	}
}

// stat is the kernel's text about a sleeping process, with a parent and flags.
func stat(process, parent string, flags int) string {
	return fmt.Sprintf("%s (x) S %s 0 0 0 -1 %d 0 0 0 0", process, parent, flags)
}

// A process that has executed nothing yet is recognised by its parent: Docker and the supervisor are about to
// execute a program, and others don't do that here. One that has executed another program is reported at once,
// whatever its parent. The supervisor also inherits the program's orphans.
func TestAboutToExecute(t *testing.T) {
	must.BeRoot(t, "to have a process of another user")
	const exec = 0x400000
	for what, test := range map[string]struct {
		stat  string
		group int
		known bool
	}{
		"the engine's, before it executes":     {stat("7", outside, exec|forkedOnly), 0, true},
		"the engine's, once it has":            {stat("7", outside, exec), 0, false},
		"the supervisor's, before it executes": {stat("7", "1", forkedOnly), recording, true},
		"the supervisor's, once it has":        {stat("7", "1", 0), recording, false},
		"the program's, without executing it":  {stat("7", "8", forkedOnly), users.Readers, false},
		"the program's, left behind":           {stat("7", "1", forkedOnly), users.Readers, false},
	} {
		proc := t.TempDir()
		must.Write(t, proc, must.Tree{
			"self/exe": "helper", "1/stat": stat("1", outside, 0), "1/exe": "another", "1/cmdline": "fwctl\x00serve\x00",
			"7/stat": test.stat, "7/exe": "another", "7/cmdline": "runc\x00init\x00",
			"8/stat": stat("8", "1", 0), "8/exe": "another", "8/cmdline": "/envoy\x00",
		})
		must.Succeed(t, os.Chown(filepath.Join(proc, "7"), users.FewestUsers, test.group))
		got, err := unknownProcesses(proc, "8", nil)
		if err != nil || len(got) > 0 == test.known {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
}

// A helper is recognised by its user, its group and its command line.
func TestRecorderIsKnown(t *testing.T) {
	proc := t.TempDir()
	must.Write(t, proc, must.Tree{"self/exe": "helper", "1/stat": stat("1", outside, 0)})
	must.WriteUsers(t, proc)
	limited, command := boot.Sibling{Limits: &boot.Limits{}}, "/fw/bin/fwctl\x00record\x00"
	expect := func(when string, sibling boot.Sibling, want ...string) {
		t.Helper()
		got, err := ProcessDifferences(proc, mounted, sibling, Status{Program: 1})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v", when, got, err)
		}
	}
	expect("without one", limited)
	must.Write(t, proc, must.Tree{"9/cmdline": command, "9/exe": "another", "9/stat": stat("9", "1", 0)})
	expect("with root's", limited, "9: /fw/bin/fwctl record")
	must.BeRoot(t, "to have a process of another user")
	for _, another := range []struct{ user, group int }{{users.FewestUsers, users.Readers}, {0, recording}} {
		must.Succeed(t, os.Chown(filepath.Join(proc, "9"), another.user, another.group))
		expect("with another's", limited, "9: /fw/bin/fwctl record")
	}
	must.Succeed(t, os.Chown(filepath.Join(proc, "9"), users.FewestUsers, recording))
	expect("with one", limited)
	expect("without limits", boot.Sibling{}, "9: /fw/bin/fwctl record")
	must.Write(t, proc, must.Tree{"9/cmdline": "/tmp/shell\x00"})
	expect("with another command", limited, "9: /tmp/shell")
}

// An ended helper is no difference while the supervisor restarts it. One that keeps ending is.
func TestHelpersThatEnd(t *testing.T) {
	volume, proc := t.TempDir(), t.TempDir()
	sibling, status := boot.Sibling{Limits: &boot.Limits{}}, Status{Program: 1}
	must.Write(t, proc, must.Tree{"self/exe": "helper", "1/stat": stat("1", outside, 0)})
	must.WriteUsers(t, proc)
	expect := func(when string, want ...string) {
		t.Helper()
		got, err := ProcessDifferences(proc, volume, sibling, status)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v", when, got, err)
		}
	}
	recorder := helpersOf(volume, sibling)[0]
	ends := func() { status.count(recorder.name(), "signal: killed", time.Now(), sinceStart()) }
	ends()
	expect("it is started again")
	for range restartsTolerated {
		ends()
	}
	expect("it keeps ending", "keeps ending: recorder of refusals: signal: killed")
}

// Each helper is started with the container's settings.
func TestHelpers(t *testing.T) {
	place := netip.MustParseAddrPort("127.0.0.53:53")
	for command, sibling := range map[string]boot.Sibling{
		"forward 127.0.0.53:53 127.0.0.11:53 /fw/hot/subtrees/subtrees.json 10.213.0.0/20 10.214.0.0/24": {Forwarder: &boot.ForwarderSettings{
			Listen: place, Upstream: netip.MustParseAddrPort("127.0.0.11:53"),
			Agents: netip.MustParsePrefix("10.213.0.0/20"), Egress: netip.MustParsePrefix("10.214.0.0/24"),
		}},
		"sign /tmp/signer /fw/hot/inspected/names.json /fw/hot/signing/intermediates.json": {Signer: &boot.SignerSettings{Folder: "/tmp/signer"}},
	} {
		helpers := helpersOf(mounted, sibling)
		if len(helpers) != 1 || strings.Join(helpers[0].words, " ") != "/fw/bin/fwctl "+command {
			t.Errorf("%v", helpers)
		}
	}
}
