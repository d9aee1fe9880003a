// Package privileges gives up capabilities (capabilities(7)).
package privileges

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const lastCapability = 63 // that the sets have room for

// Keep gives up all capabilities except those wanted, on every thread, and for good: no executed program gets any back.
func Keep(wanted ...uint) error {
	version := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets, kept [2]unix.CapUserData
	if err := unix.Capget(&version, &sets[0]); err != nil {
		return fmt.Errorf("reading the capabilities: %w", err)
	}
	for _, capability := range wanted {
		bit := sets[capability/32].Permitted & (1 << (capability % 32))
		kept[capability/32].Permitted |= bit
		kept[capability/32].Effective |= bit
	}
	for capability := range uintptr(lastCapability + 1) {
		// It fails without CAP_SETPCAP, and past the kernel's last one. Whatever stays bounds nothing: there are no new privileges.
		if bound, _ := unix.PrctlRetInt(unix.PR_CAPBSET_READ, capability, 0, 0, 0); bound > 0 {
			_, _, _ = syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, capability, 0)
		}
	}
	if _, _, failure := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); failure != 0 {
		return fmt.Errorf("refusing new privileges: %w", failure)
	}
	// Without an inheritable set, there is no ambient set either.
	_, _, failure := syscall.AllThreadsSyscall(
		unix.SYS_CAPSET, uintptr(unsafe.Pointer(&version)), uintptr(unsafe.Pointer(&kept)), 0)
	if failure != 0 {
		return fmt.Errorf("dropping capabilities: %w", failure)
	}
	return nil
}
