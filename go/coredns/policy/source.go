package policy

import (
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// lookEvery is the interval at which the file is checked for a change. A stat costs next to nothing.
const lookEvery = 50 * time.Millisecond

// Source holds the current list and follows its file. If the file can't be used, the current list stays in force, and
// the status reports the reason.
type Source struct {
	path  string
	state atomic.Pointer[state]
	stop  chan struct{}
}

// state is the current list, and the outcome of reading later files.
type state struct {
	list    *List
	refused int    // number of rejected files since the start
	reason  string // why the newest file was rejected, or ""
}

// Open creates a source and reads its list.
func Open(path string) (*Source, error) {
	source := &Source{path: path, stop: make(chan struct{})}
	list, err := read(path)
	if err != nil {
		return nil, err
	}
	source.state.Store(&state{list: list})
	return source, nil
}

// List returns the current list.
func (s *Source) List() *List { return s.state.Load().list }

// Follow loads every change of the file until Close is called.
func (s *Source) Follow() {
	ticks := time.NewTicker(lookEvery)
	defer ticks.Stop()
	var seen identity
	for {
		select {
		case <-s.stop:
			return
		case <-ticks.C:
			now := identify(s.path)
			if now == seen {
				continue
			}
			s.take()
			// A file that changed while it was read is read again at the next tick.
			if identify(s.path) == now {
				seen = now
			}
		}
	}
}

// Close stops Follow.
func (s *Source) Close() { close(s.stop) }

func (s *Source) take() {
	before := s.state.Load()
	list, err := read(s.path)
	switch {
	case err != nil:
		s.state.Store(&state{before.list, before.refused + 1, err.Error()})
	case list.digest != before.list.digest || before.reason != "":
		s.state.Store(&state{list: list, refused: before.refused})
	}
}

func read(path string) (*List, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	list, err := Parse(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return list, nil
}

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
