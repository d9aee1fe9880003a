package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sort"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	firstRulePriority = 100
	localRulePriority = 200 // the kernel's own local rule is at 0, before anything we could add
)

// shapeNetwork gives the interfaces their further addresses and the guarded sources their routing tables.
//
// The kernel's local table normally comes first, which would let a guarded source reach loopback and our own
// addresses whatever its table says; it is moved behind our rules (policy routing: ip-rule(8)).
func shapeNetwork(sibling Sibling) error {
	for _, address := range sibling.Addresses {
		link, err := linkIn(address.Subnet)
		if err != nil {
			return err
		}
		if err := addAddress(link, address.Address, netlink.SCOPE_UNIVERSE); err != nil {
			return err
		}
	}
	for index, table := range sibling.Tables {
		routes, err := table.routes()
		if err != nil {
			return err
		}
		for _, route := range routes {
			if err := netlink.RouteReplace(&route); err != nil {
				return fmt.Errorf("route %s: %w", route, err)
			}
		}
		if err := addRule(table.rule(index)); err != nil {
			return err
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

func (t Table) rule(index int) *netlink.Rule {
	rule := netlink.NewRule()
	rule.Family = unix.AF_INET
	rule.Priority = firstRulePriority + index
	rule.Src = ipNet(netip.PrefixFrom(t.From, 32))
	rule.Table = t.ID
	return rule
}

func (t Table) routes() ([]netlink.Route, error) {
	link, err := linkIn(t.Subnet)
	if err != nil {
		return nil, err
	}
	everywhere := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	routes := []netlink.Route{{
		Table: t.ID, Dst: ipNet(everywhere), Gw: t.Gateway.AsSlice(),
		LinkIndex: link.Attrs().Index, Flags: int(netlink.FLAG_ONLINK), Type: unix.RTN_UNICAST,
	}}
	if t.Connected {
		routes = append(routes, netlink.Route{
			Table: t.ID, Dst: ipNet(t.Subnet), LinkIndex: link.Attrs().Index,
			Scope: netlink.SCOPE_LINK, Type: unix.RTN_UNICAST,
		})
	}
	for _, prefix := range t.Unreachable {
		routes = append(routes, netlink.Route{Table: t.ID, Dst: ipNet(prefix), Type: unix.RTN_UNREACHABLE})
	}
	return routes, nil
}

// networkDifferences says in words how the kernel's rules, tables and addresses differ from what was asked.
func networkDifferences(sibling Sibling) ([]string, error) {
	differences := []string{}
	for _, address := range sibling.Addresses {
		_, err := linkHolding(address.Address)
		if errors.Is(err, errNoInterface) {
			differences = append(differences, fmt.Sprintf("address %s is missing", address.Address))
		} else if err != nil {
			return nil, err
		}
	}
	if len(sibling.Tables) == 0 {
		return differences, nil
	}
	rules, err := netlink.RuleList(unix.AF_INET)
	if err != nil {
		return nil, err
	}
	expected := map[string]bool{describeRule(*localRule(localRulePriority)): true}
	for index, table := range sibling.Tables {
		expected[describeRule(*table.rule(index))] = true
	}
	for _, rule := range rules {
		if rule.Priority > localRulePriority {
			continue // the kernel's main and default rules, which come after ours have decided
		}
		text := describeRule(rule)
		if !expected[text] {
			differences = append(differences, "rule "+text+" is not ours")
		}
		delete(expected, text)
	}
	for text := range expected {
		differences = append(differences, "rule "+text+" is missing")
	}
	for _, table := range sibling.Tables {
		found, err := table.differences()
		if err != nil {
			return nil, err
		}
		differences = append(differences, found...)
	}
	sort.Strings(differences)
	return differences, nil
}

func (t Table) differences() ([]string, error) {
	wanted, err := t.routes()
	if err != nil {
		return nil, err
	}
	present, err := netlink.RouteListFiltered(
		unix.AF_INET, &netlink.Route{Table: t.ID}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, err
	}
	expected := map[string]bool{}
	for _, route := range wanted {
		expected[describeRoute(route)] = true
	}
	var differences []string
	for _, route := range present {
		text := describeRoute(route)
		if !expected[text] {
			differences = append(differences, fmt.Sprintf("route %s in table %d is not ours", text, t.ID))
		}
		delete(expected, text)
	}
	for text := range expected {
		differences = append(differences, fmt.Sprintf("route %s in table %d is missing", text, t.ID))
	}
	return differences, nil
}

func describeRule(rule netlink.Rule) string {
	source := "all"
	if rule.Src != nil {
		source = rule.Src.String()
	}
	text := fmt.Sprintf("%d: from %s lookup %d", rule.Priority, source, rule.Table)
	plain := netlink.NewRule()
	plain.Priority, plain.Src, plain.Table = rule.Priority, rule.Src, rule.Table
	plain.Family, plain.Protocol = rule.Family, rule.Protocol // who made it, which decides nothing
	if rule != *plain {
		text += " on a further condition" // `not`, a mark, an interface, a destination, a port, ...
	}
	return text
}

func describeRoute(route netlink.Route) string {
	destination := "default"
	if route.Dst != nil && route.Dst.String() != "0.0.0.0/0" {
		destination = route.Dst.String()
	}
	if route.Tos != 0 {
		destination += fmt.Sprintf(" tos %d", route.Tos)
	}
	switch {
	case route.Type == unix.RTN_UNREACHABLE:
		return "unreachable " + destination
	case route.Type != unix.RTN_UNICAST:
		return fmt.Sprintf("%s of type %d", destination, route.Type)
	case route.Gw != nil:
		return fmt.Sprintf("%s via %s on interface %d", destination, route.Gw, route.LinkIndex)
	}
	return fmt.Sprintf("%s connected on interface %d", destination, route.LinkIndex)
}

// errNoInterface tells that an address is not here from not knowing whether it is.
var errNoInterface = errors.New("no interface")

// linkIn is the interface that has an address in the subnet.
func linkIn(subnet netip.Prefix) (netlink.Link, error) {
	return linkWhere(subnet.Contains, fmt.Sprintf("an address in %s", subnet))
}

// linkHolding is the interface that holds exactly the address, reachable from outside.
func linkHolding(address netip.Addr) (netlink.Link, error) {
	return linkWhere(func(other netip.Addr) bool { return other == address }, address.String())
}

func linkWhere(matches func(netip.Addr) bool, what string) (netlink.Link, error) {
	addresses, err := netlink.AddrList(nil, unix.AF_INET)
	if err != nil {
		return nil, err
	}
	for _, address := range addresses {
		ip, _ := netip.AddrFromSlice(address.IP.To4())
		if matches(ip) && netlink.Scope(address.Scope) != netlink.SCOPE_HOST {
			return netlink.LinkByIndex(address.LinkIndex)
		}
	}
	return nil, fmt.Errorf("%w has %s", errNoInterface, what)
}

func addAddress(link netlink.Link, address netip.Addr, scope netlink.Scope) error {
	err := netlink.AddrAdd(link, &netlink.Addr{
		IPNet: ipNet(netip.PrefixFrom(address, 32)), Scope: int(scope),
	})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("adding %s to %s: %w", address, link.Attrs().Name, err)
	}
	return nil
}

func ipNet(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), 32)}
}
