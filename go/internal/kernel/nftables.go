package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"clawker-fw/internal/boot"
)

// The packet filter is read as text: one line for each rule, and one for each chain whose policy is drop. The only
// rules that belong here are those with which the engine redirects DNS to its embedded resolver (redirect.go), and those
// of our own table (limits.go), of which sets, chains and elements are read as well. Depending on the host, the engine's
// are nftables rules (this file) or rules of the older iptables (iptables_legacy.go).

// filterDifferences finds rules that are neither the engine's nor ours, and missing ones.
func filterDifferences(sibling boot.Sibling, _ *namespace) ([]string, error) {
	found, err := filterRules()
	if err != nil {
		return nil, err
	}
	differences, err := tableDifferences(sibling)
	if err != nil {
		return nil, err
	}
	older, err := legacyRules()
	return append(differences, redirectDifferences(sibling.Resolver, append(found, older...))...), err
}

// filterRule is one rule, or what is unusual about a chain: its place, and its conditions and action in the words of
// redirects.
type filterRule struct {
	filter string // nftables or iptables
	place  string // family, table and chain
	words  []string
}

// text returns the rule as one line. Conditions are sorted, because their order depends on the tool that added them.
func (r filterRule) text() string {
	words := slices.Clone(r.words)
	slices.Sort(words[:max(0, len(words)-1)])
	return r.place + ": " + strings.Join(words, ", ")
}

func (r filterRule) String() string { return r.filter + " rule " + r.text() }

// say adds a word. One that was said is not repeated: tools differ in whether they repeat a condition.
func (r *filterRule) say(format string, values ...any) {
	if text := fmt.Sprintf(format, values...); !slices.Contains(r.words, text) {
		r.words = append(r.words, text)
	}
}

func (r *filterRule) sayProtocol(number byte) {
	name, known := map[byte]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}[number]
	if !known {
		name = fmt.Sprint(number)
	}
	r.say("protocol %s", name)
}

// Netlink messages and values of nftables (linux/netfilter/nf_tables.h).
const (
	nftSubsystem  = unix.NFNL_SUBSYS_NFTABLES << 8
	nftNewChain   = nftSubsystem | unix.NFT_MSG_NEWCHAIN
	nftGetChain   = nftSubsystem | unix.NFT_MSG_GETCHAIN
	nftNewRule    = nftSubsystem | unix.NFT_MSG_NEWRULE
	nftGetRule    = nftSubsystem | unix.NFT_MSG_GETRULE
	nftNewTable   = nftSubsystem | unix.NFT_MSG_NEWTABLE
	nftGetTable   = nftSubsystem | unix.NFT_MSG_GETTABLE
	nftNewSet     = nftSubsystem | unix.NFT_MSG_NEWSET
	nftGetSet     = nftSubsystem | unix.NFT_MSG_GETSET
	nftNewElement = nftSubsystem | unix.NFT_MSG_NEWSETELEM
	nftGetElement = nftSubsystem | unix.NFT_MSG_GETSETELEM

	nftDrop = 0 // a chain's policy
)

var nftFamilies = map[byte]string{
	unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_ARP: "arp", unix.NFPROTO_NETDEV: "netdev",
	unix.NFPROTO_BRIDGE: "bridge", unix.NFPROTO_IPV6: "ip6",
}

// filterRules lists the nftables rules of every family, except those of our own table, and what else decides about
// them.
func filterRules() ([]filterRule, error) {
	tables, err := askNftables(nftGetTable, nftNewTable)
	if err != nil {
		return nil, err
	}
	var found []filterRule
	for _, table := range tables {
		// A dormant table has rules that do nothing.
		if flags := table.attributes.number(unix.NFTA_TABLE_FLAGS); !table.ours(unix.NFTA_TABLE_NAME) && flags > 0 {
			place := fmt.Sprintf("%s %s", nftFamilies[table.family], table.attributes.text(unix.NFTA_TABLE_NAME))
			found = append(found, filterRule{"nftables", place, []string{fmt.Sprintf("flags %d", flags)}})
		}
	}
	chains, err := askNftables(nftGetChain, nftNewChain)
	if err != nil {
		return nil, err
	}
	for _, chain := range chains {
		if chain.ours(unix.NFTA_CHAIN_TABLE) {
			continue
		}
		place := chain.place(unix.NFTA_CHAIN_TABLE, unix.NFTA_CHAIN_NAME)
		if chain.attributes.number(unix.NFTA_CHAIN_POLICY) == nftDrop {
			found = append(found, filterRule{"nftables", place, []string{"drop by default"}})
		}
		at, err := readAttributes(chain.attributes[unix.NFTA_CHAIN_HOOK])
		if err != nil {
			return nil, err
		}
		hook := describeHook(chain.attributes.text(unix.NFTA_CHAIN_TYPE), at.number(unix.NFTA_HOOK_HOOKNUM),
			at.number(unix.NFTA_HOOK_PRIORITY))
		if wanted, is := redirectHooks[place]; is && hook != wanted {
			found = append(found, filterRule{"nftables", place, []string{hook}})
		}
	}
	rules, err := askNftables(nftGetRule, nftNewRule)
	if err != nil {
		return nil, err
	}
	for _, each := range rules {
		if each.ours(unix.NFTA_RULE_TABLE) {
			continue
		}
		rule := filterRule{filter: "nftables", place: each.place(unix.NFTA_RULE_TABLE, unix.NFTA_RULE_CHAIN)}
		if err := rule.read(each.attributes[unix.NFTA_RULE_EXPRESSIONS]); err != nil {
			return nil, fmt.Errorf("%s: %w", rule.place, err)
		}
		found = append(found, rule)
	}
	return found, nil
}

type nftObject struct {
	family     byte
	attributes attributes
}

// ours reports whether the object belongs to one of our own tables, whose name is in an attribute.
func (o nftObject) ours(table int) bool {
	return o.oursIn(unix.NFPROTO_IPV4, table) || o.oursIn(unix.NFPROTO_IPV6, table)
}

// oursIn reports whether the object belongs to our own table of one family.
func (o nftObject) oursIn(family byte, table int) bool {
	return o.family == family && o.attributes.text(table) == limitTable
}

func (o nftObject) place(table, chain int) string {
	return fmt.Sprintf("%s %s %s", nftFamilies[o.family], o.attributes.text(table), o.attributes.text(chain))
}

// askNftables lists nftables objects of all families. A kernel without nftables has none.
func askNftables(question, answer int) ([]nftObject, error) {
	return askNftablesOf(unix.NFPROTO_UNSPEC, question, answer)
}

// askNftablesOf lists nftables objects of one family, of those with the given attributes.
func askNftablesOf(family byte, question, answer int, of ...*nl.RtAttr) ([]nftObject, error) {
	request := nl.NewNetlinkRequest(question, unix.NLM_F_DUMP)
	request.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: unix.NFNETLINK_V0})
	for _, attribute := range of {
		request.AddData(attribute)
	}
	messages, err := request.Execute(unix.NETLINK_NETFILTER, uint16(answer))
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EINVAL) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var objects []nftObject
	for _, message := range messages {
		if len(message) < nl.SizeofNfgenmsg {
			return nil, errors.New("the kernel's answer is too short")
		}
		read, err := readAttributes(message[nl.SizeofNfgenmsg:])
		if err != nil {
			return nil, err
		}
		objects = append(objects, nftObject{message[0], read})
	}
	return objects, nil
}

// attributeNumber is the part of an attribute's type that is its number (netlink(7)).
const attributeNumber = 0x3fff

// attributes are netlink attributes by number. They can be nested.
type attributes map[int][]byte

func readAttributes(data []byte) (attributes, error) {
	list, err := nl.ParseRouteAttr(data)
	if err != nil {
		return nil, err
	}
	found := attributes{}
	for _, each := range list {
		found[int(each.Attr.Type&attributeNumber)] = each.Value
	}
	return found, nil
}

func (a attributes) text(number int) string { return strings.TrimRight(string(a[number]), "\x00") }

// big returns a number of 64 bits, 0 without one.
func (a attributes) big(number int) uint64 {
	if len(a[number]) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(a[number])
}

func (a attributes) number(number int) int {
	if len(a[number]) != 4 {
		return -1
	}
	return int(int32(binary.BigEndian.Uint32(a[number])))
}

// read translates a rule's expressions into words. An unknown expression becomes a word that no engine rule has.
func (r *filterRule) read(expressions []byte) error {
	list, err := nl.ParseRouteAttr(expressions)
	if err != nil {
		return err
	}
	loaded := map[int]string{} // register -> the part of the packet, or the value, that it holds
	for _, each := range list {
		if err := r.readExpression(each.Value, loaded); err != nil {
			return err
		}
	}
	return nil
}

func (r *filterRule) readExpression(content []byte, loaded map[int]string) error {
	expression, err := readAttributes(content)
	if err != nil {
		return err
	}
	data, err := readAttributes(expression[unix.NFTA_EXPR_DATA])
	if err != nil {
		return err
	}
	switch name := expression.text(unix.NFTA_EXPR_NAME); name {
	case "counter":
	case "payload":
		if data[unix.NFTA_PAYLOAD_SREG] != nil {
			r.say("change of the packet")
		}
		loaded[data.number(unix.NFTA_PAYLOAD_DREG)] = fmt.Sprintf("%d+%d:%d", data.number(unix.NFTA_PAYLOAD_BASE),
			data.number(unix.NFTA_PAYLOAD_OFFSET), data.number(unix.NFTA_PAYLOAD_LEN))
	case "meta":
		if data[unix.NFTA_META_SREG] != nil {
			r.say("change of meta %d to %x", data.number(unix.NFTA_META_KEY), loaded[data.number(unix.NFTA_META_SREG)])
		}
		loaded[data.number(unix.NFTA_META_DREG)] = fmt.Sprintf("meta %d", data.number(unix.NFTA_META_KEY))
	case "ct":
		if data[unix.NFTA_CT_SREG] != nil {
			r.say("change of ct %d", data.number(unix.NFTA_CT_KEY))
		}
		loaded[data.number(unix.NFTA_CT_DREG)] = fmt.Sprintf("ct %d %x", data.number(unix.NFTA_CT_KEY), data[unix.NFTA_CT_DIRECTION])
	case "cmp":
		value, err := readAttributes(data[unix.NFTA_CMP_DATA])
		if err != nil {
			return err
		}
		part := loaded[data.number(unix.NFTA_CMP_SREG)]
		r.sayComparison(part, data.number(unix.NFTA_CMP_OP), value[unix.NFTA_DATA_VALUE])
	case "immediate":
		value, err := readAttributes(data[unix.NFTA_IMMEDIATE_DATA])
		if err != nil {
			return err
		}
		loaded[data.number(unix.NFTA_IMMEDIATE_DREG)] = string(value[unix.NFTA_DATA_VALUE])
		if err := r.sayVerdict(value[unix.NFTA_DATA_VERDICT]); err != nil {
			return err
		}
	case "bitwise":
		part := loaded[data.number(unix.NFTA_BITWISE_SREG)]
		mask, err := readAttributes(data[unix.NFTA_BITWISE_MASK])
		if err != nil {
			return err
		}
		flipped, err := readAttributes(data[unix.NFTA_BITWISE_XOR])
		if err != nil {
			return err
		}
		loaded[data.number(unix.NFTA_BITWISE_DREG)] = fmt.Sprintf("%s & %x ^ %x by %d", part,
			mask[unix.NFTA_DATA_VALUE], flipped[unix.NFTA_DATA_VALUE], max(0, data.number(bitwiseOperation)))
	case "dynset":
		inner := filterRule{}
		if content := data[unix.NFTA_DYNSET_EXPR]; content != nil {
			if err := inner.readExpression(content, loaded); err != nil {
				return err
			}
		}
		if data[unix.NFTA_DYNSET_SREG_DATA] != nil || data[dynsetExpressions] != nil {
			inner.say("and more")
		}
		r.say("%s in set %s by %d for %d ms, flags %d (%s)", loaded[data.number(unix.NFTA_DYNSET_SREG_KEY)],
			data.text(unix.NFTA_DYNSET_SET_NAME), data.number(unix.NFTA_DYNSET_OP), data.big(unix.NFTA_DYNSET_TIMEOUT),
			max(0, data.number(unix.NFTA_DYNSET_FLAGS)), strings.Join(inner.words, ", "))
	case "limit":
		r.say("at most %d in %d s, %d at once, of kind %d, flags %d", data.big(unix.NFTA_LIMIT_RATE),
			data.big(unix.NFTA_LIMIT_UNIT), data.number(unix.NFTA_LIMIT_BURST), data.number(unix.NFTA_LIMIT_TYPE),
			max(0, data.number(unix.NFTA_LIMIT_FLAGS)))
	case "log":
		r.say("log %d octets to group %x, flags %d", data.number(unix.NFTA_LOG_SNAPLEN), data[unix.NFTA_LOG_GROUP],
			max(0, data.number(unix.NFTA_LOG_FLAGS)))
	case "connlimit":
		r.say("at most %d connections, flags %d", data.number(connlimitCount), max(0, data.number(connlimitFlags)))
	case "reject":
		if kind := data.number(unix.NFTA_REJECT_TYPE); kind == unix.NFT_REJECT_TCP_RST {
			r.say("reset") // has no code, though some kernels show one
		} else {
			r.say("reject %d %x", kind, data[unix.NFTA_REJECT_ICMP_CODE])
		}
	case "nat":
		r.sayNat(data, loaded)
	case "match":
		r.sayMatch(data.text(unix.NFTA_MATCH_NAME), data[unix.NFTA_MATCH_INFO])
	case "target":
		r.sayTarget(data.text(unix.NFTA_TARGET_NAME), data.number(unix.NFTA_TARGET_REV), data[unix.NFTA_TARGET_INFO])
	default:
		r.say("%s", name)
	}
	return nil
}

// Attributes of expressions that golang.org/x/sys/unix lacks (linux/netfilter/nf_tables.h).
const (
	bitwiseOperation  = 6
	dynsetExpressions = 10
	connlimitCount    = 1
	connlimitFlags    = 2
)

// Parts of a packet in payload expressions, as header+offset:length.
const (
	partSource          = "1+12:4"
	partDestination     = "1+16:4"
	partProtocol        = "1+9:1"
	partSourcePort      = "2+0:2"
	partDestinationPort = "2+2:2"
	metaProtocol        = "meta 16"
)

func (r *filterRule) sayComparison(part string, operation int, value []byte) {
	switch {
	case operation != unix.NFT_CMP_EQ:
		r.say("compare %s by %d with %x", part, operation, value)
	case part == partSource && len(value) == 4:
		r.say("from %s", netip.AddrFrom4([4]byte(value)))
	case part == partDestination && len(value) == 4:
		r.say("to %s", netip.AddrFrom4([4]byte(value)))
	case (part == partProtocol || part == metaProtocol) && len(value) == 1:
		r.sayProtocol(value[0])
	case part == partSourcePort && len(value) == 2:
		r.say("from port %d", binary.BigEndian.Uint16(value))
	case part == partDestinationPort && len(value) == 2:
		r.say("to port %d", binary.BigEndian.Uint16(value))
	default:
		r.say("%s is %x", part, value)
	}
}

func (r *filterRule) sayVerdict(data []byte) error {
	if data == nil {
		return nil
	}
	verdict, err := readAttributes(data)
	if err != nil {
		return err
	}
	chain := verdict.text(unix.NFTA_VERDICT_CHAIN)
	switch code := verdict.number(unix.NFTA_VERDICT_CODE); code {
	case unix.NFT_JUMP:
		r.say("jump %s", chain)
	case unix.NFT_GOTO:
		r.say("goto %s", chain)
	case nftDrop:
		r.say("drop")
	case 1:
		r.say("accept")
	default:
		r.say("verdict %d", code)
	}
	return nil
}

func (r *filterRule) sayNat(data attributes, loaded map[int]string) {
	kind := map[int]string{unix.NFT_NAT_SNAT: "snat", unix.NFT_NAT_DNAT: "dnat"}[data.number(unix.NFTA_NAT_TYPE)]
	address, port := "", ""
	if value := loaded[data.number(unix.NFTA_NAT_REG_ADDR_MIN)]; len(value) == 4 {
		address = netip.AddrFrom4([4]byte([]byte(value))).String()
	}
	if value := loaded[data.number(unix.NFTA_NAT_REG_PROTO_MIN)]; len(value) >= 2 {
		port = fmt.Sprint(binary.BigEndian.Uint16([]byte(value)))
	}
	r.say("%s to %s:%s", kind, address, port)
	for _, end := range [][2]int{
		{unix.NFTA_NAT_REG_ADDR_MIN, unix.NFTA_NAT_REG_ADDR_MAX}, {unix.NFTA_NAT_REG_PROTO_MIN, unix.NFTA_NAT_REG_PROTO_MAX},
	} {
		if data[end[1]] != nil && data.number(end[0]) != data.number(end[1]) {
			r.say("and further places")
		}
	}
}

// sayMatch translates an iptables match into words (linux/netfilter/xt_tcpudp.h). It knows only matches on ports.
func (r *filterRule) sayMatch(name string, info []byte) {
	rest := map[string]int{"tcp": 4, "udp": 1}[name]
	if rest == 0 || len(info) < 8+rest || slices.ContainsFunc(info[8:8+rest], func(each byte) bool { return each != 0 }) {
		r.say("match %s %x", name, info)
		return
	}
	r.say("protocol %s", name)
	for index, word := range []string{"from", "to"} {
		first, last := binary.NativeEndian.Uint16(info[4*index:]), binary.NativeEndian.Uint16(info[4*index+2:])
		if first != 0 || last != 0xffff {
			if first == last {
				r.say("%s port %d", word, first)
			} else {
				r.say("%s ports %d-%d", word, first, last)
			}
		}
	}
}

// sayTarget translates an iptables target into words (linux/netfilter/nf_nat.h). It knows two forms of NAT.
func (r *filterRule) sayTarget(name string, revision int, info []byte) {
	var flags uint32
	var addresses [][]byte
	var ports [][]byte
	switch kind := name == "DNAT" || name == "SNAT"; {
	case kind && revision == 0 && len(info) >= 20 && binary.NativeEndian.Uint32(info) == 1:
		flags = binary.NativeEndian.Uint32(info[4:])
		addresses, ports = [][]byte{info[8:12], info[12:16]}, [][]byte{info[16:18], info[18:20]}
	case kind && revision > 0 && len(info) >= 40:
		flags = binary.NativeEndian.Uint32(info)
		addresses, ports = [][]byte{info[4:8], info[20:24]}, [][]byte{info[36:38], info[38:40]}
	default:
		r.say("%s %x", name, info)
		return
	}
	const mapAddresses, mapPorts = 1, 2
	place := ""
	if flags&mapAddresses != 0 {
		place = netip.AddrFrom4([4]byte(addresses[0])).String()
	}
	place += ":"
	if flags&mapPorts != 0 {
		place += fmt.Sprint(binary.BigEndian.Uint16(ports[0]))
	}
	r.say("%s to %s", strings.ToLower(name), place)
	if string(addresses[0]) != string(addresses[1]) || string(ports[0]) != string(ports[1]) {
		r.say("and further places")
	}
}
