package policy

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"time"

	"github.com/coredns/coredns/coremain"
)

// Status is what the process reports on its socket, a file in the container that no agent can open.
type Status struct {
	Build   string `json:"build"`
	Digest  string `json:"digest"`  // SHA-256 of the current list, in hexadecimal
	Names   int    `json:"names"`   // number of names in the list
	Refused int    `json:"refused"` // number of rejected files since the start
	Reason  string `json:"reason"`  // why the newest file was rejected, or ""
}

// status returns a consistent snapshot of list and rejections.
func (s *Source) status() Status {
	now := s.state.Load()
	return Status{"CoreDNS-" + coremain.CoreVersion, now.list.digest, len(now.list.names), now.refused, now.reason}
}

// listen creates the socket, replacing one left by an ended process. Everybody may open it, because fwctl connects as
// root without capabilities. Only processes in this container can see it.
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

// tell answers each connection with the status, as one JSON object, until the listener is closed. A failed accept,
// for want of a file descriptor for example, is retried: without its status the process would count as dead.
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
		_ = json.NewEncoder(connection).Encode(s.status()) // a client that has gone needs no answer
		_ = connection.Close()
	}
}
