package hot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"clawker-fw/internal/must"
	"clawker-fw/internal/volume"
)

// inode identifies a file or folder, even after a rename. Its birth time distinguishes reused numbers.
type inode struct {
	number uint64
	birth  unix.StatxTimestamp
}

// disk is the durable part of a volume: contents of files, and entries of folders, at their last flush.
type disk struct {
	t        *testing.T
	contents map[inode]string
	entries  map[inode]map[string]inode
	root     inode
}

func inodeOf(t *testing.T, path string) inode {
	t.Helper()
	var got unix.Statx_t
	must.Succeed(t, unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_INO|unix.STATX_BTIME, &got))
	return inode{got.Ino, got.Btime}
}

// flush stores the current state of a file or folder.
func (d *disk) flush(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		content, err := os.ReadFile(path)
		d.contents[inodeOf(d.t, path)] = string(content)
		return err
	}
	names, err := os.ReadDir(path)
	entries := map[string]inode{}
	for _, entry := range names {
		entries[entry.Name()] = inodeOf(d.t, filepath.Join(path, entry.Name()))
	}
	d.entries[inodeOf(d.t, path)] = entries
	return err
}

// afterLoss returns the volume after a power loss, if the disk has only flushed data. A file with unflushed
// content is empty.
func (d *disk) afterLoss() string {
	folder := filepath.Join(d.t.TempDir(), "lost")
	d.write(d.root, folder)
	return folder
}

func (d *disk) write(folder inode, to string) {
	if err := os.MkdirAll(to, 0o755); err != nil {
		d.t.Fatal(err)
	}
	for name, node := range d.entries[folder] {
		path := filepath.Join(to, name)
		if _, ok := d.entries[node]; ok {
			d.write(node, path)
		} else if err := os.WriteFile(path, []byte(d.contents[node]), 0o644); err != nil {
			d.t.Fatal(err)
		}
	}
}

// afterLossOfContents returns the volume after a power loss if the disk has all names, as on file systems that
// store those first. A file with unflushed content is empty.
func (d *disk) afterLossOfContents(root string) string {
	folder := filepath.Join(d.t.TempDir(), "emptied")
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, _ := filepath.Rel(root, path)
		if entry.IsDir() {
			return os.MkdirAll(filepath.Join(folder, below), 0o755)
		}
		return os.WriteFile(filepath.Join(folder, below), []byte(d.contents[inodeOf(d.t, path)]), 0o644)
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return folder
}

// losing plays a scene on a fully flushed volume, and returns the volumes after a power loss before and after each
// flush, and at the end.
func losing(t *testing.T, root string, scene func()) (during, after []string) {
	t.Helper()
	on := &disk{t, map[inode]string{}, map[inode]map[string]inode{}, inodeOf(t, root)}
	flushed := flush
	defer func() { flush = flushed }()
	flush = on.flush
	must.Succeed(t, flushTree(root))
	lose := func() []string { return []string{on.afterLoss(), on.afterLossOfContents(root)} }
	flush = func(path string) error {
		during = append(during, on.afterLossOfContents(root))
		err := on.flush(path)
		if _, missing := os.Lstat(goodFolder(root)); path == root && missing == nil {
			err = errors.Join(err, on.flush(goodFolder(root))) // a file system keeps both sides of an exchange, or neither
		}
		during = append(during, lose()...)
		return err
	}
	scene()
	return during, lose()
}

// After a power loss at any point of a commit, the volume starts with the previous set or the new one, and with
// the new one once the commit has reported success.
func TestCommitLosesPower(t *testing.T) {
	root := staged(t)
	during, after := losing(t, root, func() {
		result, err := Volume{root, Resources, StartReader(root), time.Now}.commitSent(func() {})
		if err != nil || !result.Committed {
			t.Errorf("%+v, %v", result, err)
		}
	})
	if len(during) < 3*10 {
		t.Errorf("only %d points", len(during))
	}
	for point, volume := range during {
		t.Run(fmt.Sprintf("point %d", point), func(t *testing.T) {
			must.Succeed(t, StartGood(volume))
			expectSet(t, volume, proven(t, volume))
		})
	}
	_, second := Set("2", Routes, Added, Listeners)
	for _, volume := range after {
		must.Succeed(t, StartGood(volume))
		expectSet(t, volume, second)
	}
}

// A start flushes the files from Docker.
func TestStartLosesPower(t *testing.T) {
	root, files := NewVolume(t)
	_, after := losing(t, root, func() {
		for _, path := range []string{"hot/" + Routes, "hot/" + Listeners, "state/committed.json"} {
			content := must.Get[[]byte](t)(os.ReadFile(filepath.Join(root, path)))
			if err := volume.WriteFile(filepath.Join(root, path), content); err != nil { // another file, not on the disk yet
				t.Fatal(err)
			}
		}
		must.Succeed(t, StartGood(root))
	})
	for _, volume := range after {
		must.Succeed(t, StartGood(volume))
		expectSet(t, volume, files)
	}
}

// After a power loss at any point of an end, the volume starts, without the expired rules.
func TestAnEndLosesPower(t *testing.T) {
	root, sets := newEnding(t)
	must.Succeed(t, StartGood(root))
	during, after := losing(t, root, func() {
		if err := (Volume{root, Resources, StartReader(root), moment(100)}.EndRules()); err != nil {
			t.Error(err)
		}
	})
	for _, volume := range slices.Concat(during, after) {
		must.Succeed(t, errors.Join(StartGood(volume), EndAtStart(volume, time.Unix(100, 0))))
		expectSet(t, volume, sets[1])
	}
}
