package listening

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"clawker-fw/internal/must"
	"clawker-fw/internal/sockets"
)

// A socket is seen while it listens, over each transport and family, and no longer.
func TestListensAt(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", ":0"} {
		stream := must.Get[net.Listener](t)(net.Listen("tcp", address))
		datagrams := must.Get[net.PacketConn](t)(net.ListenPacket("udp", address))
		for place, socket := range map[net.Addr]interface{ Close() error }{stream.Addr(): stream, datagrams.LocalAddr(): datagrams} {
			if there, err := listensAt(sockets.Here, place); err != nil || !there {
				t.Errorf("%s %s: %t, %v", place.Network(), place, there, err)
			}
			socket.Close()
			if there, err := listensAt(sockets.Here, place); err != nil || there {
				t.Errorf("%s %s, closed: %t, %v", place.Network(), place, there, err)
			}
		}
	}
}

// The end is noticed of a listener that fails, and while the kernel's lists can't be read nothing is.
func TestAwaitEnd(t *testing.T) {
	listener := must.Open[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	ended, unreadable := make(chan bool, 1), make(chan bool, 1)
	go func() {
		awaitEnd(sockets.Here, listener.Addr())
		ended <- true
	}()
	folder := t.TempDir()
	must.Succeed(t, os.Symlink("nowhere", filepath.Join(folder, "tcp")))
	go func() {
		awaitEnd(folder, listener.Addr())
		unreadable <- true
	}()
	select {
	case <-ended:
		t.Fatal("it still listens")
	case <-time.After(lookEvery / 2):
	}
	file, err := listener.(*net.TCPListener).File()
	must.Succeed(t, err)
	defer file.Close()
	if err := syscall.Shutdown(int(file.Fd()), syscall.SHUT_RDWR); err != nil { // accept fails from now on
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Error("nobody has noticed")
	}
	select {
	case <-unreadable:
		t.Error("an unreadable list is no end")
	default:
	}
}
