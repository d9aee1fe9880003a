// Package statussocket is how fwctl and the processes beside it talk: over sockets in their container, in JSON.
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

// Listen creates the socket, replacing one left by an ended process. Its mode says who may open it: root without
// capabilities needs it as anybody does. Only processes in this container can see it.
func Listen(path string, mode os.FileMode) (net.Listener, error) {
	file, err := Prepare(path, mode)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return net.FileListener(file)
}

// Prepare creates the socket as Listen does, for a process that may not: the file is handed down, and outlives it. Its mode
// says who may open the socket.
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

// Handed returns the file with which a socket is handed down, and closes the socket here.
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

// Ask connects to a socket, says something unless it is nil, and reads the answer: one JSON object each way, within a time.
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
			return fmt.Errorf("asking at %s: %w", path, err)
		}
	}
	if err := json.NewDecoder(connection).Decode(answer); err != nil {
		return fmt.Errorf("the answer at %s: %w", path, err)
	}
	return nil
}

// Tell answers each connection with the status, as one JSON object, until the listener is closed.
func Tell(listener net.Listener, status func() any) {
	Serve(listener, 1, func(connection net.Conn) {
		_ = json.NewEncoder(connection).Encode(status()) // a client that has gone needs no answer
	})
}

// Serve has each connection answered, so many at once, and closes it, until the listener is closed. Further ones wait. A failed
// accept, for want of a file descriptor for example, is retried: without its status the process would count as dead.
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

// Plugin is what a plugin of CoreDNS reports of itself on its socket.
type Plugin struct {
	Build string `json:"build,omitempty"` // from the policy plugin alone
	hotfile.Status
	Telemetry
}

// Telemetry counts the records since the program's start: those that a collector has taken, and those that it has not.
type Telemetry struct {
	Sent      uint64       `json:"sent"`
	Lost      uint64       `json:"lost"`
	Collector *Certificate `json:"collector,omitempty"` // from CoreDNS alone
}

// Certificate is what a collector has shown of itself at the last handshake. Times are in seconds since 1970.
type Certificate struct {
	Subject string   `json:"subject"`
	Names   []string `json:"names"` // DNS names and addresses
	Begins  int64    `json:"begins"`
	Ends    int64    `json:"ends"`
	Digest  string   `json:"sha256"` // in hexadecimal
}
