package start

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/hot"
	"clawker-fw/internal/kernel"
	"clawker-fw/internal/lookups"
	"clawker-fw/internal/page"
	"clawker-fw/internal/refusals"
	"clawker-fw/internal/signing"
	"clawker-fw/internal/statussocket"
	"clawker-fw/internal/usage"
	"clawker-fw/internal/users"
)

// The keeper starts the helpers of a program, and starts one again that has ended: `fwctl keep`. It also knows when rules
// end, and starts `fwctl end` then. It does nothing else, reads nothing from any agent, and has only the capabilities
// that it takes to start a process of another user, and that `fwctl end` needs. It outlives its helpers and ends with the
// container, as they do.

// The sockets that the keeper is given: on the first it says that all helpers have started; the others, of a sibling
// that limits agents, are the recorder's.
const (
	startedSocket = companionSocket + iota
	refusalsSocket
	linesSocket
)

// A helper is started again at once, and each time after twice as long if it ends again. One that has run for
// restartForgotten begins anew.
const (
	restartSoonest   = 100 * time.Millisecond
	restartLatest    = 10 * time.Second
	restartForgotten = time.Minute
)

var keeping = []uint{unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_CHOWN}

type helper struct {
	companion
	sockets []*os.File
	delay   time.Duration // before its next start
	began   time.Time
}

type ending struct {
	helper *helper
	reason string
}

// Keep starts the helpers and says so, and starts each again that ends.
func Keep(root string, sibling boot.Sibling) error {
	// Only this thread starts helpers, and hands down none of its privileges.
	runtime.LockOSThread()
	end, ended, err := newEnder(root)
	if err != nil {
		return err
	}
	if err := inherit(); err != nil {
		return err
	}
	for _, each := range []int{startedSocket, refusalsSocket, linesSocket} {
		unix.CloseOnExec(each)
	}
	// From here on, nothing waits for the reader of the log: neither the keeper nor a helper, which inherits this.
	if os.Stderr, err = neverWaits(os.Stderr); err != nil {
		return err
	}
	restarts, err := newRestarts(root)
	if err != nil {
		return err
	}
	ends := make(chan ending)
	kept, err := keptBy(root, sibling)
	if err != nil {
		return err
	}
	for _, each := range kept {
		if err := each.begin(ends); err != nil {
			return fmt.Errorf("starting the %s: %w", each.name(), err)
		}
	}
	started := os.NewFile(startedSocket, "started")
	if _, err := started.Write([]byte{1}); err != nil {
		return err
	}
	if err := started.Close(); err != nil {
		return err
	}
	again := make(chan *helper)
	clock := hot.NewDeadline(root)
	look := time.After(0)
	for {
		select {
		case now := <-look:
			due, wait := clock.Due(now)
			if !due {
				look = time.After(wait)
				continue
			}
			look = nil
			end <- struct{}{}
		case err := <-ended:
			if look = time.After(0); err != nil {
				fmt.Fprintf(os.Stderr, "fwctl: ending rules: %v\n", err)
				look = time.After(hot.EndAgain)
			}
		case end := <-ends:
			fmt.Fprintf(os.Stderr, "fwctl: the %s has ended: %s\n", end.helper.name(), end.reason)
			if err := restarts.add(end.helper.name(), end.reason, time.Now(), sinceStart()); err != nil {
				fmt.Fprintf(os.Stderr, "fwctl: counting that: %v\n", err)
			}
			time.AfterFunc(end.helper.pause(time.Now()), func() { again <- end.helper })
		case each := <-again:
			if err := each.begin(ends); err != nil {
				go func() { ends <- ending{each, err.Error()} }()
			}
		}
	}
}

// newEnder returns what starts `fwctl end` when it is asked to, and tells how that has ended. It does so on a thread of its
// own, the only one that hands down privileges: a thread that has given them up can't take them back.
func newEnder(root string) (chan<- struct{}, <-chan error, error) {
	asked, ended, ready := make(chan struct{}, 1), make(chan error), make(chan error)
	go func() {
		runtime.LockOSThread()
		err := inherit(forEnding...)
		ready <- err
		for range asked {
			process, err := newCompanion(root, 0, EndVerb).start()
			if err == nil {
				err = process.Wait()
			}
			ended <- err
		}
	}()
	return asked, ended, <-ready
}

func keptBy(root string, sibling boot.Sibling) ([]*helper, error) {
	var found []*helper
	for _, each := range helpersOf(root, sibling) {
		sockets, err := socketsFor(each.verb(), root, sibling)
		if err != nil {
			return nil, err
		}
		found = append(found, &helper{companion: each, sockets: sockets})
	}
	return found, nil
}

func socketsFor(verb, root string, sibling boot.Sibling) ([]*os.File, error) {
	switch verb {
	case ForwardVerb:
		return lookups.Listen(sibling.Forwarder.Listen)
	case SignVerb:
		return signing.Listen(sibling.Signer.Folder, signing.Resting(root))
	}
	told, err := statussocket.Prepare(refusals.Socket, 0o600)
	found := []*os.File{os.NewFile(refusalsSocket, "refusals"), os.NewFile(linesSocket, "lines"), told}
	if err == nil && sibling.Page != nil {
		var socket *os.File
		socket, err = page.Listen(*sibling.Page)
		found = append(found, socket)
	}
	if err == nil && sibling.Usage != nil {
		var files []*os.File
		files, err = usage.Prepare(root, usage.Socket)
		found = append(found, files...)
	}
	return found, err
}

func (h *helper) begin(ends chan<- ending) error {
	h.began = time.Now()
	process, err := h.start(h.sockets...)
	if err != nil {
		return err
	}
	go func() {
		reason := "exit status 0"
		if err := process.Wait(); err != nil {
			reason = err.Error()
		}
		ends <- ending{h, reason}
	}()
	return nil
}

func (h *helper) pause(now time.Time) time.Duration {
	h.delay = min(max(2*h.delay, restartSoonest), restartLatest)
	if now.Sub(h.began) >= restartForgotten {
		h.delay = restartSoonest
	}
	return h.delay
}

func inherit(wanted ...uint) error {
	var sets [2]unix.CapUserData
	if err := unix.Capget(&capabilities, &sets[0]); err != nil {
		return fmt.Errorf("reading the capabilities: %w", err)
	}
	sets[0].Inheritable, sets[1].Inheritable = 0, 0
	for _, each := range wanted {
		sets[each/32].Inheritable |= 1 << (each % 32)
	}
	if err := unix.Capset(&capabilities, &sets[0]); err != nil {
		return fmt.Errorf("setting what is inherited: %w", err)
	}
	return nil
}

// startKeeper starts the keeper, and returns when all helpers have started. The calling thread has given up its bounds. What
// it writes to its standard output from then on goes through the recorder.
func startKeeper(root string, sibling boot.Sibling) error {
	if len(helpersOf(root, sibling)) == 0 {
		return nil
	}
	started, says, err := os.Pipe()
	if err != nil {
		return err
	}
	defer started.Close()
	sockets := []*os.File{says}
	var lines *os.File
	if sibling.Limits != nil {
		refusals, err := kernel.ListenForRefusals()
		if err != nil {
			return fmt.Errorf("starting the %s: %w", companionNames[RecordVerb], err)
		}
		defer refusals.Close()
		read, write, err := os.Pipe()
		if err != nil {
			return err
		}
		defer read.Close()
		defer write.Close()
		sockets, lines = append(sockets, refusals, read), write
	}
	_, err = keeperOf(root).start(sockets...)
	if err = errors.Join(err, says.Close()); err != nil {
		return fmt.Errorf("starting the %s: %w", companionNames[KeepVerb], err)
	}
	if _, err := started.Read(make([]byte, 1)); err != nil {
		return fmt.Errorf("the %s has ended: %w", companionNames[KeepVerb], err)
	}
	if lines == nil {
		return nil
	}
	if err := lines.Chmod(0o622); err != nil { // Envoy opens its standard output again, as whoever it is
		return fmt.Errorf("giving the program what it writes to: %w", err)
	}
	return unix.Dup3(int(lines.Fd()), int(os.Stdout.Fd()), 0)
}

// forEnding are the capabilities of `fwctl end`: it copies files with their owners, and reads those of the program.
var forEnding = []uint{unix.CAP_CHOWN, unix.CAP_SETUID}

// A reader of the container's log that stalls must not delay the keeper or a helper: what they say about themselves waits
// for it in the keeper's memory. There are mostChunks of at most chunkOctets, and what is more is left out.
const (
	mostChunks  = 64
	chunkOctets = 1 << 12
)

func neverWaits(log *os.File) (*os.File, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	waiting := make(chan []byte, mostChunks)
	go func() {
		for text := range waiting {
			_, _ = log.Write(text) // nobody could be told
		}
	}()
	go func() {
		defer close(waiting)
		for buffer := make([]byte, chunkOctets); ; {
			size, err := read.Read(buffer)
			if err != nil {
				return
			}
			select {
			case waiting <- bytes.Clone(buffer[:size]):
			default:
			}
		}
	}()
	return write, nil
}

// companion is a process of this helper beside the program. Its user id is its own, chosen when it starts, unless it
// belongs to root, as its group does then.
type companion struct {
	group   uint32
	command []string
}

// companionSocket is the number of the first socket that a companion may be given, and socketsVariable the environment
// variable that says how many there are (sd_listen_fds(3)).
const (
	companionSocket = 3
	socketsVariable = "LISTEN_FDS"
)

// The verbs with which fwctl is started as a companion, and to end rules.
const (
	KeepVerb    = "keep"
	RecordVerb  = "record"
	ForwardVerb = "forward"
	SignVerb    = "sign"
	EndVerb     = "end"
)

// The group ids of the recorder and the forwarder. No image defines them, and no other process has them, so nobody but
// root can be taken for either.
const (
	recording  = 65533
	forwarding = 65530
)

var companionNames = map[string]string{
	KeepVerb: "keeper of the helpers", RecordVerb: "recorder of refusals", ForwardVerb: "forwarder of lookups",
	SignVerb: "signer of certificates",
}

// GivenSockets returns the sockets that this process was given when it was started as a companion. Reading from one blocks
// nothing else: on a companion's only processor, what it has read would wait until Go's scheduler sees that it blocks.
// Without its keeper, which reads what a companion says about itself, it goes on.
func GivenSockets() []*os.File {
	signal.Ignore(unix.SIGPIPE)
	count, _ := strconv.Atoi(os.Getenv(socketsVariable))
	var found []*os.File
	for number := range count {
		_ = unix.SetNonblock(companionSocket+number, true) // if that fails, it only takes longer
		found = append(found, os.NewFile(uintptr(companionSocket+number), fmt.Sprintf("socket %d", number)))
	}
	return found
}

func newCompanion(root string, group uint32, arguments ...string) companion {
	return companion{group, append([]string{filepath.Join(root, "bin", "fwctl")}, arguments...)}
}

func (c companion) verb() string { return c.command[1] }

func (c companion) name() string { return companionNames[c.verb()] }

func helpersOf(root string, sibling boot.Sibling) []companion {
	hot := filepath.Join(root, "hot")
	var found []companion
	if sibling.Limits != nil {
		found = append(found, newCompanion(root, recording, RecordVerb))
	}
	if settings := sibling.Forwarder; settings != nil {
		found = append(found, newCompanion(root, forwarding, ForwardVerb,
			settings.Listen.String(), settings.Upstream.String(), filepath.Join(hot, "subtrees", "subtrees.json"),
			settings.Agents.String(), settings.Egress.String()))
	}
	if settings := sibling.Signer; settings != nil {
		found = append(found, newCompanion(root, users.Signers, SignVerb,
			settings.Folder, filepath.Join(hot, "inspected", "names.json"), filepath.Join(hot, "signing", "intermediates.json")))
	}
	return found
}

func companionsOf(root string, sibling boot.Sibling) []companion {
	found := helpersOf(root, sibling)
	if len(found) > 0 {
		found = append(found, keeperOf(root))
	}
	return found
}

func (c companion) start(sockets ...*os.File) (*exec.Cmd, error) {
	user := uint32(0)
	if c.group != 0 {
		var err error
		if user, err = users.New(c.group); err != nil {
			return nil, err
		}
	}
	process := exec.Command(c.command[0], c.command[1:]...)
	process.Env = []string{"GOMAXPROCS=1"}
	if len(sockets) > 0 {
		process.Env = append(process.Env, fmt.Sprintf("%s=%d", socketsVariable, len(sockets)))
	}
	process.Stdout, process.Stderr = os.Stdout, os.Stderr
	process.ExtraFiles = sockets
	process.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: c.group}}
	return process, process.Start()
}

// is reports whether a process is this one. Within the container, only `serve` and the keeper can start one of its group.
func (c companion) is(proc, process string) bool {
	state, err := os.Stat(filepath.Join(proc, process))
	if err != nil {
		return false
	}
	owner, known := state.Sys().(*syscall.Stat_t)
	command, err := CommandOf(proc, process)
	return err == nil && known && owner.Gid == c.group && (owner.Uid == 0) == (c.group == 0) && slices.Equal(command, c.command)
}

// keeperOf returns the keeper's process. It belongs to root, for the record that it writes.
func keeperOf(root string) companion { return newCompanion(root, 0, KeepVerb) }
