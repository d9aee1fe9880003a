// Package hotfile follows files that may change at any time. It reads one again when it has changed, and only then.
package hotfile

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// lookEvery is the interval at which a file is checked for a change although nobody asks. Whoever commits a file asks for
// its status, and has it checked at once; that nobody does is rare, and looking often keeps an idle machine busy.
const lookEvery = 500 * time.Millisecond

// File holds what was loaded from a file last. If the file can't be used, the loaded value stays in force, and the
// status reports the reason.
type File[T any] struct {
	path  string
	parse func(content []byte) (T, error)
	state atomic.Pointer[state[T]]

	refreshing   sync.Mutex
	seen, unread Identity // what was loaded or rejected last, and what could not be read
}

type state[T any] struct {
	value T
	Status
}

// Status says what is loaded, and the outcome of reading later files.
type Status struct {
	Digest  string `json:"digest"`  // SHA-256 of the loaded content, in hexadecimal, or "" if nothing was loaded yet
	Refused int    `json:"refused"` // number of rejected files since the start
	Reason  string `json:"reason"`  // why the newest file was rejected, or ""
}

// New returns a file with the zero value, of which nothing has been loaded yet.
func New[T any](path string, parse func(content []byte) (T, error)) *File[T] {
	file := &File[T]{path: path, parse: parse}
	file.state.Store(&state[T]{})
	return file
}

func (f *File[T]) Value() T { return f.state.Load().value }

func (f *File[T]) Status() Status { return f.state.Load().Status }

// Fresh loads the file if it has changed, and returns what is loaded then, together with its status.
func (f *File[T]) Fresh() (T, Status) {
	f.Refresh()
	now := f.state.Load()
	return now.value, now.Status
}

// Refresh loads the file if it is another one than the last time, or could not be read then. If it can't be used, nothing but the
// status changes.
func (f *File[T]) Refresh() {
	f.refreshing.Lock()
	defer f.refreshing.Unlock()
	now, before := Identify(f.path), f.state.Load()
	if now == f.seen {
		return
	}
	loaded := state[T]{Status: Status{Refused: before.Refused}}
	content, err := os.ReadFile(f.path)
	unread := err != nil && now.problem == ""
	if err == nil {
		loaded.Digest = fmt.Sprintf("%x", sha256.Sum256(content))
		if loaded.value, err = f.parse(content); err != nil {
			err = fmt.Errorf("%s: %w", f.path, err)
		}
	}
	switch {
	case err != nil && now != f.unread:
		f.state.Store(&state[T]{before.value, Status{before.Digest, before.Refused + 1, err.Error()}})
	case err == nil && (loaded.Digest != before.Digest || before.Reason != ""):
		f.state.Store(&loaded)
	}
	if Identify(f.path) != now {
		return // it has changed while it was read
	}
	if unread {
		f.unread = now
	} else {
		f.seen = now
	}
}

// Unmarshal reads the only JSON value of a file, which has no unknown fields.
func Unmarshal(content []byte, value any) error {
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(value); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is data after the value")
	}
	return nil
}

// Follow loads every change of the file, within half a second, for ever.
func (f *File[T]) Follow() {
	for range time.Tick(lookEvery) {
		f.Refresh()
	}
}

// Identity distinguishes contents of a file without reading it. The time of a change (st_ctim, stat(2)) can't be set by any
// program.
type Identity struct {
	device, inode uint64
	size          int64
	changed       syscall.Timespec
	problem       string
}

// Identify returns the identity of what a file is now. Those of two files that are not there for the same reason are equal.
func Identify(path string) Identity {
	var status syscall.Stat_t
	if err := syscall.Stat(path, &status); err != nil {
		return Identity{problem: err.Error()}
	}
	return Identity{uint64(status.Dev), status.Ino, status.Size, status.Ctim, ""}
}
