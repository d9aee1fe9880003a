// Package must ends a test in which something has failed that it builds on, such as the files that it writes.
package must

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"clawker-fw/internal/volume"
)

func Succeed(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Get returns the result of a call, and ends a test if it has failed.
func Get[T any](t testing.TB) func(T, error) T {
	return func(result T, err error) T {
		t.Helper()
		Succeed(t, err)
		return result
	}
}

// Open returns what a call has opened, which is closed when the test ends.
func Open[T io.Closer](t testing.TB) func(T, error) T {
	return func(opened T, err error) T {
		t.Helper()
		Succeed(t, err)
		t.Cleanup(func() { opened.Close() })
		return opened
	}
}

// BeRoot ends a test that needs root, and says for what.
func BeRoot(t testing.TB, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this needs root, " + why)
	}
}

func Happen(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for limit := time.After(20 * time.Second); !holds(); {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not in time: %s", what)
		}
	}
}

// Tree maps the paths in a folder to their contents.
type Tree map[string]string

func Write(t *testing.T, folder string, files Tree) {
	t.Helper()
	for path, content := range files {
		Succeed(t, volume.WriteFile(filepath.Join(folder, path), []byte(content)))
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
	folder := Get[string](t)(os.MkdirTemp("", "socket"))
	t.Cleanup(func() { os.RemoveAll(folder) })
	return filepath.Join(folder, "s")
}

func Put(t testing.TB, path, content string) {
	t.Helper()
	Succeed(t, os.WriteFile(path, []byte(content), 0o644))
}
