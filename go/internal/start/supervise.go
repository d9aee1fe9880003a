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

// The supervisor is process 1 of a firewall container: `fwctl serve` once the network is configured. It starts the
// program's helpers and restarts them, starts the program, and ends with it. When rules expire, it starts
// `fwctl end`. It reads nothing from agents or from the program, and has only the capabilities to start a process
// of another user, and those of `fwctl end`.

// supervisorSocket is the socket for the supervisor's Status, open to root only.
const supervisorSocket = "/tmp/supervisor.sock"

// Status has the program's process id, the failure to announce our addresses, or "", and the ends of helpers.
type Status struct {
	Program     int       `json:"program"`
	Unannounced string    `json:"unannounced"`
	Restarts    []Restart `json:"restarts"`
}

// AskSupervisor returns the supervisor's status.
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

// A helper is restarted at once, and after twice the wait if it ends again, unless it ran for restartForgotten.
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

// supervise starts the helpers and then the program, as this user. It returns only if that fails.
func supervise(root string, sibling boot.Sibling, announcer arp.Announcer, user uint32, words []string) error {
	runtime.GOMAXPROCS(1) // it mostly waits, and threads count against the container's limit
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
			err = write.Chmod(0o622) // Envoy, with its random user id, opens its standard output again
		}
		if err != nil {
			return fmt.Errorf("opening the program's output: %w", err)
		}
		recorded, program.Stdout = []*os.File{refusals, read}, write
	}
	if err := syscall.Setgroups(nil); err != nil {
		return fmt.Errorf("dropping groups: %w", err)
	}
	// `fwctl end` copies files with their owners. Helpers get nothing, because only this thread starts them.
	err := privileges.KeepAndHandDown([]uint{unix.CAP_CHOWN, unix.CAP_SETUID}, unix.CAP_CHOWN, unix.CAP_SETGID, unix.CAP_SETUID)
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := privileges.HandDownNothing(); err != nil {
		return err
	}
	// From here on, the supervisor and its helpers, which inherit this, never wait for the log's reader.
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
	debug.FreeOSMemory() // the memory for configuring the network: the supervisor needs little
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
			text, _ := json.Marshal(status) // always possible
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

// announceOwn announces our addresses repeatedly, for neighbours with stale entries, and reports a failure, or "".
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

// endRulesInTime starts `fwctl end` when rules expire.
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

// endWith ends the supervisor with the program, and so the container.
func endWith(program *exec.Cmd) {
	_ = program.Wait() // the state has the result
	status := program.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		os.Exit(128 + int(status.Signal())) // as shells do
	}
	os.Exit(status.ExitStatus())
}

// stopAt passes each signal on to the program as SIGTERM. Without CAP_KILL, the supervisor may not signal another
// user's process, so a thread becomes the program's user first.
func stopAt(stopped <-chan os.Signal, program int, user uint32) {
	for range stopped {
		runtime.LockOSThread() // never unlocked: the thread ends with this function
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

// socketsFor returns a helper's sockets. The recorder's first are `recorded`: the kernel's refusals and the output.
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

// A stalled reader of the container's log must not delay the supervisor or a helper: their messages wait in the
// supervisor's memory, in at most mostChunks of chunkSize. More are dropped.
const (
	mostChunks = 64
	chunkSize  = 1 << 12
)

func neverWaits(log *os.File) (*os.File, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	waiting := make(chan []byte, mostChunks)
	go func() {
		for text := range waiting {
			_, _ = log.Write(text) // nowhere to report a failure
		}
	}()
	go func() {
		defer close(waiting)
		for buffer := make([]byte, chunkSize); ; {
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

// companion is a process of fwctl beside the program. Its user id is random, unless its group is root's.
type companion struct {
	group uint32
	words []string
}

// companionSocket is the number of a companion's first socket, and socketsVariable has their number
// (sd_listen_fds(3)).
const (
	companionSocket = 3
	socketsVariable = "LISTEN_FDS"
)

// The verbs of companions, and the one that ends rules.
const (
	RecordVerb  = "record"
	ForwardVerb = "forward"
	SignVerb    = "sign"
	EndVerb     = "end"
)

// The group ids of the recorder and the forwarder. No image or process has them, so only root can pose as either.
const (
	recording  = 65533
	forwarding = 65530
)

var companionNames = map[string]string{
	RecordVerb: "recorder of refusals", ForwardVerb: "forwarder of lookups",
	SignVerb: "signer of certificates",
}

// GivenSockets returns the sockets that this companion was given. They don't block: on a companion's only
// processor, Go's scheduler would notice a blocked thread late.
func GivenSockets() []*os.File {
	count, _ := strconv.Atoi(os.Getenv(socketsVariable))
	var sockets []*os.File
	for number := range count {
		_ = unix.SetNonblock(companionSocket+number, true) // without it, reading only takes longer
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

// is reports whether a process is this companion. Only the supervisor can start one of its group here.
func (c companion) is(proc, process string) bool {
	command, err := CommandOf(proc, process)
	return err == nil && c.owns(proc, process) && slices.Equal(command, c.words)
}

// owns reports whether a process has this companion's group, and is root's if the companion is.
func (c companion) owns(proc, process string) bool {
	state, err := os.Stat(filepath.Join(proc, process))
	if err != nil {
		return false
	}
	owner, ok := state.Sys().(*syscall.Stat_t)
	return ok && owner.Gid == c.group && (owner.Uid == 0) == (c.group == 0)
}
