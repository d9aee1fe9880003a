// Package privileges gives up capabilities (capabilities(7)).
package privileges

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Keep gives up all capabilities except those wanted, on every thread, and for good: no executed program gets any back. The
// inheritable set keeps them as well, for HandDown.
func Keep(wanted ...uint) error {
	before, err := read()
	if err != nil {
		return err
	}
	after := before
	for number := range after {
		kept := bits(wanted)[number] & before[number].Permitted
		before[number].Inheritable = kept // while the bounding set still allows it
		after[number] = unix.CapUserData{Effective: kept, Permitted: kept, Inheritable: kept}
	}
	if err := onAllThreads(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&version)), uintptr(unsafe.Pointer(&before))); err != nil {
		return fmt.Errorf("setting what is inherited: %w", err)
	}
	// Without CAP_SETPCAP, the bounding set stays, and allows nothing: see PR_SET_NO_NEW_PRIVS.
	if before[0].Effective&bits([]uint{unix.CAP_SETPCAP})[0] != 0 {
		for capability := range uintptr(64) {
			bound, _ := unix.PrctlRetInt(unix.PR_CAPBSET_READ, capability, 0, 0, 0) // it fails past the kernel's last one
			if bound <= 0 {
				continue
			}
			if err := onAllThreads(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, capability); err != nil {
				return fmt.Errorf("dropping capability %d from the bounding set: %w", capability, err)
			}
		}
	}
	if err := onAllThreads(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL); err != nil {
		return fmt.Errorf("clearing the ambient set: %w", err)
	}
	if err := onAllThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1); err != nil {
		return fmt.Errorf("refusing new privileges: %w", err)
	}
	if err := onAllThreads(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&version)), uintptr(unsafe.Pointer(&after))); err != nil {
		return fmt.Errorf("dropping capabilities: %w", err)
	}
	return nil
}

// HandDown sets which capabilities this thread's children of root's have.
func HandDown(wanted ...uint) error {
	sets, err := read()
	if err != nil {
		return err
	}
	for number := range sets {
		sets[number].Inheritable = bits(wanted)[number]
	}
	if err := unix.Capset(&version, &sets[0]); err != nil {
		return fmt.Errorf("setting what is inherited: %w", err)
	}
	return nil
}

var version = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}

func read() (sets [2]unix.CapUserData, err error) {
	if err = unix.Capget(&version, &sets[0]); err != nil {
		err = fmt.Errorf("reading the capabilities: %w", err)
	}
	return sets, err
}

func bits(capabilities []uint) (sets [2]uint32) {
	for _, capability := range capabilities {
		sets[capability/32] |= 1 << (capability % 32)
	}
	return sets
}

//go:uintptrescapes
func onAllThreads(call, first, second uintptr) error {
	if _, _, failure := syscall.AllThreadsSyscall6(call, first, second, 0, 0, 0, 0); failure != 0 {
		return failure
	}
	return nil
}
