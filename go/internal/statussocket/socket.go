// Package statussocket answers fwctl on a socket: what a plugin of CoreDNS has loaded, for one.
package statussocket

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"time"
)

// acceptAgain is how long to wait after a failed accept.
const acceptAgain = 50 * time.Millisecond

// Listen creates the socket, replacing one left by an ended process. Everybody may open it, because fwctl connects as
// root without capabilities. Only processes in this container can see it.
func Listen(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	return listener, os.Chmod(path, 0o666)
}

// Prepare creates the socket as Listen does, for a process that may not: the file is handed down, and outlives it. Only root
// may open the socket.
func Prepare(path string) (*os.File, error) {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	listener.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, err
	}
	return listener.File()
}

// Tell answers each connection with the status, as one JSON object, until the listener is closed.
func Tell(listener net.Listener, status func() any) {
	Serve(listener, func(connection net.Conn) {
		_ = json.NewEncoder(connection).Encode(status()) // a client that has gone needs no answer
	})
}

// Serve has each connection answered, one after the other, and closes it, until the listener is closed. A failed accept,
// for want of a file descriptor for example, is retried: without its status the process would count as dead.
func Serve(listener net.Listener, answer func(net.Conn)) {
	for {
		connection, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(acceptAgain)
			continue
		}
		answer(connection)
		_ = connection.Close()
	}
}
