package usage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"clawker-fw/internal/statussocket"
)

// Socket is where fwctl asks the recorder what it knows. Only root may open it.
const Socket = "/tmp/usage.sock"

const answersWithin = 5 * time.Second

// Given is how many files the keeper hands to a recorder that keeps a history: the socket, and those that it writes.
const Given = 1 + slots

// Prepare opens what a recorder is given that keeps a history, to be handed down. It outlives the recorder.
func Prepare(root, socket string) ([]*os.File, error) {
	file, err := statussocket.Prepare(socket, 0o600)
	if err != nil {
		return nil, err
	}
	files, err := Open(root)
	if err != nil {
		return nil, fmt.Errorf("the files with what was used: %w", err)
	}
	return append([]*os.File{file}, files...), nil
}

// Keeper takes lines, answers questions about them and writes what it knows.
type Keeper struct {
	*Table
	writing sync.Mutex
	kept    kept
}

// Keep goes on with what an earlier recorder has left in the files that it is given.
func Keep(given []*os.File, own []netip.Addr) (*Keeper, error) {
	if len(given) != Given {
		return nil, fmt.Errorf("a recorder of what is used needs %d files, and got %d", Given, len(given))
	}
	listener, err := net.FileListener(given[0])
	if err != nil {
		return nil, err
	}
	found := &Keeper{Table: New(own, time.Now), kept: kept{files: given[1:]}}
	if left, there := found.kept.left(); there {
		found.Restore(left)
	}
	go statussocket.Serve(listener, 1, found.converse)
	go func() {
		for range time.Tick(writeEvery) {
			found.write()
		}
	}()
	return found, nil
}

// write writes what is known. On a full disk it is in memory, and is written later.
func (k *Keeper) write() error {
	k.writing.Lock()
	defer k.writing.Unlock()
	return k.kept.write(k.Table)
}

// Said is what fwctl says to the recorder: nothing, to ask, or what a sibling knew that this one has replaced.
type Said struct {
	Inherit *History `json:"inherit"`
}

// Inherited is what became of that.
type Inherited struct {
	Added bool `json:"added"` // false if it was known already
}

// reply is the answer: one of the two, or why there is none.
type reply struct {
	History   History   `json:"history"`
	Inherited Inherited `json:"inherited"`
	Error     string    `json:"error,omitempty"`
}

func (k *Keeper) converse(connection net.Conn) {
	_ = connection.SetDeadline(time.Now().Add(answersWithin))
	var said Said
	var answer reply
	switch err := json.NewDecoder(io.LimitReader(connection, mostWritten)).Decode(&said); {
	case err != nil:
		answer.Error = err.Error()
	case said.Inherit == nil:
		answer.History = k.History()
	default:
		answer.Inherited.Added = k.Inherit(*said.Inherit)
		if err := k.write(); err != nil {
			answer.Error = err.Error()
		}
	}
	_ = json.NewEncoder(connection).Encode(answer) // a client that has gone needs no answer
}

// Ask returns what the recorder at a socket knows.
func Ask(socket string) (History, error) {
	answer, err := converse(socket, Said{})
	return answer.History, err
}

// Give tells the recorder at a socket what a sibling knew that was replaced.
func Give(socket string, size int64, from io.Reader) (Inherited, error) {
	if size <= 0 || size > mostWritten {
		return Inherited{}, fmt.Errorf("%d octets are no history", size)
	}
	content := make([]byte, size)
	if _, err := io.ReadFull(from, content); err != nil {
		return Inherited{}, err
	}
	var known History
	if err := json.Unmarshal(content, &known); err != nil {
		return Inherited{}, err
	}
	if err := known.verify(); err != nil {
		return Inherited{}, err
	}
	answer, err := converse(socket, Said{&known})
	return answer.Inherited, err
}

func converse(socket string, said Said) (reply, error) {
	var answer reply
	if err := statussocket.Ask(socket, answersWithin, said, &answer); err != nil {
		return answer, fmt.Errorf("the recorder does not answer: %w", err)
	}
	if answer.Error != "" {
		return answer, errors.New(answer.Error)
	}
	return answer, nil
}
