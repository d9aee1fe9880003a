package start

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"clawker-fw/internal/arp"
	"clawker-fw/internal/boot"
	"clawker-fw/internal/hot"
	"clawker-fw/internal/kernel"
	"clawker-fw/internal/lookups"
	"clawker-fw/internal/page"
	"clawker-fw/internal/privileges"
	"clawker-fw/internal/refusals"
	"clawker-fw/internal/serving"
	"clawker-fw/internal/signing"
	"clawker-fw/internal/statussocket"
	"clawker-fw/internal/usage"
	"clawker-fw/internal/users"
)

// The supervisor is process 1 of a sibling's container, `fwctl serve` once it has configured the network. It starts the
// program's helpers, starts one again that has ended, starts the program, and ends with it. It knows when rules end, and starts
// `fwctl end` then. It reads nothing from any agent or from the program, and has only the capabilities that it takes to start a
// process of another user, and that `fwctl end` needs.

// supervisorSocket is where the supervisor tells root in its container its Status.
const supervisorSocket = "/tmp/supervisor.sock"

// Status is what the supervisor knows: the program's process, why our addresses could not be announced, or "", and which helpers
// have ended.
type Status struct {
	Program     int       `json:"program"`
	Unannounced string    `json:"unannounced"`
	Restarts    []Restart `json:"restarts"`
}

// AskSupervisor returns the supervisor's status. One that does not answer supervises nothing.
func AskSupervisor() (status Status, err error) {
	if err = statussocket.Ask(supervisorSocket, serving.AnswerLimit, nil, &status); err != nil {
		err = fmt.Errorf("the supervisor does not answer: %w", err)
	}
	return status, err
}

// Supervised is the supervisor's part of a health check.
func Supervised() error {
	status, err := AskSupervisor()
	if err == nil && status.Unannounced != "" {
		err = errors.New(status.Unannounced)
	}
	return err
}

// A helper is started again at once, and each time after twice as long if it ends again. One that has run for
// restartForgotten begins anew.
const (
	restartSoonest   = 100 * time.Millisecond
	restartLatest    = 10 * time.Second
	restartForgotten = time.Minute
)

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

// supervise starts the helpers and then the program, as this user, and does not return once the program has started.
func supervise(root string, sibling boot.Sibling, announcer arp.Announcer, user uint32, words []string) error {
	runtime.GOMAXPROCS(1) // it waits most of the time, and each thread counts against the limit of the container
	stopped := make(chan os.Signal, 1)
	signal.Notify(stopped, unix.SIGTERM)
	program := exec.Command(words[0], words[1:]...)
	program.Stdout, program.Stderr = os.Stdout, os.Stderr
	program.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: users.Readers}}
	var recorded []*os.File
	if sibling.Limits != nil {
		refusals, err := kernel.ListenForRefusals()
		if err != nil {
			return fmt.Errorf("starting the %s: %w", companionNames[RecordVerb], err)
		}
		read, write, err := os.Pipe()
		if err == nil {
			err = write.Chmod(0o622) // Envoy opens its standard output again, as whoever it is
		}
		if err != nil {
			return fmt.Errorf("giving the program what it writes to: %w", err)
		}
		recorded, program.Stdout = []*os.File{refusals, read}, write
	}
	if err := syscall.Setgroups(nil); err != nil {
		return fmt.Errorf("dropping groups: %w", err)
	}
	// `fwctl end` copies files with their owners, and reads those of the program. Helpers get nothing: only this thread starts them.
	err := privileges.KeepAndHandDown([]uint{unix.CAP_CHOWN, unix.CAP_SETUID}, unix.CAP_CHOWN, unix.CAP_SETGID, unix.CAP_SETUID)
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := privileges.HandDownNothing(); err != nil {
		return err
	}
	// From here on, nothing waits for the reader of the log: neither the supervisor nor a helper, which inherits this.
	log := os.Stderr
	defer func() { os.Stderr = log }() // for the error
	if os.Stderr, err = neverWaits(log); err != nil {
		return err
	}
	listener, err := statussocket.Listen(supervisorSocket, 0o600)
	if err != nil {
		return err
	}
	ends, again := make(chan ending), make(chan *helper)
	for _, companion := range helpersOf(root, sibling) {
		sockets, err := socketsFor(companion.verb(), root, sibling, recorded)
		if err != nil {
			return err
		}
		helper := &helper{companion: companion, sockets: sockets}
		if err := helper.begin(ends); err != nil {
			return fmt.Errorf("starting the %s: %w", helper.name(), err)
		}
	}
	if err := program.Start(); err != nil {
		return err
	}
	debug.FreeOSMemory() // that it took to configure the network: the supervisor needs little
	go stopAt(stopped, program.Process.Pid, user)
	go endWith(program)
	go endRulesInTime(root)
	var lock sync.Mutex
	status := Status{program.Process.Pid, "", []Restart{}}
	change := func(change func()) {
		lock.Lock()
		defer lock.Unlock()
		change()
	}
	go statussocket.Tell(listener, func() (answer any) {
		change(func() {
			text, _ := json.Marshal(status) // of values that JSON has
			answer = json.RawMessage(text)
		})
		return answer
	})
	go announceOwn(announcer, root, sibling, func(failure string) { change(func() { status.Unannounced = failure }) })
	for {
		select {
		case end := <-ends:
			fmt.Fprintf(os.Stderr, "fwctl: the %s has ended: %s\n", end.helper.name(), end.reason)
			change(func() { status.count(end.helper.name(), end.reason, time.Now(), sinceStart()) })
			time.AfterFunc(end.helper.pause(time.Now()), func() { again <- end.helper })
		case helper := <-again:
			if err := helper.begin(ends); err != nil {
				go func() { ends <- ending{helper, err.Error()} }()
			}
		}
	}
}

// announceOwn announces our own addresses again and again, for neighbours with a stale ARP entry, and tells what fails, or "".
func announceOwn(announcer arp.Announcer, root string, sibling boot.Sibling, tell func(string)) {
	for {
		wait, failure := announceEvery, ""
		if err := announcer.AnnounceOwn(root, sibling); err != nil {
			wait, failure = announceAgain, err.Error()
		}
		tell(failure)
		time.Sleep(wait)
	}
}

const announceEvery, announceAgain = 5 * time.Second, 500 * time.Millisecond

// endRulesInTime starts `fwctl end` when rules end.
func endRulesInTime(root string) {
	clock := hot.NewDeadline(root)
	for {
		if due, wait := clock.Due(time.Now()); !due {
			time.Sleep(wait)
			continue
		}
		process, err := newCompanion(root, 0, EndVerb).start()
		if err == nil {
			err = process.Wait()
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "fwctl: ending rules: %v\n", err)
			time.Sleep(hot.EndAgain)
		}
	}
}

// endWith ends the supervisor, and so the container, with the program.
func endWith(program *exec.Cmd) {
	_ = program.Wait() // its state says how it has ended
	status := program.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		os.Exit(128 + int(status.Signal())) // as shells do
	}
	os.Exit(status.ExitStatus())
}

// stopAt sends SIGTERM to the program for each signal. It takes the program's user first, on a thread of its own: the supervisor
// has no CAP_KILL, so it may not send signals to another user's process.
func stopAt(stopped <-chan os.Signal, program int, user uint32) {
	for range stopped {
		runtime.LockOSThread() // and never unlock it: the thread ends with this function
		unchanged := ^uintptr(0)
		_, _, failure := unix.RawSyscall(unix.SYS_SETRESUID, unchanged, uintptr(user), unchanged) // for this thread only
		if failure == 0 {
			failure, _ = unix.Kill(program, unix.SIGTERM).(syscall.Errno)
		}
		if failure != 0 && failure != unix.ESRCH {
			fmt.Fprintf(os.Stderr, "fwctl: stopping the program: %v\n", failure)
		}
	}
}

// socketsFor returns the sockets of a helper. The recorder gets what the kernel and the program tell it, `recorded`, first.
func socketsFor(verb, root string, sibling boot.Sibling, recorded []*os.File) ([]*os.File, error) {
	switch verb {
	case ForwardVerb:
		return lookups.Listen(sibling.Forwarder.Listen)
	case SignVerb:
		return signing.Listen(sibling.Signer.Folder, signing.Resting(root))
	}
	linesSocket, err := statussocket.Prepare(refusals.Socket, 0o600)
	sockets := append(recorded, linesSocket)
	if err == nil && sibling.Page != nil {
		var socket *os.File
		socket, err = page.Listen(*sibling.Page)
		sockets = append(sockets, socket)
	}
	if err == nil && sibling.Usage != nil {
		var files []*os.File
		files, err = usage.Prepare(root, usage.Socket)
		sockets = append(sockets, files...)
	}
	return sockets, err
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

// A reader of the container's log that stalls must not delay the supervisor or a helper: what they say about themselves waits
// for it in the supervisor's memory. There are mostChunks of at most chunkOctets, and what is more is left out.
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
	group uint32
	words []string
}

// companionSocket is the number of the first socket that a companion may be given, and socketsVariable the environment
// variable that says how many there are (sd_listen_fds(3)).
const (
	companionSocket = 3
	socketsVariable = "LISTEN_FDS"
)

// The verbs with which fwctl is started as a companion, and to end rules.
const (
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
	RecordVerb: "recorder of refusals", ForwardVerb: "forwarder of lookups",
	SignVerb: "signer of certificates",
}

// GivenSockets returns the sockets that this process was given when it was started as a companion. Reading from one blocks
// nothing else: on a companion's only processor, what it has read would wait until Go's scheduler sees that it blocks.
func GivenSockets() []*os.File {
	count, _ := strconv.Atoi(os.Getenv(socketsVariable))
	var sockets []*os.File
	for number := range count {
		_ = unix.SetNonblock(companionSocket+number, true) // if that fails, it only takes longer
		sockets = append(sockets, os.NewFile(uintptr(companionSocket+number), fmt.Sprintf("socket %d", number)))
	}
	return sockets
}

func newCompanion(root string, group uint32, arguments ...string) companion {
	return companion{group, append([]string{filepath.Join(root, "bin", "fwctl")}, arguments...)}
}

func (c companion) verb() string { return c.words[1] }

func (c companion) name() string { return companionNames[c.verb()] }

func helpersOf(root string, sibling boot.Sibling) []companion {
	hot := filepath.Join(root, "hot")
	var helpers []companion
	if sibling.Limits != nil {
		helpers = append(helpers, newCompanion(root, recording, RecordVerb))
	}
	if settings := sibling.Forwarder; settings != nil {
		helpers = append(helpers, newCompanion(root, forwarding, ForwardVerb,
			settings.Listen.String(), settings.Upstream.String(), filepath.Join(hot, "subtrees", "subtrees.json"),
			settings.Agents.String(), settings.Egress.String()))
	}
	if settings := sibling.Signer; settings != nil {
		helpers = append(helpers, newCompanion(root, users.Signers, SignVerb,
			settings.Folder, filepath.Join(hot, "inspected", "names.json"), filepath.Join(hot, "signing", "intermediates.json")))
	}
	return helpers
}

func (c companion) start(sockets ...*os.File) (*exec.Cmd, error) {
	user := uint32(0)
	if c.group != 0 {
		var err error
		if user, err = users.New(c.group); err != nil {
			return nil, err
		}
	}
	process := exec.Command(c.words[0], c.words[1:]...)
	process.Env = []string{"GOMAXPROCS=1"}
	if len(sockets) > 0 {
		process.Env = append(process.Env, fmt.Sprintf("%s=%d", socketsVariable, len(sockets)))
	}
	process.Stdout, process.Stderr = os.Stdout, os.Stderr
	process.ExtraFiles = sockets
	process.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: c.group}}
	return process, process.Start()
}

// is reports whether a process is this one. Within the container, only the supervisor can start one of its group.
func (c companion) is(proc, process string) bool {
	command, err := CommandOf(proc, process)
	return err == nil && c.owns(proc, process) && slices.Equal(command, c.words)
}

// owns reports whether a process has this one's group, and is root's if this one is.
func (c companion) owns(proc, process string) bool {
	state, err := os.Stat(filepath.Join(proc, process))
	if err != nil {
		return false
	}
	owner, known := state.Sys().(*syscall.Stat_t)
	return known && owner.Gid == c.group && (owner.Uid == 0) == (c.group == 0)
}
