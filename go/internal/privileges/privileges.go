// Package privileges drops capabilities (capabilities(7)).
package privileges

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const lastCapability = 63 // the capacity of the sets

var version = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}

type sets [2]unix.CapUserData

// Keep drops all other capabilities, on every thread, and for good: no executed program regains any.
func Keep(capabilities ...uint) error { return KeepAndHandDown(nil, capabilities...) }

// KeepAndHandDown keeps capabilities, and hands some down to programs executed as root, by other threads than
// those of HandDownNothing.
func KeepAndHandDown(handed []uint, capabilities ...uint) error {
	var now, kept sets
	if err := unix.Capget(&version, &now[0]); err != nil {
		return fmt.Errorf("reading the capabilities: %w", err)
	}
	for _, capability := range capabilities {
		bit := now[capability/32].Permitted & (1 << (capability % 32))
		kept[capability/32].Permitted |= bit
		kept[capability/32].Effective |= bit
	}
	for _, capability := range handed {
		now[capability/32].Inheritable |= 1 << (capability % 32)
		kept[capability/32].Inheritable |= 1 << (capability % 32)
	}
	if err := now.set(); err != nil { // before the bounding set shrinks, which limits what can be added
		return err
	}
	for capability := range uintptr(lastCapability + 1) {
		// It fails without CAP_SETPCAP, and beyond the last one. The rest is harmless without new privileges.
		if bound, _ := unix.PrctlRetInt(unix.PR_CAPBSET_READ, capability, 0, 0, 0); bound > 0 {
			_, _, _ = syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, capability, 0)
		}
	}
	if _, _, failure := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); failure != 0 {
		return fmt.Errorf("disabling new privileges: %w", failure)
	}
	return kept.set() // dropping inheritable capabilities drops ambient ones too
}

func (s *sets) set() error {
	_, _, failure := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&version)), uintptr(unsafe.Pointer(s)), 0)
	if failure != 0 {
		return fmt.Errorf("setting the capabilities: %w", failure)
	}
	return nil
}

// HandDownNothing makes the calling thread, which must be locked, execute programs without capabilities.
func HandDownNothing() error {
	var now sets
	if err := unix.Capget(&version, &now[0]); err != nil {
		return fmt.Errorf("reading the capabilities: %w", err)
	}
	now[0].Inheritable, now[1].Inheritable = 0, 0
	return unix.Capset(&version, &now[0])
}
