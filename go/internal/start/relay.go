package start

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"clawker-fw/internal/arp"
	"clawker-fw/internal/kernel"
	"clawker-fw/internal/relay"
	"clawker-fw/internal/users"
)

// CarryVerb is the verb with which fwctl is executed as a relay's program.
const CarryVerb = "carry"

// Relay configures the network of a relay, opens its sockets, drops all privileges and executes its program. If any step
// fails, the program does not start.
func Relay(root string, words []string) error {
	settings, err := relay.Parse(words)
	if err != nil {
		return err
	}
	user, err := users.New()
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
	for range announcementsAtStart {
		if err := arp.AnnounceOwn(root, network); err != nil {
			return err
		}
		time.Sleep(10 * time.Millisecond)
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
