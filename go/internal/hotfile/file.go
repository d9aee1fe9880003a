// Package hotfile is what the plugins share: each follows one file that may change at any time, and reports on a socket
// what it has loaded from it.
package hotfile

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// lookEvery is the interval at which a file is checked for a change. A stat costs next to nothing.
const lookEvery = 50 * time.Millisecond

// File holds what was loaded from a file last. If the file can't be used, the loaded value stays in force, and the
// status reports the reason.
type File[T any] struct {
	path  string
	parse func(content []byte) (T, error)
	state atomic.Pointer[state[T]]
	stop  chan struct{}
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
	file := &File[T]{path: path, parse: parse, stop: make(chan struct{})}
	file.state.Store(&state[T]{})
	return file
}

// Value returns what is loaded.
func (f *File[T]) Value() T { return f.state.Load().value }

// Status returns the status.
func (f *File[T]) Status() Status { return f.state.Load().Status }

// Snapshot returns what is loaded together with its status.
func (f *File[T]) Snapshot() (T, Status) {
	now := f.state.Load()
	return now.value, now.Status
}

// Load reads the file. If it can't be used, nothing but the status changes.
func (f *File[T]) Load() error {
	before := f.state.Load()
	value, digest, err := f.read()
	switch {
	case err != nil:
		f.state.Store(&state[T]{before.value, Status{before.Digest, before.Refused + 1, err.Error()}})
	case digest != before.Digest || before.Reason != "":
		f.state.Store(&state[T]{value, Status{Digest: digest, Refused: before.Refused}})
	}
	return err
}

func (f *File[T]) read() (value T, digest string, err error) {
	content, err := os.ReadFile(f.path)
	if err != nil {
		return value, "", err
	}
	if value, err = f.parse(content); err != nil {
		return value, "", fmt.Errorf("%s: %w", f.path, err)
	}
	sum := sha256.Sum256(content)
	return value, hex.EncodeToString(sum[:]), nil
}

// Follow loads every change of the file until Close is called. Nothing else may load it meanwhile.
func (f *File[T]) Follow() {
	ticks := time.NewTicker(lookEvery)
	defer ticks.Stop()
	var seen identity
	for {
		select {
		case <-f.stop:
			return
		case <-ticks.C:
			now := identify(f.path)
			if now == seen {
				continue
			}
			_ = f.Load() // the status reports the error
			// A file that changed while it was read is read again at the next tick.
			if identify(f.path) == now {
				seen = now
			}
		}
	}
}

// Close stops Follow.
func (f *File[T]) Close() { close(f.stop) }

// identity distinguishes contents of a file without reading it. The time of a change (st_ctim, stat(2)) can't be set
// by any program.
type identity struct {
	device, inode uint64
	size          int64
	changed       syscall.Timespec
	problem       string
}

func identify(path string) identity {
	var status syscall.Stat_t
	if err := syscall.Stat(path, &status); err != nil {
		return identity{problem: err.Error()}
	}
	return identity{uint64(status.Dev), status.Ino, status.Size, status.Ctim, ""}
}
