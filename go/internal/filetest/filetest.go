// Package filetest writes files for tests, and compares them.
package filetest

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"clawker-fw/internal/must"
	"clawker-fw/internal/volume"
)

// Tree maps the paths in a folder to their contents.
type Tree map[string]string

func Write(t *testing.T, folder string, files Tree) {
	t.Helper()
	for path, content := range files {
		must.Succeed(t, volume.WriteFile(filepath.Join(folder, path), []byte(content)))
	}
}

func Read(t *testing.T, folder string) Tree {
	t.Helper()
	paths := must.Get[[]string](t)(volume.FilesBelow(folder))
	files := Tree{}
	for _, path := range paths {
		content := must.Get[[]byte](t)(os.ReadFile(filepath.Join(folder, path)))
		files[path] = string(content)
	}
	return files
}

// Expect fails unless a folder has exactly these files.
func Expect(t *testing.T, folder string, wanted Tree) {
	t.Helper()
	if found := Read(t, folder); !maps.Equal(found, wanted) {
		t.Errorf("%s has %v, expected %v", filepath.Base(folder), found, wanted)
	}
}

// ExpectAbsent fails if something of these names is in a folder.
func ExpectAbsent(t *testing.T, root string, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := os.Lstat(filepath.Join(root, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there (%v)", name, err)
		}
	}
}

// WriteUsers writes what the kernel says of a container with all user ids, and of a process 1 that has one of its own.
func WriteUsers(t *testing.T, proc string) {
	t.Helper()
	Write(t, proc, Tree{
		"self/uid_map": "         0          0 4294967295\n", "1/status": "Name:\tenvoy\nUid:\t4000000000\t4000000000\t4000000000\t4000000000\n",
	})
}

// SocketPath returns a path for a socket. The path of t.TempDir would be too long for its address.
func SocketPath(t testing.TB) string {
	t.Helper()
	folder := must.Get[string](t)(os.MkdirTemp("", "socket"))
	t.Cleanup(func() { os.RemoveAll(folder) })
	return filepath.Join(folder, "s")
}

func Put(t testing.TB, path, content string) {
	t.Helper()
	must.Succeed(t, os.WriteFile(path, []byte(content), 0o644))
}
