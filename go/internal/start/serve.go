// Package start starts a container's program and helpers, restarts helpers, and detects unknown processes.
package start

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"clawker-fw/internal/arp"
	"clawker-fw/internal/boot"
	"clawker-fw/internal/hot"
	"clawker-fw/internal/kernel"
	"clawker-fw/internal/privileges"
	"clawker-fw/internal/relay"
	"clawker-fw/internal/serving"
	"clawker-fw/internal/users"
)

// announcementsAtStart is the number of ARP announcements before the program starts. The addresses may have
// another MAC address than before, in this container or in another one of its slot, and neighbours have cached it.
const announcementsAtStart = 3

// Serve restores the last verified dynamic files without expired rules, configures the network, drops privileges,
// and starts the helpers and the program. If any step fails, the program does not start: it never serves with an
// unguarded network, unverified files or no record of refusals.
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
		return fmt.Errorf("joining the CAs of hosts: %w", err)
	}
	announcer, err := announce(root, sibling)
	if err != nil {
		return err
	}
	if err := openAllFiles(); err != nil {
		return err
	}
	return supervise(root, sibling, announcer, user, program)
}

// announce takes the service address again if this container held it, and announces our addresses.
func announce(root string, sibling boot.Sibling) (arp.Announcer, error) {
	if err := arp.TakeClaimed(root, sibling); err != nil {
		return 0, err
	}
	announcer, err := arp.NewAnnouncer()
	for range announcementsAtStart {
		if err == nil {
			err = announcer.AnnounceOwn(root, sibling)
			time.Sleep(10 * time.Millisecond)
		}
	}
	return announcer, err
}

// openAdminFolder creates the folder of Envoy's admin socket. It belongs to Envoy's user and root's group, which
// the socket inherits: the helpers can't reach it, and root needs no privilege to open it.
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

// joinTrusted appends further CAs to a readable copy of the image's, because Envoy reads only one file.
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

// openAllFiles raises the soft limit of open files to the hard limit, because each port and connection needs some.
func openAllFiles() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
}

// become drops all privileges and root's user, for good.
func become(user uint32) error {
	if err := privileges.Keep(unix.CAP_SETGID, unix.CAP_SETUID); err != nil {
		return err
	}
	if err := syscall.Setgroups(nil); err != nil {
		return fmt.Errorf("dropping groups: %w", err)
	}
	if err := syscall.Setresgid(users.Readers, users.Readers, users.Readers); err != nil {
		return fmt.Errorf("dropping the group: %w", err)
	}
	if err := syscall.Setresuid(int(user), int(user), int(user)); err != nil {
		return fmt.Errorf("dropping the user: %w", err)
	}
	return privileges.Keep()
}

// CarryVerb is the verb of a relay's program.
const CarryVerb = "carry"

// Relay configures a relay's network, opens its sockets, drops all privileges and executes its program. If any
// step fails, the program does not start.
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
	if _, err := announce(root, network); err != nil {
		return err
	}
	numbers := make([]string, len(sockets))
	for at, socket := range sockets {
		numbers[at] = strconv.Itoa(socket)
	}
	if err := become(user); err != nil {
		return err
	}
	program := append([]string{filepath.Join(root, "bin", "fwctl"), CarryVerb}, words...)
	environment := append(os.Environ(), relay.Socketed+"="+strings.Join(numbers, ","))
	return fmt.Errorf("executing %s: %w", program[0], unix.Exec(program[0], program, environment))
}
