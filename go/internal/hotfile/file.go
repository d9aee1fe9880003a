// Package hotfile loads files again when they have changed.
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

// lookEvery is the interval of checks without a request. A commit requests the status, which checks the file at
// once. Frequent checks would keep an idle machine busy.
const lookEvery = 500 * time.Millisecond

// File holds a file's last usable content. An unusable newer file only changes the status, which has the reason.
type File[T any] struct {
	path  string
	parse func(content []byte) (T, error)
	state atomic.Pointer[state[T]]

	refreshing        sync.Mutex
	processed, unread Identity // last loaded or rejected, and last unreadable
}

type state[T any] struct {
	value T
	Status
}

// Status is the loaded content, and the outcome of reading later files.
type Status struct {
	Digest  string `json:"digest"`  // SHA-256 of the loaded content, in hexadecimal, or "" before the first
	Refused int    `json:"refused"` // rejected files since the start
	Reason  string `json:"reason"`  // why the newest file was rejected, or ""
}

// New returns a file that has loaded nothing yet, with the zero value.
func New[T any](path string, parse func(content []byte) (T, error)) *File[T] {
	file := &File[T]{path: path, parse: parse}
	file.state.Store(&state[T]{})
	return file
}

func (f *File[T]) Value() T { return f.state.Load().value }

func (f *File[T]) Status() Status { return f.state.Load().Status }

// Fresh loads the file if it has changed, and returns the current value and status.
func (f *File[T]) Fresh() (T, Status) {
	f.Refresh()
	now := f.state.Load()
	return now.value, now.Status
}

// Refresh loads the file if it has changed, or was unreadable last time. An unusable file only changes the status.
func (f *File[T]) Refresh() {
	f.refreshing.Lock()
	defer f.refreshing.Unlock()
	now, before := Identify(f.path), f.state.Load()
	if now == f.processed {
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
		return // it changed during the read
	}
	if unread {
		f.unread = now
	} else {
		f.processed = now
	}
}

// Unmarshal reads a file's only JSON value, without unknown fields.
func Unmarshal(content []byte, value any) error {
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(value); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the JSON value")
	}
	return nil
}

// Follow loads every change of the file within half a second, forever.
func (f *File[T]) Follow() {
	for range time.Tick(lookEvery) {
		f.Refresh()
	}
}

// Identity distinguishes contents of a file without reading it. No program can set the time of a change (stat(2)).
type Identity struct {
	device, inode uint64
	size          int64
	changed       syscall.Timespec
	problem       string
}

// Identify returns a file's current identity. Files that are missing for the same reason have the same one.
func Identify(path string) Identity {
	var status syscall.Stat_t
	if err := syscall.Stat(path, &status); err != nil {
		return Identity{problem: err.Error()}
	}
	return Identity{uint64(status.Dev), status.Ino, status.Size, status.Ctim, ""}
}
