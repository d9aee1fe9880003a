// Package filetest writes files for tests, and compares them.
package filetest

import (
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
