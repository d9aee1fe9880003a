package usage

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"clawker-fw/internal/statussocket"
)

// What is known outlives the container in two files of its volume, which are written in turn: a further file in the volume,
// even for a moment, would be a difference, and one that is cut off while it is written leaves the other. The checksum of gzip
// (RFC 1952) tells.
const (
	slots = 2
	// writeEvery is how long what is known may be in memory alone.
	writeEvery = 45 * time.Second
	// mostWritten is how much of a file is read: far more than mostUses take.
	mostWritten = 16 << 20
)

type kept struct {
	files   []*os.File
	turn    uint64 // counts what was written
	written uint64 // the changes that the table had then
}

// slot is what one file has. The turn tells which of two was written last, whatever the clock said.
type slot struct {
	History
	Turn uint64 `json:"turn"`
}

// left returns what the files have, the latest of it. An empty file has nothing, and neither has one that was cut off.
func (k *kept) left() (History, bool) {
	var found slot
	there := false
	for at, file := range k.files {
		each, err := readFrom(io.NewSectionReader(file, 0, mostWritten))
		if err == nil && (!there || cmp.Or(cmp.Compare(each.Turn, found.Turn), cmp.Compare(each.Now, found.Now)) > 0) {
			found, there = each, true
			k.turn = max(each.Turn, uint64(at)+1) // the other one is written next
		}
	}
	return found.History, there
}

func readFrom(file io.Reader) (slot, error) {
	var found slot
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		return found, err
	}
	unzipped.Multistream(false) // what follows is of a longer one before
	content, err := io.ReadAll(io.LimitReader(unzipped, mostWritten))
	if err != nil {
		return found, err
	}
	if err := json.Unmarshal(content, &found); err != nil {
		return found, err
	}
	return found, found.verify()
}

func (h History) verify() error {
	if h.ID == "" || h.Since <= 0 || h.Now < h.Since {
		return errors.New("this is no history of what was used")
	}
	return nil
}

func (k *kept) write(table *Table) error {
	known, changes := table.changed(k.written)
	if known == nil {
		return nil
	}
	var content bytes.Buffer
	zipped, err := gzip.NewWriterLevel(&content, gzip.BestSpeed)
	if err != nil {
		return err
	}
	if err := errors.Join(json.NewEncoder(zipped).Encode(slot{*known, k.turn + 1}), zipped.Close()); err != nil {
		return err
	}
	file := k.files[k.turn%slots]
	if _, err := file.WriteAt(content.Bytes(), 0); err != nil {
		return err // the other file has what was known before
	}
	k.turn++
	k.written = changes
	return cmp.Or(file.Truncate(int64(content.Len())), file.Sync())
}

func (t *Table) changed(written uint64) (*History, uint64) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if t.changes == written {
		return nil, written
	}
	found := t.history(0)
	return &found, t.changes
}

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
	given, folder := []*os.File{file}, filepath.Join(root, "state")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	for at := range slots {
		path := filepath.Join(folder, fmt.Sprintf("usage-%d.json.gz", at))
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
		if err != nil {
			return nil, fmt.Errorf("the files with what was used: %w", err)
		}
		given = append(given, file)
	}
	return given, nil
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

func (k *Keeper) write() error {
	k.writing.Lock()
	defer k.writing.Unlock()
	return k.kept.write(k.Table)
}

// Said is what fwctl says to the recorder: nothing, to ask, or what a sibling knew that this one has replaced.
type Said struct {
	Inherit *History `json:"inherit"`
}

type Inherited struct {
	Added bool `json:"added"` // false if it was known already
}

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
