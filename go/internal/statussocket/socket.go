// Package statussocket exchanges JSON between fwctl and its helpers, over sockets in their container.
package statussocket

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"clawker-fw/internal/hotfile"
)

const acceptAgain = 50 * time.Millisecond

// Listen creates the socket, replacing one left by an ended process. Its mode decides who may open it: root
// without capabilities needs it too. Only processes in this container can see it.
func Listen(path string, mode os.FileMode) (net.Listener, error) {
	file, err := Prepare(path, mode)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return net.FileListener(file)
}

// Prepare creates the socket like Listen, for another process: the file is handed down, and outlives the process.
func Prepare(path string, mode os.FileMode) (*os.File, error) {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	listener.SetUnlinkOnClose(false)
	return Handed(listener, os.Chmod(path, mode))
}

// Handed returns a socket's file to be handed down, and closes the socket here.
func Handed[Socket interface {
	File() (*os.File, error)
	Close() error
}](socket Socket, err error) (*os.File, error) {
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	return socket.File()
}

// Ask connects to a socket, sends a question unless it is nil, and reads the answer: one JSON object each way.
func Ask(path string, within time.Duration, question, answer any) error {
	connection, err := net.DialTimeout("unix", path, within)
	if err != nil {
		return err
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	if question != nil {
		if err := json.NewEncoder(connection).Encode(question); err != nil {
			return fmt.Errorf("asking %s: %w", path, err)
		}
	}
	if err := json.NewDecoder(connection).Decode(answer); err != nil {
		return fmt.Errorf("the answer of %s: %w", path, err)
	}
	return nil
}

// Tell answers each connection with the status, as a JSON object, until the listener is closed.
func Tell(listener net.Listener, status func() any) {
	Serve(listener, 1, func(connection net.Conn) {
		_ = json.NewEncoder(connection).Encode(status()) // the client may be gone
	})
}

// Serve answers connections, at most so many in parallel, and closes them, until the listener is closed. A failed
// accept, as without file descriptors, is retried: without its status, a process would count as dead.
func Serve(listener net.Listener, most int, answer func(net.Conn)) {
	room := make(chan struct{}, most)
	for {
		room <- struct{}{}
		connection, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		go func() {
			defer func() { <-room }()
			if err != nil {
				time.Sleep(acceptAgain)
				return
			}
			defer connection.Close()
			answer(connection)
		}()
	}
}

// Plugin is the status of a CoreDNS plugin.
type Plugin struct {
	Build string `json:"build,omitempty"` // only of the policy plugin
	hotfile.Status
	Telemetry
}

// Telemetry counts the records since the program's start: accepted by a collector, and lost.
type Telemetry struct {
	Sent      uint64       `json:"sent"`
	Lost      uint64       `json:"lost"`
	Collector *Certificate `json:"collector,omitempty"` // only of CoreDNS
}

// Certificate is a collector's certificate at the last handshake. Times are in seconds since 1970.
type Certificate struct {
	Subject string   `json:"subject"`
	Names   []string `json:"names"` // DNS names and addresses
	Begins  int64    `json:"begins"`
	Ends    int64    `json:"ends"`
	Digest  string   `json:"sha256"` // in hexadecimal
}
