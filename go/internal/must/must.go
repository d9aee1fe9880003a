// Package must ends a test when its setup fails.
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

// Get returns the result of a call, and ends the test if it fails.
func Get[T any](t testing.TB) func(T, error) T {
	return func(result T, err error) T {
		t.Helper()
		Succeed(t, err)
		return result
	}
}

// Open returns the opened result of a call, and closes it when the test ends.
func Open[T io.Closer](t testing.TB) func(T, error) T {
	return func(opened T, err error) T {
		t.Helper()
		Succeed(t, err)
		t.Cleanup(func() { opened.Close() })
		return opened
	}
}

// BeRoot ends a test without root, with the reason for it.
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

// WriteUsers writes the kernel's files about a container with all user ids, whose process 1 has its own.
func WriteUsers(t *testing.T, proc string) {
	t.Helper()
	Write(t, proc, Tree{
		"self/uid_map": "         0          0 4294967295\n", "1/status": "Name:\tenvoy\nUid:\t4000000000\t4000000000\t4000000000\t4000000000\n",
	})
}

// SocketPath returns a path for a socket. That of t.TempDir would be too long.
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
