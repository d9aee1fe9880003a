package start

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/users"
)

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

// helpersOf returns the companions that work for a sibling, each a user of its own and without privileges.
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
		if user, err = users.New(); err != nil {
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
