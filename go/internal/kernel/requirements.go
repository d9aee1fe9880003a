package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	routing "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"clawker-fw/internal/boot"
)

// What a sibling needs of the kernel of the engine's machine, beyond what the engine says of it. `fwctl requirements` asks
// for all of it in a container of its own, which is removed afterwards.

const (
	// highAddress is one of those at which Envoy's allocator places memory (tcmalloc: three bits from bit 42 on are a tag).
	highAddress = 7 << 42
	// filterPatience bounds how long the kernel may be silent about the packet filter. Without nf_tables, it answers the
	// first message of a transaction and never those that follow. It is silent as well while it loads modules.
	filterPatience = 20 * time.Second
)

// Requirements is the output of requirements: what is missing, a sentence each.
type Requirements struct {
	Lacking []string `json:"lacking"`
}

// CheckRequirements asks for all that either sibling needs, in a network that nobody uses.
func CheckRequirements() Requirements {
	all := netip.PrefixFrom(netip.IPv4Unspecified(), 24)
	limits := boot.Limits{
		Subnet: all, Except: []netip.Addr{all.Addr()}, Private: []netip.Addr{all.Addr()}, Connections: 1, AllConnections: 4,
		ConnectionsPerSecond: 1, QueriesPerSecond: 1, DatagramsPerSecond: 1,
	}
	found := Requirements{Lacking: []string{}}
	filter := newLimitFilter(limits)
	filter.loadModules()
	socket, silent := ListenForRefusals()
	if silent == nil {
		socket.Close()
	}
	_, unrouted := routing.RuleList(unix.AF_INET)
	if unrouted != nil {
		unrouted = fmt.Errorf("routing by source addresses needs policy routing in the kernel (CONFIG_IP_MULTIPLE_TABLES): %w", unrouted)
	}
	for _, err := range []error{filter.installWithSix(), silent, unrouted, askForAddresses()} {
		if err != nil {
			found.Lacking = append(found.Lacking, err.Error())
		}
	}
	return found
}

// askForAddresses fails in an address space that is smaller than Envoy's allocator assumes: 39 bits on many kernels for
// single-board computers.
func askForAddresses() error {
	const why = "Envoy needs addresses of 48 bits, and this kernel gives programs fewer (often 39, on single-board computers: " +
		"CONFIG_ARM64_VA_BITS_48)"
	size := uintptr(os.Getpagesize())
	address, _, failure := unix.Syscall6(unix.SYS_MMAP, highAddress, size, unix.PROT_NONE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED_NOREPLACE, ^uintptr(0), 0)
	if failure == unix.EEXIST {
		return nil
	}
	if failure != 0 {
		return fmt.Errorf("%s: %w", why, failure)
	}
	if _, _, failure := unix.Syscall(unix.SYS_MUNMAP, address, size, 0); failure != 0 {
		return failure
	}
	if address != highAddress { // a kernel older than 4.17 takes it for a wish
		return errors.New(why)
	}
	return nil
}

// openFilter returns a connection to the kernel's packet filter, or one with options of a test. Each transaction of the
// kernel's is bounded.
func openFilter(options []nftables.ConnOption) (*nftables.Conn, error) {
	if len(options) > 0 {
		return nftables.New(options...)
	}
	bounded := func(connection *netlink.Conn) error {
		return connection.SetReadDeadline(time.Now().Add(filterPatience))
	}
	return nftables.New(nftables.WithSockOptions(bounded))
}

// requireFilter fails if the kernel has no nf_tables at all. One message outside of a transaction is always answered.
func requireFilter(connection *nftables.Conn) error {
	if _, err := connection.ListTablesOfFamily(nftables.TableFamilyIPv4); err != nil {
		return fmt.Errorf("limiting what agents can take needs nf_tables in the kernel (CONFIG_NF_TABLES; "+
			"or its module can't be loaded, as with kernel.modules_disabled=1): %w", first(err))
	}
	return nil
}

// first returns the first of several errors: a kernel refuses each message of a transaction, in the same words.
func first(err error) error {
	for joined := (interface{ Unwrap() []error })(nil); errors.As(err, &joined); {
		err = joined.Unwrap()[0]
	}
	return err
}

// loadModules has the kernel load the modules of the rules, in small transactions. It begins a transaction anew after each
// module that it has loaded, and runs modprobe again for those before: 50 times for all of them in one.
func (f limitFilter) loadModules() {
	if connection, err := openFilter(nil); err == nil && requireFilter(connection) == nil {
		for _, rule := range f.rules {
			_ = f.install([]*nftables.Rule{rule}, nil) // whether it takes them all is asked for afterwards
		}
	}
}
