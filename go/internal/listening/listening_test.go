package listening

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A socket is seen while it listens, over each transport and family, and no longer.
func TestListensAt(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", ":0"} {
		stream, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		datagrams, err := net.ListenPacket("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		for place, socket := range map[net.Addr]interface{ Close() error }{stream.Addr(): stream, datagrams.LocalAddr(): datagrams} {
			if there, err := listensAt(sockets, place); err != nil || !there {
				t.Errorf("%s %s: %t, %v", place.Network(), place, there, err)
			}
			socket.Close()
			if there, err := listensAt(sockets, place); err != nil || there {
				t.Errorf("%s %s, closed: %t, %v", place.Network(), place, there, err)
			}
		}
	}
}

// A connection, or a socket that is bound and does not listen, is none that listens.
func TestOnlyWhoListens(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	connection, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	listener.Close()
	if there, err := listensAt(sockets, listener.Addr()); err != nil || there {
		t.Errorf("%t, %v", there, err)
	}
}

// The end is noticed of a listener that fails, and while the kernel's lists can't be read nothing is.
func TestAwaitEnd(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ended, unreadable := make(chan bool, 1), make(chan bool, 1)
	go func() {
		awaitEnd(sockets, listener.Addr())
		ended <- true
	}()
	folder := t.TempDir()
	if err := os.Symlink("nowhere", filepath.Join(folder, "tcp")); err != nil {
		t.Fatal(err)
	}
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
	if err != nil {
		t.Fatal(err)
	}
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
