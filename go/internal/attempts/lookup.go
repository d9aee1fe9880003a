package attempts

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/users"
)

// lookupLimit is how long Envoy waits for the addresses of a name as well.
const lookupLimit = 5 * time.Second

// Lookup is the output of lookup: the IPv4 addresses of a name as this container's resolver answers now.
type Lookup struct {
	Addresses []Looked `json:"addresses"`
	Error     string   `json:"error"` // why there is none, or ""
}

// Looked is an address, and the sources that have no route to it, by the names of their tables.
type Looked struct {
	Address netip.Addr `json:"address"`
	Closed  []string   `json:"closed"`
}

// Resolve resolves a name like Envoy, which uses IPv4 alone and no search domains, and asks the kernel from which of the
// sources each address can be reached.
func Resolve(tables []boot.Table, resolver *net.Resolver, name string) (Lookup, error) {
	found := Lookup{Addresses: []Looked{}}
	limited, cancel := context.WithTimeout(context.Background(), lookupLimit)
	defer cancel()
	addresses, err := addressesOf(limited, resolver, name)
	if err != nil {
		found.Error = whyUnknown(err)
		return found, nil
	}
	slices.SortFunc(addresses, netip.Addr.Compare)
	for _, address := range slices.Compact(addresses) {
		closed, err := closedTo(tables, address.Unmap())
		if err != nil {
			return found, err
		}
		found.Addresses = append(found.Addresses, Looked{address.Unmap(), closed})
	}
	return found, nil
}

// addressesOf looks up a name. An address, for which a rule has a name, is not looked up.
func addressesOf(limited context.Context, resolver *net.Resolver, name string) ([]netip.Addr, error) {
	if address, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{address}, nil
	}
	return resolver.LookupNetIP(limited, "ip4", name+".")
}

// whyUnknown returns the reason without the resolver's address, which says nothing to anybody outside.
func whyUnknown(err error) string {
	var failure *net.DNSError
	if !errors.As(err, &failure) || failure.IsTimeout {
		return reason(err)
	}
	if failure.IsNotFound {
		return "no such name, or none with an IPv4 address"
	}
	return failure.Err
}

// closedTo returns the names of the sources without a route to an address. The kernel decides in the same way when a
// connection from the source begins. A local route, which 0.0.0.0 always has, leads no further than this container.
func closedTo(tables []boot.Table, address netip.Addr) ([]string, error) {
	closed, user := []string{}, uint32(users.Readers) // any but root's
	for _, table := range tables {
		routes, err := netlink.RouteGetWithOptions(address.AsSlice(), &netlink.RouteGetOptions{SrcAddr: table.From.AsSlice(), UID: &user})
		if errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ENETUNREACH) {
			closed = append(closed, table.Name)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("the route from %s to %s: %w", table.From, address, err)
		}
		if slices.ContainsFunc(routes, func(route netlink.Route) bool { return route.Type == unix.RTN_LOCAL }) {
			closed = append(closed, table.Name)
		}
	}
	return closed, nil
}
