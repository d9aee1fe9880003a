package policy

import (
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"clawker-fw/coredns/hotfile"
)

// socketPath returns a path for a socket. The path of t.TempDir would be too long for its address.
func socketPath(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "policy")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	return filepath.Join(folder, "s")
}

// statusFrom returns the status that a client of the socket receives.
func statusFrom(t *testing.T, path string) Status {
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
	var status Status
	if err := json.Unmarshal(text, &status); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return status
}

// A client of the socket receives the current status once: the live digest, the rejected files and the reason.
func TestStatusSocket(t *testing.T) {
	path, file := socketPath(t), filepath.Join(t.TempDir(), "names.json")
	write(t, file, listOf("a.test"))
	source, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := hotfile.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		hotfile.Tell(listener, func() any { return source.status() })
		close(ended)
	}()
	digest := source.Status().Digest
	first := statusFrom(t, path)
	if first != (Status{first.Build, hotfile.Status{Digest: digest}, 1}) || len(first.Build) <= len("CoreDNS-") {
		t.Errorf("got %+v", first)
	}
	write(t, file, "{}")
	_ = source.Load()

	second := statusFrom(t, path)

	if reason := file + ": names is missing; write {} for an empty list"; second != (Status{first.Build, hotfile.Status{Digest: digest, Refused: 1, Reason: reason}, 1}) {
		t.Errorf("got %+v", second)
	}
	listener.Close()
	<-ended
}
