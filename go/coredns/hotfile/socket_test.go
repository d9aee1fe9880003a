package hotfile

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// socketPath returns a path for a socket. The path of t.TempDir would be too long for its address.
func socketPath(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "socket")
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

// Each client of the socket receives the current status once.
func TestTell(t *testing.T) {
	path := socketPath(t)
	listener, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	told := atomic.Int64{}
	ended := make(chan struct{})
	go func() {
		Tell(listener, func() any { return Status{Refused: int(told.Add(1))} })
		close(ended)
	}()
	gone, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	gone.Close() // a client that goes away does not block others
	for count := range 3 {
		if status := statusFrom(t, path); status.Refused != count+2 {
			t.Errorf("got %+v", status)
		}
	}
	listener.Close()
	<-ended
	if connection, err := net.Dial("unix", path); err == nil {
		connection.Close()
		t.Error("it answers after its end")
	}
}

// failing is a listener whose first accepts fail, as without a free file descriptor.
type failing struct {
	net.Listener
	left int
}

func (f *failing) Accept() (net.Conn, error) {
	if f.left > 0 {
		f.left--
		return nil, errors.New("too many open files")
	}
	return f.Listener.Accept()
}

// A failed accept does not end the status server, since a process without a status would count as dead.
func TestTellGoesOn(t *testing.T) {
	path := socketPath(t)
	listener, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		Tell(&failing{listener, 2}, func() any { return Status{Refused: 1} })
		close(ended)
	}()
	defer func() { <-ended }()
	defer listener.Close()

	if status := statusFrom(t, path); status.Refused != 1 {
		t.Errorf("got %+v", status)
	}
}

// The socket replaces one left by an ended process, and everybody may open it.
func TestListen(t *testing.T) {
	path := socketPath(t)
	write(t, path, "left behind")
	listener, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if info, err := os.Stat(path); err != nil || info.Mode() != os.ModeSocket|0o666 {
		t.Errorf("got %v, %v", info.Mode(), err)
	}
	if _, err := Listen(filepath.Join(path, "below")); err == nil {
		t.Error("a socket below a socket")
	}
}
