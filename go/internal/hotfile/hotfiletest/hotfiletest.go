// Package hotfiletest helps tests of programs that follow a file and report its status on a socket.
package hotfiletest

import (
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// SocketPath returns a path for a socket. The path of t.TempDir would be too long for its address.
func SocketPath(t testing.TB) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "socket")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	return filepath.Join(folder, "s")
}

// StatusFrom returns the status that a client of the socket receives.
func StatusFrom[Status any](t testing.TB, path string) (status Status) {
	t.Helper()
	connection, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(connection)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &status); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return status
}

// Write writes a file in place.
func Write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Until waits until a condition is true.
func Until(t testing.TB, what string, holds func() bool) {
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
