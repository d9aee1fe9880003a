// Package start starts a sibling's program and its helpers, keeps these running, and finds processes that don't belong
// there.
package start

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"clawker-fw/internal/arp"
	"clawker-fw/internal/boot"
	"clawker-fw/internal/hot"
	"clawker-fw/internal/kernel"
	"clawker-fw/internal/relay"
	"clawker-fw/internal/serving"
	"clawker-fw/internal/users"
)

// announcementsAtStart is the number of ARP announcements before the program starts. The addresses may have a new
// hardware address since the last start of this container, or of another one in its slot, and neighbours have
// cached the old one.
const announcementsAtStart = 3

var capabilities = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}

// Serve makes sure that the hot files are the last proven ones, without rules that have ended since, configures the network,
// starts the program's helpers and their keeper, drops all privileges and executes the program. If any step fails, the
// program does not start: it never serves with an unguarded network, with unproven files or without a record.
func Serve(root string, sibling boot.Sibling, program []string) error {
	user, err := users.New(users.Readers)
	if err != nil {
		return err
	}
	if err := hot.StartGood(root); err != nil {
		return err
	}
	if err := hot.EndAtStart(root, time.Now()); err != nil {
		return fmt.Errorf("ending rules: %w", err)
	}
	if err := hot.MakeBells(sibling.Resources); err != nil {
		return err
	}
	if err := kernel.Shape(sibling); err != nil {
		return err
	}
	// From the second start on, runc gives the tmpfs the mode of the mount point that it created at the first one.
	if err := os.Chmod("/tmp", 0o777|os.ModeSticky); err != nil {
		return err
	}
	if err := openAdminFolder(filepath.Dir(serving.AdminSocket), sibling, user); err != nil {
		return fmt.Errorf("the folder of Envoy's admin socket: %w", err)
	}
	if err := joinTrusted(root, sibling); err != nil {
		return fmt.Errorf("joining the authorities of hosts: %w", err)
	}
	if err := announce(root, sibling); err != nil {
		return err
	}
	if err := openAllFiles(); err != nil {
		return err
	}
	// Capability sets belong to a thread: the one that drops them must be the one that executes.
	runtime.LockOSThread()
	if err := dropBounds(keeping...); err != nil {
		return err
	}
	if err := startKeeper(root, sibling); err != nil {
		return err
	}
	if err := dropPrivileges(user); err != nil {
		return err
	}
	return fmt.Errorf("executing %s: %w", program[0], unix.Exec(program[0], program, os.Environ()))
}

func announce(root string, sibling boot.Sibling) error {
	for range announcementsAtStart {
		if err := arp.AnnounceOwn(root, sibling); err != nil {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// openAdminFolder makes the folder of Envoy's admin socket. It is Envoy's user's and of root's group, which a socket in it
// inherits: the helpers can't reach it, though they are in the same container, and root has no privilege that would open it.
func openAdminFolder(folder string, sibling boot.Sibling, user uint32) error {
	if sibling.Name != "envoy" {
		return nil
	}
	if err := os.Mkdir(folder, 0o770); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := os.Chown(folder, 0, 0); err != nil { // only its owner may change its mode
		return err
	}
	return errors.Join(os.Chmod(folder, 0o770|os.ModeSetgid), os.Chown(folder, int(user), 0))
}

// joinTrusted puts further authorities behind those of the image, in a file of their own: Envoy reads only one. Whoever it is
// may read it.
func joinTrusted(root string, sibling boot.Sibling) error {
	if sibling.Signer == nil || sibling.Signer.Further == "" {
		return nil
	}
	usual, err := os.ReadFile(sibling.Signer.Trusted)
	if err != nil {
		return err
	}
	further, err := os.ReadFile(filepath.Join(root, sibling.Signer.Further))
	if err != nil {
		return err
	}
	joined := append(append(usual, '\n'), further...)
	return errors.Join(os.WriteFile(sibling.Signer.Joined, joined, 0o644), os.Chmod(sibling.Signer.Joined, 0o644))
}

// openAllFiles raises the soft limit of open files to the hard limit: every port and connection needs some.
func openAllFiles() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
}

// dropBounds gives up every privilege that could be gained by executing a program, except those `kept`: what root hands down to
// the keeper.
func dropBounds(kept ...uint) error {
	if err := inherit(kept...); err != nil {
		return err
	}
	for capability := uintptr(0); ; capability++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break // past the kernel's last capability
		}
		if err != nil {
			return fmt.Errorf("dropping capability %d from the bounding set: %w", capability, err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clearing the ambient set: %w", err)
	}
	return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}

func dropPrivileges(user uint32) error {
	if err := unix.Setgroups(nil); err != nil {
		return fmt.Errorf("dropping groups: %w", err)
	}
	if err := unix.Setresgid(users.Readers, users.Readers, users.Readers); err != nil {
		return fmt.Errorf("dropping the group: %w", err)
	}
	if err := unix.Setresuid(int(user), int(user), int(user)); err != nil {
		return fmt.Errorf("dropping the user: %w", err)
	}
	var none [2]unix.CapUserData
	if err := unix.Capset(&capabilities, &none[0]); err != nil {
		return fmt.Errorf("dropping capabilities: %w", err)
	}
	return nil
}

// CarryVerb is the verb with which fwctl is executed as a relay's program.
const CarryVerb = "carry"

// Relay configures the network of a relay, opens its sockets, drops all privileges and executes its program. If any step
// fails, the program does not start.
func Relay(root string, words []string) error {
	settings, err := relay.Parse(words)
	if err != nil {
		return err
	}
	user, err := users.New(users.Readers)
	if err != nil {
		return err
	}
	network := settings.Network()
	if err := kernel.Shape(network); err != nil {
		return err
	}
	sockets, err := settings.Listen()
	if err != nil {
		return err
	}
	if err := announce(root, network); err != nil {
		return err
	}
	numbers := make([]string, len(sockets))
	for at, each := range sockets {
		numbers[at] = strconv.Itoa(each)
	}
	runtime.LockOSThread() // capability sets belong to a thread
	if err := dropBounds(); err != nil {
		return err
	}
	if err := dropPrivileges(user); err != nil {
		return err
	}
	program := append([]string{filepath.Join(root, "bin", "fwctl"), CarryVerb}, words...)
	environment := append(os.Environ(), relay.Socketed+"="+strings.Join(numbers, ","))
	return fmt.Errorf("executing %s: %w", program[0], unix.Exec(program[0], program, environment))
}
