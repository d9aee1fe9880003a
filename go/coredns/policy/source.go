package policy

import (
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// lookEvery is how often the file is looked at: a stat costs nothing, and a change is live in a twentieth of a second.
const lookEvery = 50 * time.Millisecond

// Source holds the list in force, and follows its file. A file that can't be used leaves the list in force, and says
// why.
type Source struct {
	path  string
	state atomic.Pointer[state]
	stop  chan struct{}
}

// state is one list with what became of the files after it.
type state struct {
	list    *List
	refused int    // how many files could not be used since the start
	reason  string // why the newest file can't be used, else ""
}

// Open reads the list for the first time.
func Open(path string) (*Source, error) {
	source := &Source{path: path, stop: make(chan struct{})}
	list, err := read(path)
	if err != nil {
		return nil, err
	}
	source.state.Store(&state{list: list})
	return source, nil
}

// List is the one in force.
func (s *Source) List() *List { return s.state.Load().list }

// Follow takes over each change of the file until Close.
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
			// What was written while we read is read again at the next tick.
			if identify(s.path) == now {
				seen = now
			}
		}
	}
}

// Close ends Follow.
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

// identity tells one content of a file from another. Nobody can set the time of a change back (stat(2), st_ctim).
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
