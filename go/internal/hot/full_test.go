package hot

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"clawker-fw/internal/must"
	"clawker-fw/internal/volume"
)

// newSmallVolume returns a volume on a small disk, in which set 1 was committed, and the folder above it.
func newSmallVolume(t *testing.T, paths ...string) (string, string) {
	t.Helper()
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatalf("a small disk needs root: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
	root := filepath.Join(disk, "fw")
	want, files := Set("1", append(paths, Routes, Listeners)...)
	must.Write(t, filepath.Join(root, "hot"), files)
	WriteRecord(t, RecordPath(root), want)
	must.Succeed(t, StartGood(root))
	return root, disk
}

// fill fills a disk completely.
func fill(t *testing.T, disk string) {
	t.Helper()
	file, err := os.OpenFile(filepath.Join(disk, "filler"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	must.Succeed(t, err)
	defer file.Close()
	for size := 1 << 16; size > 0; size /= 2 {
		for err = nil; err == nil; {
			_, err = file.Write(make([]byte, size))
		}
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}

// On a full disk, repeated commits of files with the same sizes succeed: the files are live, recorded, and the
// verified set.
func TestCommitSentOnAFullDisk(t *testing.T) {
	root, disk := newSmallVolume(t)
	versions := []string{Unversioned}
	for _, name := range []string{"2", "3", "4"} {
		fill(t, disk)
		want, files := Set(name, Routes, Listeners)

		send(t, root, want, files)
		result, err := Volume{root, Resources, StartReader(root), time.Now}.commitSent(func() {})

		if err != nil || !result.Committed {
			t.Fatalf("got %+v, %v", result, err)
		}
		expectSet(t, root, files, versions...)
		expectGood(t, root, files)
		expectFinished(t, root)
		committed := must.Get[Commit](t)(ReadRecord(RecordPath(root)))
		versions = append(versions, committed.Version)
	}
	fill(t, disk)
	if err := StartGood(root); err != nil {
		t.Errorf("it does not start again: %v", err)
	}
}

// A file that is no longer needed is removed with its last rule.
func TestCommitSentRemovesFiles(t *testing.T) {
	root, disk := newSmallVolume(t, Added)
	fill(t, disk)
	want, files := Set("2", Routes, Listeners)
	send(t, root, want, files)
	result, err := Volume{root, Resources, StartReader(root), time.Now}.commitSent(func() {})
	if err != nil || !result.Committed {
		t.Fatalf("got %+v, %v", result, err)
	}
	expectSet(t, root, files)
	expectGood(t, root, files)
}

// Rejected files and files without room are rolled back; the previous set is in force, and the verified set.
func TestCommitSentTakesBack(t *testing.T) {
	for name, change := range map[string]func(must.Tree, *Reader){
		"rejected": func(files must.Tree, program *Reader) {
			program.Refuses = []string{files[Listeners]}
		},
		"too large": func(files must.Tree, _ *Reader) {
			files[Listeners] = strings.Replace(files[Listeners], "2", strings.Repeat("2", 3*volume.Slack), 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			root, disk := newSmallVolume(t)
			_, before := Set("1", Routes, Listeners)
			fill(t, disk)
			want, files := Set("2", Routes, Listeners)
			program := StartReader(root)
			change(files, program)
			for at, recorded := range want.Files {
				want.Files[at].Digest = DigestOf([]byte(files[recorded.Path]))
			}

			send(t, root, want, files)
			result, err := Volume{root, Resources, program, time.Now}.commitSent(func() {})

			if result.Committed || (name == "too large") != errors.Is(err, unix.ENOSPC) {
				t.Errorf("got %+v, %v", result, err)
			}
			expectSet(t, root, before)
			expectGood(t, root, before)
		})
	}
}

// If hot/ lacks a file, a failed commit still keeps all of the last verified set.
func TestCommitSentKeepsTheProvenSet(t *testing.T) {
	for _, gone := range []string{Routes, Listeners} {
		for _, refuses := range []bool{false, true} {
			root, disk := newSmallVolume(t)
			_, before := Set("1", Routes, Listeners)
			must.Succeed(t, os.Remove(filepath.Join(root, "hot", gone)))
			want, files := Set("2", Routes, Listeners)
			program := StartReader(root)
			if refuses {
				program.Refuses = []string{files[Listeners]}
			}
			fill(t, disk)

			send(t, root, want, files)
			result, err := Volume{root, Resources, program, time.Now}.commitSent(func() {})

			if err == nil && result.Committed {
				before = files
			}
			if err := StartGood(root); err != nil {
				t.Fatalf("without %s, nothing starts any more: %v", gone, err)
			}
			expectSet(t, root, before)
		}
	}
}

// newSmallEnding is newEnding on a small disk. It also returns the folder above the volume.
func newSmallEnding(t *testing.T) (string, string, []must.Tree) {
	t.Helper()
	root, sets := newEnding(t)
	_, disk := newSmallVolume(t)
	small := filepath.Join(disk, "ending")
	must.Succeed(t, os.CopyFS(small, os.DirFS(root)))
	must.Succeed(t, StartGood(small))
	return small, disk, sets
}

// A tar is refused unless every file has its digest.
func TestReadSentChecksDigests(t *testing.T) {
	want, files := Set("2", Routes, Listeners)
	for name, change := range map[string]func(must.Tree){
		"missing": func(files must.Tree) { delete(files, Routes) },
		"another": func(files must.Tree) { files[Routes] += " " },
	} {
		changed := maps.Clone(files)
		change(changed)
		if err := (set{want, sentOf(changed)}).verify(); err == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
	if err := (set{want, sentOf(files)}).verify(); err != nil {
		t.Error(err)
	}
	if err := (set{}).verify(); err == nil {
		t.Error("nothing was taken")
	}
}

func sentOf(files must.Tree) map[string]file {
	copied := map[string]file{}
	for path, text := range files {
		copied[path] = file{content: []byte(text)}
	}
	return copied
}
