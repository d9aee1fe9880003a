package statussocket

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"clawker-fw/internal/hotfile"
	"clawker-fw/internal/must"
)

// Each client of the socket receives the current status once.
func TestTell(t *testing.T) {
	path := must.SocketPath(t)
	listener, err := Listen(path, 0o666)
	must.Succeed(t, err)
	answered := atomic.Int64{}
	ended := make(chan struct{})
	go func() {
		Tell(listener, func() any { return hotfile.Status{Refused: int(answered.Add(1))} })
		close(ended)
	}()
	gone := must.Get[net.Conn](t)(net.Dial("unix", path))
	gone.Close() // a client that goes away does not block others
	for count := range 3 {
		var status hotfile.Status
		if must.Succeed(t, Ask(path, 10*time.Second, nil, &status)); status.Refused != count+2 {
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

// A failed accept does not end the status server, because a process without a status would count as dead.
func TestTellGoesOn(t *testing.T) {
	path := must.SocketPath(t)
	listener, err := Listen(path, 0o666)
	must.Succeed(t, err)
	ended := make(chan struct{})
	go func() {
		Tell(&failing{listener, 2}, func() any { return hotfile.Status{Refused: 1} })
		close(ended)
	}()
	defer func() { <-ended }()
	defer listener.Close()

	var status hotfile.Status
	if must.Succeed(t, Ask(path, 10*time.Second, nil, &status)); status.Refused != 1 {
		t.Errorf("got %+v", status)
	}
}

// The socket replaces one left by an ended process, and everybody may open it.
func TestListen(t *testing.T) {
	path := must.SocketPath(t)
	must.Put(t, path, "left behind")
	listener, err := Listen(path, 0o666)
	must.Succeed(t, err)
	defer listener.Close()
	if info, err := os.Stat(path); err != nil || info.Mode() != os.ModeSocket|0o666 {
		t.Errorf("got %v, %v", info.Mode(), err)
	}
	if _, err := Listen(filepath.Join(path, "below"), 0o666); err == nil {
		t.Error("a socket below a socket")
	}
}
