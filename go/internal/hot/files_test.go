package hot

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"clawker-fw/internal/must"
	"clawker-fw/internal/users"
	"clawker-fw/internal/volume"
)

// secret is a dynamic file that only the program may read. It has a version, like Envoy's files.
const secret = "key/key.json"

// asInAContainer drops root's capabilities to open every file, as in a container. The thread shares nothing else
// with others, and ends with the test.
func asInAContainer(t *testing.T) {
	t.Helper()
	must.BeRoot(t, "which can give files to others")
	runtime.LockOSThread() // and never unlocked
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	must.Succeed(t, unix.Capget(&header, &sets[0]))
	for _, capability := range []int{unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH, unix.CAP_FOWNER} {
		sets[0].Effective &^= 1 << capability
		sets[0].Permitted &^= 1 << capability
	}
	must.Succeed(t, unix.Capset(&header, &sets[0]))
}

// own makes a file the program's, readable by it only.
func own(t *testing.T, path string) {
	t.Helper()
	must.Succeed(t, errors.Join(os.Chmod(path, 0o440), os.Chown(path, users.Readers, users.Readers)))
}

// expectSecret fails unless only the program can still read a file, and it has a set's content.
func expectSecret(t *testing.T, path, set string) {
	t.Helper()
	info := must.Get[os.FileInfo](t)(os.Stat(path))
	if info.Mode() != 0o440 || volume.UserOf(info) != users.Readers || volume.GroupOf(info) != users.Readers {
		t.Errorf("%s is %v of %d:%d", path, info.Mode(), volume.UserOf(info), volume.GroupOf(info))
	}
	if _, err := os.ReadFile(path); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("%s can be read by others: %v", path, err)
	}
	text, err := volume.ReadFile(path)
	if withoutVersion := string(WithVersion(text, Unversioned)); err != nil || withoutVersion != Content(set, secret) {
		t.Errorf("%s is %q, %v", path, withoutVersion, err)
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || volume.UserOf(info) != 0 {
		t.Errorf("its folder is not root's: %v", err)
	}
}

// Only the program can read a secret in every copy: after a start, a commit, a rejected commit and a rollback.
func TestSecretsStayTheProgramsOwn(t *testing.T) {
	asInAContainer(t)
	root := t.TempDir()
	if err := os.Chmod(filepath.Dir(root), 0o755); err != nil { // as everything above a volume is in a sibling
		t.Fatal(err)
	}
	want, files := Set("1", Routes, secret, Listeners)
	must.Write(t, filepath.Join(root, "hot"), files)
	own(t, filepath.Join(root, "hot", secret))
	WriteRecord(t, RecordPath(root), want)
	expectBoth := func(set string) {
		t.Helper()
		for _, folder := range []string{root, goodFolder(root)} {
			expectSecret(t, filepath.Join(folder, "hot", secret), set)
			if _, err := os.ReadFile(filepath.Join(folder, "hot", Routes)); err != nil {
				t.Errorf("what is no secret can't be read: %v", err)
			}
		}
		expectFinished(t, root)
	}

	must.Succeed(t, StartGood(root))
	expectBoth("1")

	sendSet(t, root, "2", Routes, secret, Listeners)
	program := StartReader(root)
	if result, err := commit(root, program); err != nil || !result.Committed {
		t.Fatalf("got %+v, %v", result, err)
	}
	expectBoth("2")

	program.Refuses = slices.Collect(maps.Values(sendSet(t, root, "3", Routes, secret, Listeners)))
	if result, err := commit(root, program); err != nil || result.Committed {
		t.Fatalf("a refused commit: %+v, %v", result, err)
	}
	expectBoth("2")
	if err := Check(root, Resources, program); err != nil {
		t.Errorf("it is not healthy: %v", err)
	}

	for _, spoil := range []func(path string) error{
		os.Remove,
		func(path string) error { return volume.WriteFile(path, []byte(Content("x", secret))) },
	} {
		must.Succeed(t, spoil(filepath.Join(root, "hot", secret)))
		must.Succeed(t, StartGood(root))
		expectBoth("2")
	}
}
