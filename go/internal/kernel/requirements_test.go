package kernel

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"clawker-fw/internal/must"
	"clawker-fw/internal/nettest"
)

// A kernel that has everything lacks nothing.
func TestRequirements(t *testing.T) {
	nettest.InNetwork(t)

	if found := CheckRequirements(); len(found.Lacking) > 0 {
		t.Errorf("got %q", found.Lacking)
	}
}

// A kernel without nf_tables is told by its first answer, and named; nobody waits for a second one.
func TestWithoutNfTables(t *testing.T) {
	limits := nettest.SmallLimits()
	without := nftables.WithTestDial(func(requests []netlink.Message) ([]netlink.Message, error) {
		header := requests[0].Header
		header.Type, header.Flags = netlink.Error, 0
		refusal := binary.NativeEndian.AppendUint32(nil, ^uint32(0)-uint32(unix.EINVAL)+1)
		return []netlink.Message{{Header: header, Data: append(refusal, make([]byte, 16)...)}}, nil
	})

	err := newLimitFilter(limits).installWithSix(without)

	if !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "needs nf_tables in the kernel") {
		t.Errorf("got %v", err)
	}
}

// Where the kernel may load no more modules, that is named, and each of its errors is there once.
func TestWithoutModules(t *testing.T) {
	path := filepath.Join(t.TempDir(), "modules_disabled")
	before := modulesDisabled
	modulesDisabled = path
	defer func() { modulesDisabled = before }()
	limits := nettest.SmallLimits()
	refusing := nftables.WithTestDial(func(requests []netlink.Message) ([]netlink.Message, error) {
		if netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETTABLE) == requests[0].Header.Type {
			return []netlink.Message{{Header: netlink.Header{Type: netlink.Done, Flags: netlink.Multi,
				Sequence: requests[0].Header.Sequence, PID: requests[0].Header.PID}, Data: make([]byte, 4)}}, nil
		}
		return nil, unix.EOPNOTSUPP
	})
	for value, named := range map[string]bool{"1\n": true, "0\n": false} {
		must.Succeed(t, os.WriteFile(path, []byte(value), 0o600))

		err := newLimitFilter(limits).installWithSix(refusing)

		if !errors.Is(err, unix.EOPNOTSUPP) || strings.Contains(err.Error(), "kernel.modules_disabled=1") != named {
			t.Errorf("%q: got %v", value, err)
		}
		if times := strings.Count(err.Error(), unix.EOPNOTSUPP.Error()); times != 1 {
			t.Errorf("the error is there %d times: %v", times, err)
		}
	}
}

// What a kernel lacks of nf_tables is what is in all rules that it refuses, and in none that it takes.
func TestMissingParts(t *testing.T) {
	limits := nettest.SmallLimits()
	rules := newLimitFilter(limits).rules
	for _, part := range []string{"connlimit", "log", "limit", "reject", "notrack"} {
		found := missingParts(rules, func(rule *nftables.Rule) bool { return !slices.Contains(partsOf(rule), part) })
		if !slices.Contains(found, part) {
			t.Errorf("without %s: %q", part, found)
		}
		for _, always := range builtIn {
			if slices.Contains(found, always) {
				t.Errorf("without %s: %s is said to be missing as well", part, always)
			}
		}
	}
	if found := missingParts(rules, func(*nftables.Rule) bool { return true }); len(found) > 0 {
		t.Errorf("with all: %q", found)
	}
}

// nobody is a user that has no process on any machine.
const nobody = 64_999

// Where a user has used up its inotify instances, that is said by name.
func TestWithoutInotify(t *testing.T) {
	must.BeRoot(t, "to become another user")
	var held []int
	taken, done := make(chan bool), make(chan bool)
	go func() {
		runtime.LockOSThread()
		if _, _, failure := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); failure == 0 {
			for file, err := unix.InotifyInit(); err == nil && len(held) < 1<<16; file, err = unix.InotifyInit() {
				held = append(held, file)
			}
		}
		taken <- true
		<-done
	}()
	<-taken
	defer func() {
		for _, file := range held {
			unix.Close(file)
		}
		done <- true
	}()

	err := askForWatches(nobody)

	if err == nil || !strings.Contains(err.Error(), "fs.inotify.max_user_instances") {
		t.Errorf("got %v", err)
	}
}

// Asking as another user leaves no thread that is one: the process could not become a user as a whole any more.
func TestAskingLeavesNoThreadOfAnotherUser(t *testing.T) {
	must.BeRoot(t, "to become another user")
	before := threadsOfOthers(t)
	for range 20 {
		must.Succeed(t, askForWatches(nobody))
	}
	for _, thread := range threadsOfOthers(t) {
		if !slices.Contains(before, thread) { // one of another test
			t.Errorf("%s has another user", thread)
		}
	}
}

// threadsOfOthers returns the threads of this process that are not root's.
func threadsOfOthers(t *testing.T) []string {
	t.Helper()
	threads, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil || len(threads) == 0 {
		t.Fatalf("%d threads, %v", len(threads), err)
	}
	return slices.DeleteFunc(threads, func(thread string) bool {
		status, err := os.ReadFile(thread)
		return err != nil || strings.Contains(string(status), "\nUid:\t0\t0\t0\t0\n")
	})
}
