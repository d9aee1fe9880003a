package kernel

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	routing "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/users"
)

// What a sibling needs of the kernel of the engine's machine, beyond what the engine says of it. `fwctl requirements` asks
// for all of it in a container of its own, which is removed afterwards, and `fwctl serve` before its program starts.

const (
	// highAddress is one of those at which Envoy's allocator places memory (tcmalloc: three bits from bit 42 on are a tag).
	highAddress = 7 << 42
	// watched is how many inotify instances an Envoy needs, measured, and one more. CoreDNS needs none.
	watched = 10
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
	newLimitFilter(limits).loadModules()
	for _, ask := range []func() error{
		func() error { return newLimitFilter(limits).installWithSix() }, askForRefusals, askForRouting, askForAddresses,
		askForOwnWatches,
	} {
		if err := ask(); err != nil {
			found.Lacking = append(found.Lacking, err.Error())
		}
	}
	return found
}

// RequireForEnvoy fails if Envoy could not start. Nothing is asked for CoreDNS that serve does not find out by itself.
func RequireForEnvoy(sibling boot.Sibling, user uint32) error {
	if sibling.Name != "envoy" {
		return nil
	}
	if err := askForAddresses(); err != nil {
		return err
	}
	return askForWatches(user)
}

func askForRefusals() error {
	socket, err := ListenForRefusals()
	if err == nil {
		socket.Close()
	}
	return err
}

func askForRouting() error {
	if _, err := routing.RuleList(unix.AF_INET); err != nil {
		return fmt.Errorf("routing by source addresses needs policy routing in the kernel (CONFIG_IP_MULTIPLE_TABLES): %w", err)
	}
	return nil
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

func askForOwnWatches() error {
	user, err := users.New()
	if err != nil {
		return err
	}
	return askForWatches(user)
}

// askForWatches fails if a user that has no other processes may not watch as many files as Envoy does.
func askForWatches(user uint32) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := watchAs(int(user))
	if err == nil {
		return nil
	}
	most, _ := os.ReadFile(filepath.Join(SystemSettings, "fs/inotify/max_user_instances"))
	return fmt.Errorf("Envoy needs %d inotify instances, and the kernel of the engine's machine gives fewer to a user, at most %s "+
		"(`sysctl -w fs.inotify.max_user_instances=1024` there): %w", watched, strings.TrimSpace(string(most)), err)
}

// watchAs opens what Envoy needs, as a user that this thread becomes for as long. A thread must not stay one: Go wedges the
// first thread of a process instead of ending it, and changes the user of a process in all threads or crashes.
func watchAs(user int) (err error) {
	if err := becomeHere(user); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, becomeHere(0)) }()
	for range watched {
		file, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if err != nil {
			return err
		}
		defer unix.Close(file)
	}
	return nil
}

// becomeHere sets the effective user of this thread, which decides and can be taken back.
func becomeHere(user int) error {
	const unchanged = ^uintptr(0)
	if _, _, failure := unix.RawSyscall(unix.SYS_SETRESUID, unchanged, uintptr(user), unchanged); failure != 0 {
		return failure
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
			"or its module can't be loaded%s): %w", whyNoModules(), first(err))
	}
	return nil
}

// modulesDisabled is 1 where no further module can be loaded until the next boot (kernel.modules_disabled).
var modulesDisabled = filepath.Join(SystemSettings, "kernel/modules_disabled")

// whyNoModules returns why the kernel loads no modules, to be put after words that say so; "" if nothing forbids it.
func whyNoModules() string {
	value, err := os.ReadFile(modulesDisabled)
	if err != nil || strings.TrimSpace(string(value)) != "1" {
		return ""
	}
	return ": kernel.modules_disabled=1 forbids it there until the next boot, so load them before it is set"
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
		_ = missingParts(f.rules, f.takes(nil)) // whether it takes them all is asked for afterwards
	}
}

func (f limitFilter) takes(options []nftables.ConnOption) func(*nftables.Rule) bool {
	return func(rule *nftables.Rule) bool { return f.install([]*nftables.Rule{rule}, options) == nil }
}

// builtIn are expressions that every kernel with nf_tables has (nft_basic_types in its nf_tables_core.c), by their types
// here. A verdict is an immediate.
var builtIn = []string{"immediate", "verdict", "cmp", "lookup", "bitwise", "byteorder", "payload", "dynset"}

// missingParts returns the expressions of nf_tables that the kernel lacks, of those in rules: what is in a rule that it
// does not take, in none that it takes, and not built in.
func missingParts(rules []*nftables.Rule, takes func(*nftables.Rule) bool) []string {
	refused, taken := map[string]bool{}, map[string]bool{}
	for _, rule := range rules {
		parts := refused
		if takes(rule) {
			parts = taken
		}
		for _, part := range partsOf(rule) {
			parts[part] = true
		}
	}
	maps.DeleteFunc(refused, func(part string, _ bool) bool { return taken[part] || slices.Contains(builtIn, part) })
	return slices.Sorted(maps.Keys(refused))
}

// partsOf returns the expressions in a rule, and those in the sets that it updates.
func partsOf(rule *nftables.Rule) []string {
	parts := []string{}
	for _, each := range rule.Exprs {
		parts = append(parts, partOf(each))
		if set, nested := each.(*expr.Dynset); nested {
			for _, inner := range set.Exprs {
				parts = append(parts, partOf(inner))
			}
		}
	}
	return parts
}

// partOf returns the kernel's name of an expression, which is that of its type here.
func partOf(each expr.Any) string {
	return strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", each), "*expr."))
}
