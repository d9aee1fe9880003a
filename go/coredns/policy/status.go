package policy

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"time"

	"github.com/coredns/coredns/coremain"
)

// Status is what the process says of itself to whoever opens its socket: no agent can, it is a file in the container.
type Status struct {
	Build   string `json:"build"`
	Digest  string `json:"digest"`  // SHA-256 of the list in force, in hexadecimal
	Names   int    `json:"names"`   // how many names the list speaks of
	Refused int    `json:"refused"` // how many files could not be used since the start
	Reason  string `json:"reason"`  // why the newest file can't be used, else ""
}

// status is one consistent view: list and refusals of the same moment.
func (s *Source) status() Status {
	now := s.state.Load()
	return Status{"CoreDNS-" + coremain.CoreVersion, now.list.digest, len(now.list.names), now.refused, now.reason}
}

// listen makes the socket, in place of one that an ended process has left. Who asks is root without any privilege, so
// everybody may; only processes in this container can see it.
func listen(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	return listener, os.Chmod(path, 0o666)
}

// tell answers each connection with the status, as one JSON object, until the listener is closed. One that can't be
// taken, for want of a descriptor, is not the end: who is never heard of again is taken for dead.
func (s *Source) tell(listener net.Listener) {
	for {
		connection, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(lookEvery)
			continue
		}
		_ = json.NewEncoder(connection).Encode(s.status()) // who has gone away needs no answer
		_ = connection.Close()
	}
}
