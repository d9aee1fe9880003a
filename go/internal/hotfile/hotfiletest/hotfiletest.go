// Package hotfiletest helps tests of programs that follow a file and report its status on a socket.
package hotfiletest

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"clawker-fw/internal/must"
)

// SocketPath returns a path for a socket. The path of t.TempDir would be too long for its address.
func SocketPath(t testing.TB) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "socket")
	must.Succeed(t, err)
	t.Cleanup(func() { os.RemoveAll(folder) })
	return filepath.Join(folder, "s")
}

// StatusFrom returns the status that a client of the socket receives.
func StatusFrom[Status any](t testing.TB, path string) (status Status) {
	t.Helper()
	connection, err := net.Dial("unix", path)
	must.Succeed(t, err)
	defer connection.Close()
	must.Succeed(t, connection.SetDeadline(time.Now().Add(10*time.Second)))
	must.Succeed(t, json.NewDecoder(connection).Decode(&status))
	return status
}

// Write writes a file in place.
func Write(t testing.TB, path, content string) {
	t.Helper()
	must.Succeed(t, os.WriteFile(path, []byte(content), 0o644))
}
