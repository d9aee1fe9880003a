// Package kernel configures and compares a container's network and packet filter, and reads the kernel's refusals.
package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"clawker-fw/internal/boot"
)

const (
	answerRulePriority = 90 // and up, before the rules for our tables
	firstRulePriority  = 100
	localRulePriority  = 200 // the kernel's own local rule has priority 0, before any rule that we can add

	// Priorities of the kernel's rules for the main and default tables.
	mainRulePriority    = 32766
	defaultRulePriority = 32767
)

// Shape applies the interface settings, limits agents, adds our addresses, blocks of addresses and the sources'
// routing tables, and deletes unwanted default routes.
//
// The kernel's local table normally comes first, so a guarded source could reach loopback and our own addresses
// whatever its own table says. So the local rule is moved behind our rules (policy routing: ip-rule(8)).
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

// blockRoute makes all addresses of a block local (AnyIP): programs can listen on them and the kernel answers ARP
// requests for them, although no interface has them.
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

// closeOtherWays deletes default routes without a desired gateway. Some engines add one even on an internal
// network.
func closeOtherWays(interfaces []boot.Interface) error {
	routes, err := netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return fmt.Errorf("reading the routes: %w", err)
	}
	for _, iface := range interfaces {
		if iface.Gateway != nil {
			continue
		}
		link, err := LinkIn(iface.Subnet)
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

// rulesFor returns the rule for the table and, for a source without a route to its own network, one that lets the
// kernel answer the gateway: the gateway asks for the source by ARP, and the kernel drops requests that it
// couldn't answer (rp_filter). The kernel decides that as user 0 of the container, which the program can't become,
// so none of the program's packets follow this rule.
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

// LinkHolding returns the interface with exactly this address, ignoring addresses of host scope.
func LinkHolding(address netip.Addr) (netlink.Link, error) {
	return linkWhere(func(other netip.Addr) bool { return other == address }, address.String())
}

func linkWhere(matches func(netip.Addr) bool, what string) (netlink.Link, error) {
	network, err := readNamespace()
	if err != nil {
		return nil, err
	}
	if link := network.holding(matches); link != nil {
		return link, nil
	}
	return nil, fmt.Errorf("%w has %s", ErrNoInterface, what)
}

// AddAddress adds an address to an interface, unless it has it.
func AddAddress(link netlink.Link, address netip.Addr, scope netlink.Scope) error {
	err := netlink.AddrAdd(link, &netlink.Addr{IPNet: IPNet(prefixOf(address)), Scope: int(scope)})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("adding %s to %s: %w", address, link.Attrs().Name, err)
	}
	return nil
}

// IPNet returns a prefix in netlink's form.
func IPNet(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), 32)}
}

// Addresses returns this container's IPv4 addresses, sorted, without those of host scope.
func Addresses() []string {
	addresses := []string{}
	list, err := netlink.AddrList(nil, unix.AF_INET)
	if err != nil {
		return addresses
	}
	for _, address := range list {
		if ip, ok := netip.AddrFromSlice(address.IP.To4()); ok && netlink.Scope(address.Scope) != netlink.SCOPE_HOST {
			addresses = append(addresses, ip.String())
		}
	}
	slices.Sort(addresses)
	return addresses
}

// SystemSettings is the folder with the sysctls of this network namespace (sysctl(8)).
const SystemSettings = "/proc/sys"

// inetConf is the netlink attribute with the IPv4 settings of an interface (linux/if_link.h).
const inetConf = 1

// settingNumbers maps the names in net.ipv4.conf to the kernel's numbers (IPV4_DEVCONF_*, linux/ip.h).
var settingNumbers = map[string]int{
	"forwarding": 1, "proxy_arp": 3, "rp_filter": 8, "accept_source_route": 9, "arp_filter": 13, "arp_announce": 18,
	"arp_ignore": 19, "arp_accept": 21, "accept_local": 23, "proxy_arp_pvlan": 25, "route_localnet": 26,
	"drop_gratuitous_arp": 31,
}

// setInterfaces applies the settings to each interface that is up. It uses netlink, because /proc/sys is read-only
// in a container. The engine can't set them: it adds interfaces after applying the container's sysctls, and new
// interfaces have the host's defaults.
func setInterfaces(settings map[string]int) error {
	if len(settings) == 0 {
		return nil
	}
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("reading the interfaces: %w", err)
	}
	for _, link := range links {
		if link.Attrs().Flags&unix.IFF_UP == 0 {
			continue // e.g. a tunnel that the kernel creates in every namespace; it passes no packets
		}
		family := nl.NewRtAttr(unix.AF_INET, nil)
		values := family.AddRtAttr(inetConf, nil)
		for _, name := range slices.Sorted(maps.Keys(settings)) {
			number, ok := settingNumbers[name]
			if !ok {
				return fmt.Errorf("unknown interface setting %q", name)
			}
			values.AddRtAttr(number, nl.Uint32Attr(uint32(settings[name])))
		}
		specification := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
		specification.AddChild(family)
		message := nl.NewIfInfomsg(unix.AF_UNSPEC)
		message.Index = int32(link.Attrs().Index)
		request := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
		request.AddData(message)
		request.AddData(specification)
		if _, err := request.Execute(unix.NETLINK_ROUTE, 0); err != nil {
			return fmt.Errorf("settings of %s: %w", link.Attrs().Name, err)
		}
	}
	return nil
}

func settingDifferences(sibling boot.Sibling, network *namespace) ([]string, error) {
	expected := maps.Clone(sibling.Sysctls)
	if expected == nil {
		expected = map[string]string{}
	}
	for _, link := range network.links {
		if link.Attrs().Flags&unix.IFF_UP == 0 {
			continue
		}
		for name, value := range sibling.Settings {
			// In a sysctl's name, a dot in an interface's name is written as a slash.
			place := strings.ReplaceAll(link.Attrs().Name, ".", "/")
			expected["net.ipv4.conf."+place+"."+name] = strconv.Itoa(value)
		}
	}
	var differences []string
	var failures []error
	for name, value := range expected {
		current, err := readSetting(name)
		if err != nil {
			failures = append(failures, err)
		} else if current != value {
			differences = append(differences, fmt.Sprintf("%s is %s, not %s", name, current, value))
		}
	}
	return differences, errors.Join(failures...)
}

func readSetting(name string) (string, error) {
	swap := strings.NewReplacer(".", "/", "/", ".")
	text, err := os.ReadFile(filepath.Join(SystemSettings, swap.Replace(name)))
	return strings.Join(strings.Fields(string(text)), " "), err // the kernel separates several values by tabs
}

// The kernel's table of connections forgets a half-closed one after 60 s without a packet. The limits (limits.go)
// no longer count it then, though the program may still hold it. Keepalive sends packets while nothing else is to
// be sent. While an agent doesn't read, the kernel probes its window instead, at intervals up to TCP_RTO_MAX (120
// s). So the table must remember connections longer. fwctl sets that by netlink, because /proc/sys is read-only in
// a container, and the engine can't: some kernels lack the sysctl in a user namespace.

// Ended connections no longer count (nf_conncount_list), but stay in the table, by default for 120 s: two agents
// that open 450 connections a second would fill that of a small host. The kernel of the program's sockets
// remembers its own ended connections and answers late packets, so the table need not.

// Netlink messages and attributes of timeouts (linux/netfilter/nfnetlink_cttimeout.h).
const (
	timeoutSubsystem  = unix.NFNL_SUBSYS_CTNETLINK_TIMEOUT << 8
	timeoutDefaultSet = timeoutSubsystem | 3
	timeoutDefaultGet = timeoutSubsystem | 4

	timeoutNetwork, timeoutTransport, timeoutData = 2, 3, 4
)

// remembered is how long the table remembers TCP connections in some states, by their numbers in timeoutData.
var remembered = []struct {
	state  int
	what   string
	within time.Duration
}{
	{1, "connections without an answer are kept for %d s, not %.0f", 15 * time.Second}, // Envoy gives up after 10 s
	// Longer than TCP_RTO_MAX plus an eighth of it, by which the kernel's timers may be late.
	{5, "half closed connections are counted for %d s without a packet, not %.0f", 150 * time.Second},
	{7, "ended connections are kept for %d s, not %.0f", 2 * time.Second},
	{8, "connections that were reset are kept for %d s, not %.0f", 2 * time.Second},
}

// setTimeouts sets these times in this network's table. A kernel that can't set them (without
// CONFIG_NF_CT_NETLINK_TIMEOUT) keeps its defaults.
func setTimeouts() error {
	data := nl.NewRtAttr(timeoutData|unix.NLA_F_NESTED, nil)
	for _, timeout := range remembered {
		data.AddRtAttr(timeout.state, nl.BEUint32Attr(uint32(timeout.within.Seconds())))
	}
	_, err := askTimeouts(timeoutDefaultSet, data)
	return err
}

func timeoutDifferences(sibling boot.Sibling, _ *namespace) ([]string, error) {
	if sibling.Limits == nil {
		return nil, nil
	}
	answer, err := askTimeouts(timeoutDefaultGet)
	if answer == nil || err != nil {
		return nil, err
	}
	timeouts, err := answer.in(timeoutData)
	if err != nil {
		return nil, err
	}
	var differences []string
	for _, timeout := range remembered {
		value := timeouts.value(timeout.state)
		if len(value) != 4 {
			return nil, fmt.Errorf("unreadable timeout %d of connections", timeout.state)
		}
		if seconds := binary.BigEndian.Uint32(value); seconds != uint32(timeout.within.Seconds()) {
			differences = append(differences, fmt.Sprintf(timeout.what, seconds, timeout.within.Seconds()))
		}
	}
	return differences, nil
}

// askTimeouts queries or sets the table's timeouts for TCP. A kernel without them answers nothing. Others mark an
// answer as one of several and never send the end, so an acknowledgement is the end.
func askTimeouts(question int, about ...nl.NetlinkRequestData) (attributes, error) {
	request := nl.NewNetlinkRequest(question, unix.NLM_F_ACK)
	request.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_INET, Version: unix.NFNETLINK_V0})
	request.AddData(nl.NewRtAttr(timeoutNetwork, nl.BEUint16Attr(unix.AF_INET)))
	request.AddData(nl.NewRtAttr(timeoutTransport, nl.Uint8Attr(unix.IPPROTO_TCP)))
	for _, attribute := range about {
		request.AddData(attribute)
	}
	messages, err := request.Execute(unix.NETLINK_NETFILTER, 0)
	if errors.Is(err, unix.EINVAL) { // no such subsystem
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("timeouts of connections: %w", err)
	}
	if len(messages) == 0 {
		return nil, nil
	}
	return readMessage(messages[0])
}
