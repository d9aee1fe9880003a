package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"clawker-fw/internal/boot"
)

const changesTolerated = 3

type namespace struct {
	links     []netlink.Link
	addresses []netlink.Addr
}

// Differences returns the differences of this network namespace from the desired one, a sentence each. It reads
// everything that affects packets. Each item is either expected or a difference, and so is an unreadable part.
func Differences(sibling boot.Sibling) []string {
	differences := []string{}
	network, err := readNamespace()
	if err != nil {
		return append(differences, "unreadable: interfaces: "+err.Error())
	}
	for _, part := range []struct {
		name    string
		compare func(boot.Sibling, *namespace) ([]string, error)
	}{
		{"interfaces", interfaceDifferences},
		{"queues", queueDifferences},
		{"addresses", addressDifferences},
		{"routes", routeDifferences},
		{"rules", ruleDifferences},
		{"neighbours", neighbourDifferences},
		{"settings", settingDifferences},
		{"packet filter", filterDifferences},
		{"timeouts", timeoutDifferences},
		{"IPsec policies", policyDifferences},
	} {
		partDifferences, err := part.compare(sibling, network)
		for range changesTolerated {
			if !errors.Is(err, netlink.ErrDumpInterrupted) {
				break
			}
			partDifferences, err = part.compare(sibling, network)
		}
		differences = append(differences, partDifferences...)
		if err != nil {
			text := strings.ReplaceAll(err.Error(), "\n", "; ")
			differences = append(differences, fmt.Sprintf("unreadable: %s: %s", part.name, text))
		}
	}
	slices.Sort(differences)
	return slices.Compact(differences)
}

func readNamespace() (*namespace, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	addresses, err := netlink.AddrList(nil, unix.AF_UNSPEC)
	if err != nil {
		return nil, err
	}
	return &namespace{links, addresses}, nil
}

func (n *namespace) link(index int) netlink.Link {
	at := slices.IndexFunc(n.links, func(link netlink.Link) bool { return link.Attrs().Index == index })
	if at < 0 {
		return nil
	}
	return n.links[at]
}

func (n *namespace) name(index int) string {
	if link := n.link(index); link != nil {
		return link.Attrs().Name
	}
	return fmt.Sprintf("interface %d", index)
}

func (n *namespace) holding(matches func(netip.Addr) bool) netlink.Link {
	for _, address := range n.addresses {
		ip, ok := netip.AddrFromSlice(address.IP.To4())
		if !ok || !matches(ip) || netlink.Scope(address.Scope) == netlink.SCOPE_HOST {
			continue
		}
		return n.link(address.LinkIndex)
	}
	return nil
}

func (n *namespace) withAddress(address netip.Addr) netlink.Link {
	return n.holding(func(other netip.Addr) bool { return other == address })
}

func (n *namespace) in(subnet netip.Prefix) netlink.Link { return n.holding(subnet.Contains) }

func indexOf(link netlink.Link) int {
	if link == nil {
		return 0
	}
	return link.Attrs().Index
}

func (n *namespace) nameIn(subnet netip.Prefix) string {
	if link := n.in(subnet); link != nil {
		return link.Attrs().Name
	}
	return fmt.Sprintf("the interface in %s", subnet)
}

func interfaceDifferences(sibling boot.Sibling, network *namespace) ([]string, error) {
	var differences []string
	ours := map[int]bool{}
	for _, iface := range sibling.Interfaces {
		link := network.withAddress(iface.Address)
		if link == nil {
			differences = append(differences, fmt.Sprintf("the interface with %s is missing", iface.Address))
			continue
		}
		ours[link.Attrs().Index] = true
		differences = append(differences, problems(link)...)
	}
	for _, link := range network.links {
		attributes := link.Attrs()
		switch {
		case attributes.Flags&net.FlagLoopback != 0:
			differences = append(differences, problems(link)...)
		case !ours[attributes.Index] && attributes.Flags&net.FlagUp != 0:
			differences = append(differences, fmt.Sprintf("interface %s is not ours", attributes.Name))
		}
	}
	return differences, nil
}

func problems(link netlink.Link) []string {
	attributes := link.Attrs()
	var differences []string
	switch {
	case attributes.Flags&net.FlagUp == 0:
		differences = append(differences, attributes.Name+" is down")
	case attributes.RawFlags&unix.IFF_LOWER_UP == 0:
		differences = append(differences, attributes.Name+" has no carrier")
	}
	if attributes.RawFlags&unix.IFF_NOARP != 0 {
		differences = append(differences, attributes.Name+" has ARP switched off")
	}
	if attributes.MasterIndex != 0 {
		differences = append(differences, attributes.Name+" is enslaved to another interface")
	}
	if attributes.Xdp != nil && attributes.Xdp.Attached {
		differences = append(differences, attributes.Name+" has an XDP program attached")
	}
	return differences
}

// queueDifferences finds queueing disciplines, which can delay, drop or divert packets. Veth pairs have none.
func queueDifferences(_ boot.Sibling, network *namespace) ([]string, error) {
	queues, err := netlink.QdiscList(nil)
	if errors.Is(err, unix.EOPNOTSUPP) { // a kernel without CONFIG_NET_SCHED
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var differences []string
	for _, queue := range queues {
		if queue.Type() != "noqueue" {
			differences = append(differences,
				fmt.Sprintf("queue %s on %s is not ours", queue.Type(), network.name(queue.Attrs().LinkIndex)))
		}
	}
	return differences, nil
}

func addressDifferences(sibling boot.Sibling, network *namespace) ([]string, error) {
	expected := Expect("address 127.0.0.1/8 on lo of scope host")
	expected.Allow("address ::1/128 on lo of scope host")
	for _, iface := range sibling.Interfaces {
		name := network.nameIn(iface.Subnet)
		expected.Add(fmt.Sprintf("address %s/%d on %s", iface.Address, iface.Subnet.Bits(), name))
	}
	for _, address := range sibling.Addresses {
		expected.Add(fmt.Sprintf("address %s/32 on %s", address.Address, network.nameIn(address.Subnet)))
	}
	if sibling.Service != nil { // the report has `claimed` for it; a released one stays on lo
		service := sibling.Service
		expected.Allow(
			fmt.Sprintf("address %s/32 on %s", service.Address, network.nameIn(service.Subnet)),
			fmt.Sprintf("address %s/32 on lo of scope host", service.Address),
		)
	}
	var texts []string
	for _, address := range network.addresses {
		text := fmt.Sprintf("address %s on %s", address.IPNet, network.name(address.LinkIndex))
		if scope := netlink.Scope(address.Scope); scope != netlink.SCOPE_UNIVERSE {
			text += " of scope " + scope.String()
		}
		if address.Peer != nil && address.Peer.String() != address.IPNet.String() {
			text += " towards " + address.Peer.String()
		}
		texts = append(texts, text)
	}
	return expected.Differences(texts), nil
}

func routeDifferences(sibling boot.Sibling, network *namespace) ([]string, error) {
	expected := Expect()
	add := func(routes ...netlink.Route) {
		for _, route := range routes {
			expected.Add(network.describeRoute(route))
		}
	}
	for _, iface := range sibling.Interfaces {
		add(netlink.Route{
			Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST, Dst: IPNet(iface.Subnet.Masked()),
			LinkIndex: indexOf(network.in(iface.Subnet)), Src: iface.Address.AsSlice(),
		})
		if iface.Gateway != nil {
			add(netlink.Route{
				Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST, Gw: iface.Gateway.AsSlice(), LinkIndex: indexOf(network.in(iface.Subnet)),
			})
		}
	}
	for _, table := range sibling.Tables {
		add(routesIn(table, network.in(table.Subnet))...)
	}
	for _, block := range sibling.Blocks {
		add(blockRoute(block, network.in(sibling.Around(block))))
	}
	for _, address := range network.addresses {
		expectLocal(expected, network, address)
	}
	routes, err := netlink.RouteListFiltered(
		unix.AF_INET, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, err
	}
	var texts []string
	for _, route := range routes {
		texts = append(texts, network.describeRoute(route))
	}
	six, err := network.sixRoutes()
	return append(expected.Differences(texts), six...), err
}

// sixRoutes finds IPv6 routes other than the kernel's for its loopback address.
func (n *namespace) sixRoutes() ([]string, error) {
	routes, err := netlink.RouteListFiltered(
		unix.AF_INET6, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, err
	}
	var differences []string
	for _, route := range routes {
		link := n.link(route.LinkIndex)
		own := link != nil && link.Attrs().Flags&net.FlagLoopback != 0 &&
			(route.Dst != nil && route.Dst.String() == "::1/128" || isDefault(route) && route.Type == unix.RTN_UNREACHABLE)
		if route.Family == unix.AF_INET6 && !own { // without IPv6, the kernel returns its IPv4 routes
			differences = append(differences, inSix+n.describeRoute(route)+" is not ours")
		}
	}
	return differences, nil
}

// expectLocal adds the kernel's entries in the local table for an address, which addressDifferences has compared.
// Older kernels also have a broadcast route for a subnet's first address.
func expectLocal(expected Expectation, network *namespace, address netlink.Addr) {
	ip, ok := netip.AddrFromSlice(address.IP.To4())
	if !ok {
		return
	}
	bits, _ := address.Mask.Size()
	subnet := netip.PrefixFrom(ip, bits).Masked()
	local := func(form int, place netip.Prefix) string {
		return network.describeRoute(netlink.Route{
			Table: unix.RT_TABLE_LOCAL, Type: form, Dst: IPNet(place), LinkIndex: address.LinkIndex, Src: ip.AsSlice(),
		})
	}
	expected.Add(local(unix.RTN_LOCAL, prefixOf(ip)))
	if ip.IsLoopback() {
		expected.Add(local(unix.RTN_LOCAL, subnet))
	}
	if bits < 31 {
		expected.Add(local(unix.RTN_BROADCAST, prefixOf(lastOf(subnet))))
		expected.Allow(local(unix.RTN_BROADCAST, prefixOf(subnet.Addr())))
	}
}

func lastOf(prefix netip.Prefix) netip.Addr {
	bytes := prefix.Addr().As4()
	for bit := prefix.Bits(); bit < 32; bit++ {
		bytes[bit/8] |= 1 << (7 - bit%8)
	}
	return netip.AddrFrom4(bytes)
}

var routeTypes = map[int]string{
	unix.RTN_LOCAL: "local ", unix.RTN_BROADCAST: "broadcast ", unix.RTN_UNREACHABLE: "unreachable ",
	unix.RTN_UNICAST: "", unix.RTN_ANYCAST: "anycast ", unix.RTN_MULTICAST: "multicast ",
	unix.RTN_BLACKHOLE: "blackhole ", unix.RTN_PROHIBIT: "prohibit ", unix.RTN_THROW: "throw ", unix.RTN_NAT: "nat ",
}

func (n *namespace) describeRoute(route netlink.Route) string {
	form, ok := routeTypes[route.Type]
	if !ok {
		form = fmt.Sprintf("type %d ", route.Type)
	}
	text := "route " + form
	if isDefault(route) {
		text += "default"
	} else {
		text += route.Dst.String()
	}
	if route.Gw != nil {
		text += " via " + route.Gw.String()
	}
	if route.LinkIndex != 0 {
		text += " on " + n.name(route.LinkIndex)
	}
	if route.Src != nil {
		text += " from " + route.Src.String()
	}
	if route.Tos != 0 {
		text += fmt.Sprintf(" tos %d", route.Tos)
	}
	if route.Priority != 0 {
		text += fmt.Sprintf(" metric %d", route.Priority)
	}
	plain := netlink.Route{
		Type: route.Type, Dst: route.Dst, Gw: route.Gw, LinkIndex: route.LinkIndex, Src: route.Src, Tos: route.Tos,
		Priority: route.Priority, Table: route.Table,
		Family: route.Family, Protocol: route.Protocol, Scope: route.Scope, Flags: route.Flags, // these don't affect the decision
	}
	if !reflect.DeepEqual(route, plain) {
		text += " with further attributes" // multipath, encapsulation, MTU, ...
	}
	return fmt.Sprintf("%s in table %d", text, route.Table)
}

func ruleDifferences(sibling boot.Sibling, _ *namespace) ([]string, error) {
	local := 0
	if len(sibling.Tables) > 0 {
		local = localRulePriority
	}
	mainRule := describeRule(kernelRule(mainRulePriority, unix.RT_TABLE_MAIN))
	expected := Expect(
		describeRule(*localRule(local)), mainRule, describeRule(kernelRule(defaultRulePriority, unix.RT_TABLE_DEFAULT)))
	expected.Allow(inSix+describeRule(*localRule(0)), inSix+mainRule)
	for index, table := range sibling.Tables {
		for _, rule := range rulesFor(table, index) {
			expected.Add(describeRule(*rule))
		}
	}
	rules, err := netlink.RuleList(unix.AF_INET)
	if err != nil {
		return nil, err
	}
	var texts []string
	for _, rule := range rules {
		texts = append(texts, describeRule(rule))
	}
	if hasSix() {
		rules, err = netlink.RuleList(unix.AF_INET6)
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) { // a kernel without IPv6 rules (CONFIG_IPV6_MULTIPLE_TABLES)
			return nil, err
		}
		for _, rule := range rules {
			texts = append(texts, inSix+describeRule(rule))
		}
	}
	return expected.Differences(texts), nil
}

func kernelRule(priority, table int) netlink.Rule {
	rule := localRule(priority)
	rule.Table = table
	return *rule
}

func describeRule(rule netlink.Rule) string {
	source := "all"
	if rule.Src != nil {
		source = rule.Src.String()
	}
	text := fmt.Sprintf("rule %d: from %s", rule.Priority, source)
	if rule.Dst != nil {
		text += " to " + rule.Dst.String()
	}
	if rule.UIDRange != nil {
		text += fmt.Sprintf(" of users %d to %d", rule.UIDRange.Start, rule.UIDRange.End)
	}
	text += fmt.Sprintf(" lookup %d", rule.Table)
	plain := netlink.NewRule()
	plain.Priority, plain.Src, plain.Dst, plain.UIDRange, plain.Table = rule.Priority, rule.Src, rule.Dst, rule.UIDRange, rule.Table
	plain.Family, plain.Protocol = rule.Family, rule.Protocol // Protocol, the rule's creator, is irrelevant
	if !reflect.DeepEqual(rule, *plain) {
		text += " on a further condition" // `not`, a mark, an interface, a destination, a port, another action, ...
	}
	return text
}

// neighbourDifferences finds permanent neighbour entries and proxy ARP entries. A permanent entry is never
// refreshed, so it can divert packets for a gateway or an agent.
func neighbourDifferences(_ boot.Sibling, network *namespace) ([]string, error) {
	var differences []string
	for _, link := range network.links {
		if link.Attrs().Flags&net.FlagLoopback != 0 {
			continue
		}
		for _, list := range []func(int, int) ([]netlink.Neigh, error){netlink.NeighList, netlink.NeighProxyList} {
			neighbours, err := list(link.Attrs().Index, unix.AF_INET)
			if err != nil {
				return differences, err
			}
			for _, neighbour := range neighbours {
				proxy := neighbour.Flags&netlink.NTF_PROXY != 0
				if !proxy && (neighbour.State&netlink.NUD_PERMANENT == 0) {
					continue
				}
				differences = append(differences,
					fmt.Sprintf("neighbour %s on %s is not ours", neighbour.IP, network.name(neighbour.LinkIndex)))
			}
		}
	}
	return differences, nil
}

// policyDifferences finds IPsec policies, by which the kernel would encrypt or drop packets.
func policyDifferences(boot.Sibling, *namespace) ([]string, error) {
	policies, err := netlink.XfrmPolicyList(netlink.FAMILY_ALL)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, nil // a kernel without IPsec
	}
	var differences []string
	for _, policy := range policies {
		differences = append(differences, fmt.Sprintf("IPsec policy %s to %s is not ours", policy.Src, policy.Dst))
	}
	return differences, err
}

// Expectation maps each expected text to whether it is required.
type Expectation map[string]bool

// Expect returns an expectation of required texts.
func Expect(texts ...string) Expectation {
	expected := Expectation{}
	expected.Add(texts...)
	return expected
}

func (e Expectation) Add(texts ...string) {
	for _, text := range texts {
		e[text] = true
	}
}

// Allow adds optional texts.
func (e Expectation) Allow(texts ...string) {
	for _, text := range texts {
		e[text] = e[text]
	}
}

// Differences returns a sentence for each unexpected text and for each missing one.
func (e Expectation) Differences(texts []string) []string {
	var differences []string
	for _, text := range texts {
		if _, expected := e[text]; !expected {
			differences = append(differences, text+" is not ours")
		}
	}
	for text, required := range e {
		if required && !slices.Contains(texts, text) {
			differences = append(differences, text+" is missing")
		}
	}
	return differences
}
