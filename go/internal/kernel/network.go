// Package kernel shapes a sibling's network and its packet filter, compares both with what they ought to be, and reads
// what the kernel refuses.
package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"clawker-fw/internal/boot"
)

const (
	answerRulePriority = 90 // and up, before the rules of our tables
	firstRulePriority  = 100
	localRulePriority  = 200 // the kernel's own local rule has priority 0, before any rule that we could add

	// Priorities of the kernel's rules for the main and default tables.
	mainRulePriority    = 32766
	defaultRulePriority = 32767
)

// Shape applies the interface settings, limits agents, adds our addresses, blocks of addresses and the routing
// tables of guarded and exempt sources, and deletes default routes that nobody asked for.
//
// The kernel's local table normally comes first. It would let a guarded source reach loopback and our own addresses
// whatever its own table says, so the local rule is moved behind our rules (policy routing: ip-rule(8)).
func Shape(sibling boot.Sibling) error {
	if err := setInterfaces(sibling.Settings); err != nil {
		return err
	}
	if err := closeOtherWays(sibling.Interfaces); err != nil {
		return err
	}
	if err := installFilter(sibling); err != nil {
		return err
	}
	for _, address := range sibling.Addresses {
		link, err := LinkIn(address.Subnet)
		if err != nil {
			return err
		}
		if err := AddAddress(link, address.Address, netlink.SCOPE_UNIVERSE); err != nil {
			return err
		}
	}
	for _, block := range sibling.Blocks {
		link, err := LinkIn(sibling.Around(block))
		if err != nil {
			return err
		}
		if err := replaceRoutes(blockRoute(block, link)); err != nil {
			return err
		}
	}
	for index, table := range sibling.Tables {
		link, err := LinkIn(table.Subnet)
		if err != nil {
			return err
		}
		if err := replaceRoutes(routesIn(table, link)...); err != nil {
			return err
		}
		for _, rule := range rulesFor(table, index) {
			if err := addRule(rule); err != nil {
				return err
			}
		}
	}
	if len(sibling.Tables) == 0 {
		return nil
	}
	if err := addRule(localRule(localRulePriority)); err != nil {
		return err
	}
	err := netlink.RuleDel(localRule(0))
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("moving the local rule: %w", err)
	}
	return nil
}

// blockRoute makes all addresses of a block local (AnyIP): a program can listen on each of them, and the kernel answers
// ARP requests for them, although no interface has them.
func blockRoute(block netip.Prefix, link netlink.Link) netlink.Route {
	return netlink.Route{
		Table: unix.RT_TABLE_LOCAL, Dst: IPNet(block), LinkIndex: indexOf(link), Scope: netlink.SCOPE_HOST, Type: unix.RTN_LOCAL,
	}
}

func replaceRoutes(routes ...netlink.Route) error {
	for _, route := range routes {
		if err := netlink.RouteReplace(&route); err != nil {
			return fmt.Errorf("route %s: %w", route, err)
		}
	}
	return nil
}

// closeOtherWays deletes default routes through networks without a desired gateway. Some engines add one even on an
// internal network.
func closeOtherWays(interfaces []boot.Interface) error {
	routes, err := netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return fmt.Errorf("reading the routes: %w", err)
	}
	for _, each := range interfaces {
		if each.Gateway != nil {
			continue
		}
		link, err := LinkIn(each.Subnet)
		if errors.Is(err, ErrNoInterface) {
			continue // no interface, so no route
		}
		if err != nil {
			return err
		}
		for _, route := range routes {
			if route.LinkIndex != link.Attrs().Index || !isDefault(route) {
				continue
			}
			if err := netlink.RouteDel(&route); err != nil {
				return fmt.Errorf("deleting the route %s: %w", route, err)
			}
		}
	}
	return nil
}

func isDefault(route netlink.Route) bool {
	if route.Dst == nil {
		return true
	}
	bits, _ := route.Dst.Mask.Size()
	return bits == 0 && route.Dst.IP.IsUnspecified()
}

func addRule(rule *netlink.Rule) error {
	if err := netlink.RuleAdd(rule); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("rule %d: %w", rule.Priority, err)
	}
	return nil
}

func localRule(priority int) *netlink.Rule {
	rule := netlink.NewRule()
	rule.Family = unix.AF_INET
	rule.Priority = priority
	rule.Table = unix.RT_TABLE_LOCAL
	return rule
}

// rulesFor returns the rule that leads to the table, and the one that lets the kernel answer the gateway from a source that
// has no route to its own network. The gateway asks by ARP where the source is, and the kernel drops what it could not
// answer (rp_filter). It decides that as user 0 of the container, whom the program can't become: nothing that the program
// sends follows this rule, whatever the gateway's machine listens on.
func rulesFor(t boot.Table, index int) []*netlink.Rule {
	rule := netlink.NewRule()
	rule.Family = unix.AF_INET
	rule.Priority = firstRulePriority + index
	rule.Src = IPNet(prefixOf(t.From))
	rule.Table = t.ID
	if t.Connected {
		return []*netlink.Rule{rule}
	}
	answer := netlink.NewRule()
	answer.Family = unix.AF_INET
	answer.Priority = answerRulePriority + index
	answer.Src = rule.Src
	answer.Dst = IPNet(prefixOf(t.Gateway))
	answer.UIDRange = netlink.NewRuleUIDRange(0, 0)
	answer.Table = unix.RT_TABLE_MAIN
	return []*netlink.Rule{answer, rule}
}

func routesIn(t boot.Table, link netlink.Link) []netlink.Route {
	routes := []netlink.Route{{
		Table: t.ID, Dst: IPNet(netip.PrefixFrom(netip.IPv4Unspecified(), 0)), Gw: t.Gateway.AsSlice(),
		LinkIndex: indexOf(link), Flags: int(netlink.FLAG_ONLINK), Type: unix.RTN_UNICAST,
	}}
	if t.Connected {
		routes = append(routes, netlink.Route{
			Table: t.ID, Dst: IPNet(t.Subnet.Masked()), LinkIndex: indexOf(link), Scope: netlink.SCOPE_LINK, Type: unix.RTN_UNICAST,
		})
	}
	for _, prefix := range t.Unreachable {
		routes = append(routes, netlink.Route{Table: t.ID, Dst: IPNet(prefix), Type: unix.RTN_UNREACHABLE})
	}
	return routes
}

// ErrNoInterface means that no interface has the address, as opposed to a failure to find out.
var ErrNoInterface = errors.New("no interface")

// LinkIn returns the interface that has an address in the subnet.
func LinkIn(subnet netip.Prefix) (netlink.Link, error) {
	return linkWhere(subnet.Contains, fmt.Sprintf("an address in %s", subnet))
}

// LinkHolding returns the interface that holds exactly this address, not counting addresses of host scope.
func LinkHolding(address netip.Addr) (netlink.Link, error) {
	return linkWhere(func(other netip.Addr) bool { return other == address }, address.String())
}

func linkWhere(matches func(netip.Addr) bool, what string) (netlink.Link, error) {
	seen, err := readNamespace()
	if err != nil {
		return nil, err
	}
	if link := seen.holding(matches); link != nil {
		return link, nil
	}
	return nil, fmt.Errorf("%w has %s", ErrNoInterface, what)
}

// AddAddress gives an interface an address, if it does not have it.
func AddAddress(link netlink.Link, address netip.Addr, scope netlink.Scope) error {
	err := netlink.AddrAdd(link, &netlink.Addr{IPNet: IPNet(prefixOf(address)), Scope: int(scope)})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("adding %s to %s: %w", address, link.Attrs().Name, err)
	}
	return nil
}

// IPNet returns a prefix in the form of netlink.
func IPNet(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), 32)}
}

// Addresses returns this container's IPv4 addresses, sorted, without those of host scope.
func Addresses() []string {
	found := []string{}
	list, err := netlink.AddrList(nil, unix.AF_INET)
	if err != nil {
		return found
	}
	for _, address := range list {
		if ip, ok := netip.AddrFromSlice(address.IP.To4()); ok && netlink.Scope(address.Scope) != netlink.SCOPE_HOST {
			found = append(found, ip.String())
		}
	}
	slices.Sort(found)
	return found
}
