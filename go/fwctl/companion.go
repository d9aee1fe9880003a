package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
)

// companion is a process of this helper beside the program, of a user of its own and without privileges.
type companion struct {
	user    uint32
	command []string
}

// companionSocket is the number of the socket that a companion may be given.
const companionSocket = 3

func newCompanion(root string, user uint32, arguments ...string) companion {
	return companion{user, append([]string{filepath.Join(root, "bin", "fwctl")}, arguments...)}
}

// companionsOf returns the companions that a sibling needs.
func companionsOf(root string, sibling Sibling) []companion {
	var found []companion
	if sibling.Limits != nil {
		found = append(found, recorderOf(root))
	}
	if sibling.Forwarder != nil {
		found = append(found, forwarderOf(root, *sibling.Forwarder))
	}
	return found
}

// start starts it, with the sockets that it is given. The calling thread has given up its bounds.
func (c companion) start(sockets ...*os.File) error {
	process := exec.Command(c.command[0], c.command[1:]...)
	process.Env = []string{"GOMAXPROCS=1"}
	process.Stdout, process.Stderr = os.Stdout, os.Stderr
	process.ExtraFiles = sockets
	process.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: c.user, Gid: c.user}}
	return process.Start()
}

// is reports whether a process is this one: only `serve` can start a process of its user.
func (c companion) is(proc, process string) bool {
	state, err := os.Stat(filepath.Join(proc, process))
	if err != nil {
		return false
	}
	owner, known := state.Sys().(*syscall.Stat_t)
	command, err := commandOf(proc, process)
	return err == nil && known && owner.Uid == c.user && slices.Equal(command, c.command)
}
