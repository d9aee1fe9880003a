package kernel

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"clawker-fw/internal/boot"
)

// The packet filter consists of our tables (limits.go) and of the engine's rules that redirect queries for its
// embedded resolver to two random ports in this namespace. Depending on the engine's firewall backend, these are
// in nftables or in iptables.
//
// When `fwctl serve` has installed our tables, only the engine has changed the filter before. Later reads are
// compared with the filter at that time. The kernel keeps the digests of all parts in a set of our table: they end
// with the namespace, and changing them takes the privilege to change the filter.

// installedSet is the set with the digests. Each element's comment is the part's name.
const installedSet = "installed"

const digestSize = 16

// longestComment limits a part's name. The names of our tables and of the engine's are shorter.
const longestComment = 120

type filterPart struct {
	name    string
	content []byte
}

func (p filterPart) digest() [digestSize]byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s", p.name, p.content))
	return [digestSize]byte(sum[:])
}

// readFilter returns all parts of the packet filter, without the ports of the engine's resolver, which change when
// the engine restarts with live containers.
func readFilter(resolver *netip.Addr) ([]filterPart, error) {
	parts, err := nftParts()
	if err != nil {
		return nil, err
	}
	older, err := legacyParts()
	if err != nil || resolver == nil {
		return append(parts, older...), err
	}
	parts = append(parts, older...)
	for _, transport := range []string{"tcp", "udp"} {
		places, err := Listening(SocketLists, transport)
		if err != nil {
			return nil, err
		}
		for _, place := range places {
			if place.Addr() == *resolver {
				leaveOut(parts, place.Port())
			}
		}
	}
	return parts, nil
}

// leaveOut replaces a port, in both byte orders that rules have.
func leaveOut(parts []filterPart, port uint16) {
	for at := range parts {
		for _, ordered := range [][]byte{binary.BigEndian.AppendUint16(nil, port), binary.NativeEndian.AppendUint16(nil, port)} {
			parts[at].content = bytes.ReplaceAll(parts[at].content, ordered, []byte("PORT"))
		}
	}
}

func rememberFilter(resolver *netip.Addr) error {
	parts, err := readFilter(resolver)
	if err != nil {
		return fmt.Errorf("reading the packet filter: %w", err)
	}
	var elements []nftables.SetElement
	for _, part := range parts {
		digest := part.digest()
		comment := part.name[:min(len(part.name), longestComment)]
		elements = append(elements, nftables.SetElement{Key: digest[:], Comment: comment})
	}
	connection, err := openFilter(nil)
	if err != nil {
		return err
	}
	table := &nftables.Table{Name: limitTable, Family: nftables.TableFamilyIPv4}
	if err := connection.SetAddElements(&nftables.Set{Table: table, Name: installedSet}, elements); err != nil {
		return err
	}
	if err := connection.Flush(); err != nil {
		return fmt.Errorf("remembering the packet filter: %w", first(err))
	}
	return nil
}

func rememberedFilter() (map[[digestSize]byte]string, error) {
	elements, err := elementsOf(installedSet)
	if err != nil {
		return nil, err
	}
	names := map[[digestSize]byte]string{}
	for _, element := range elements {
		key, err := keyOf(element)
		if err != nil || len(key) != digestSize {
			return nil, errors.Join(errors.New("an unreadable digest"), err)
		}
		digest := [digestSize]byte(key)
		names[digest], _ = userdata.GetString(element.value(unix.NFTA_SET_ELEM_USERDATA), userdata.NFTNL_UDATA_SET_ELEM_COMMENT)
	}
	return names, nil
}

// filterDifferences compares the packet filter with the one at the installation of our tables.
func filterDifferences(sibling boot.Sibling, _ *namespace) ([]string, error) {
	parts, err := readFilter(sibling.Resolver)
	if err != nil {
		return nil, err
	}
	installed := map[[digestSize]byte]string{}
	if sibling.Limits != nil || sibling.Apart != nil {
		installed, err = rememberedFilter()
		if errors.Is(err, unix.ENOENT) {
			return []string{fmt.Sprintf("nftables table ip %s is missing", limitTable)}, nil
		}
		if err != nil {
			return nil, err
		}
	}
	var differences []string
	for _, part := range parts {
		if _, ok := installed[part.digest()]; !ok {
			differences = append(differences, part.name+" is not ours")
		}
		delete(installed, part.digest())
	}
	for _, name := range installed {
		differences = append(differences, name+" is missing")
	}
	elements, err := elementDifferences()
	return append(differences, elements...), err
}

// The kernel shows nftables as objects with netlink attributes (linux/netfilter/nf_tables.h).
const nftSubsystem = unix.NFNL_SUBSYS_NFTABLES << 8

// nftKind is a kind of object: its messages, the attributes of its name, and those that affect packets.
type nftKind struct {
	name             string
	question, answer int
	names, decide    []int
}

var nftKinds = []nftKind{
	{
		"table", unix.NFT_MSG_GETTABLE, unix.NFT_MSG_NEWTABLE,
		[]int{unix.NFTA_TABLE_NAME}, []int{unix.NFTA_TABLE_FLAGS},
	},
	{
		"chain", unix.NFT_MSG_GETCHAIN, unix.NFT_MSG_NEWCHAIN,
		[]int{unix.NFTA_CHAIN_TABLE, unix.NFTA_CHAIN_NAME},
		[]int{unix.NFTA_CHAIN_TYPE, unix.NFTA_CHAIN_HOOK, unix.NFTA_CHAIN_POLICY},
	},
	{
		"set", unix.NFT_MSG_GETSET, unix.NFT_MSG_NEWSET,
		[]int{unix.NFTA_SET_TABLE, unix.NFTA_SET_NAME},
		[]int{unix.NFTA_SET_FLAGS, unix.NFTA_SET_KEY_LEN, unix.NFTA_SET_DESC, unix.NFTA_SET_TIMEOUT},
	},
	{
		"rule", unix.NFT_MSG_GETRULE, unix.NFT_MSG_NEWRULE,
		[]int{unix.NFTA_RULE_TABLE, unix.NFTA_RULE_CHAIN}, []int{unix.NFTA_RULE_EXPRESSIONS},
	},
}

var nftFamilies = map[byte]string{
	unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_ARP: "arp", unix.NFPROTO_NETDEV: "netdev",
	unix.NFPROTO_BRIDGE: "bridge", unix.NFPROTO_IPV6: "ip6",
}

type nftObject struct {
	family     byte
	attributes attributes
}

// nftParts lists the objects of all kinds and families, without the rules' counters. A rule's position is part of
// its name, because the order of rules matters.
func nftParts() ([]filterPart, error) {
	var parts []filterPart
	for _, kind := range nftKinds {
		objects, err := askNftables(unix.NFPROTO_UNSPEC, kind.question, kind.answer)
		if err != nil {
			return nil, err
		}
		places := map[string]int{}
		for _, object := range objects {
			words := []string{"nftables", kind.name, nftFamilies[object.family]}
			for _, attribute := range kind.names {
				words = append(words, object.attributes.text(attribute))
			}
			part := filterPart{name: strings.Join(words, " ")}
			if kind.name == "rule" {
				places[part.name]++
				part.name += fmt.Sprintf(" %d", places[part.name])
			}
			for _, attribute := range kind.decide {
				content := object.attributes.value(attribute)
				if attribute == unix.NFTA_RULE_EXPRESSIONS && kind.name == "rule" {
					if content, err = withoutCounters(content); err != nil {
						return nil, fmt.Errorf("%s: %w", part.name, err)
					}
				}
				part.content = append(fmt.Appendf(part.content, "%d:%d:", attribute, len(content)), content...)
			}
			parts = append(parts, part)
		}
	}
	return parts, nil
}

func withoutCounters(expressions []byte) (remaining []byte, err error) {
	list, err := readAttributes(expressions)
	for _, attribute := range list {
		expression, malformed := readAttributes(attribute.Value)
		if malformed != nil {
			return nil, malformed
		}
		if expression.text(unix.NFTA_EXPR_NAME) != "counter" {
			remaining = append(fmt.Appendf(remaining, "%d:", len(attribute.Value)), attribute.Value...)
		}
	}
	return remaining, err
}

// elementDifferences finds elements of our sets with another limit than their rule: a source would keep such a limit.
func elementDifferences() (differences []string, err error) {
	rules, err := askNftables(unix.NFPROTO_IPV4, unix.NFT_MSG_GETRULE, unix.NFT_MSG_NEWRULE)
	for _, rule := range rules {
		if rule.attributes.text(unix.NFTA_RULE_TABLE) != limitTable {
			continue
		}
		expressions, err := rule.attributes.in(unix.NFTA_RULE_EXPRESSIONS)
		if err != nil {
			return nil, err
		}
		for _, attribute := range expressions {
			expression, err := readAttributes(attribute.Value)
			if err != nil {
				return nil, err
			}
			if expression.text(unix.NFTA_EXPR_NAME) != "dynset" {
				continue
			}
			filling, err := expression.in(unix.NFTA_EXPR_DATA)
			if err != nil {
				return nil, err
			}
			limit, err := filling.in(unix.NFTA_DYNSET_EXPR)
			if err != nil {
				return nil, err
			}
			if limit.text(unix.NFTA_EXPR_NAME) == "counter" {
				continue
			}
			set := filling.text(unix.NFTA_DYNSET_SET_NAME)
			elements, err := elementsOf(set)
			if err != nil {
				return nil, fmt.Errorf("set %s: %w", set, err)
			}
			if slices.ContainsFunc(elements, func(element attributes) bool {
				return !bytes.Equal(element.value(unix.NFTA_SET_ELEM_EXPR), filling.value(unix.NFTA_DYNSET_EXPR))
			}) {
				differences = append(differences, fmt.Sprintf("nftables element of set %s is not ours", set))
			}
		}
	}
	return differences, err
}

func elementsOf(set string) (parsed []attributes, err error) {
	lists, err := askNftables(unix.NFPROTO_IPV4, unix.NFT_MSG_GETSETELEM, unix.NFT_MSG_NEWSETELEM,
		nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_TABLE, nl.ZeroTerminated(limitTable)),
		nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_SET, nl.ZeroTerminated(set)))
	for _, list := range lists {
		elements, err := list.attributes.in(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		if err != nil {
			return nil, err
		}
		for _, attribute := range elements {
			element, err := readAttributes(attribute.Value)
			if err != nil {
				return nil, err
			}
			parsed = append(parsed, element)
		}
	}
	return parsed, err
}

func keyOf(element attributes) ([]byte, error) {
	key, err := element.in(unix.NFTA_SET_ELEM_KEY)
	return key.value(unix.NFTA_DATA_VALUE), err
}

// askNftables lists objects of one family, or of all with NFPROTO_UNSPEC. A kernel without nftables has none.
func askNftables(family byte, question, answer int, of ...*nl.RtAttr) (objects []nftObject, err error) {
	request := nl.NewNetlinkRequest(nftSubsystem|question, unix.NLM_F_DUMP)
	request.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: unix.NFNETLINK_V0})
	for _, attribute := range of {
		request.AddData(attribute)
	}
	messages, err := request.Execute(unix.NETLINK_NETFILTER, uint16(nftSubsystem|answer))
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EINVAL) {
		return nil, nil
	}
	for _, message := range messages {
		content, err := readMessage(message)
		if err != nil {
			return nil, err
		}
		objects = append(objects, nftObject{message[0], content})
	}
	return objects, err
}

// attributes are netlink attributes, possibly nested. Unreadable ones are errors, never missing.
type attributes []syscall.NetlinkRouteAttr

func readAttributes(data []byte) (attributes, error) {
	parsed, err := nl.ParseRouteAttr(data)
	if err != nil {
		return nil, fmt.Errorf("unreadable attributes from the kernel: %w", err)
	}
	return parsed, nil
}

func readMessage(message []byte) (attributes, error) {
	if len(message) < nl.SizeofNfgenmsg {
		return nil, errors.New("the kernel's answer is too short")
	}
	return readAttributes(message[nl.SizeofNfgenmsg:])
}

func (a attributes) value(number int) []byte {
	for _, attribute := range a {
		if attribute.Attr.Type&nl.NLA_TYPE_MASK == uint16(number) {
			return attribute.Value
		}
	}
	return nil
}

func (a attributes) in(number int) (attributes, error) { return readAttributes(a.value(number)) }

func (a attributes) text(number int) string { return unix.ByteSliceToString(a.value(number)) }

// kernelTables is the folder with the kernel's lists of iptables tables. Reading an unlisted table would create
// it.
const kernelTables = "/proc/net"

// legacyFilter describes how to read the tables of a packet filter that predates nftables
// (linux/netfilter_ipv4/ip_tables.h). An entry has a head with conditions and counters, then matches and a target.
type legacyFilter struct {
	family  string
	domain  int
	level   int
	command int // getsockopt's option for the table's information; the next number is for its entries
	hooks   int // the number of chains that the kernel calls
	offsets int // offset of the entry's lengths
	size    int // length of an entry without matches and target; it ends with the counters
}

var legacyFilters = []legacyFilter{
	{"ip", unix.AF_INET, unix.IPPROTO_IP, 64, 5, 88, 112},
	{"ip6", unix.AF_INET6, unix.IPPROTO_IPV6, 64, 5, 140, 168},
	{"arp", unix.AF_INET, unix.IPPROTO_IP, 96, 3, 164, 192},
}

const (
	tableNameLength = 32
	entriesOffset   = 40 // of the first entry in an answer
	counters        = 16 // of packets and bytes
)

// legacyParts lists the iptables tables, without their counters.
func legacyParts() ([]filterPart, error) {
	var parts []filterPart
	for _, filter := range legacyFilters {
		names, err := os.ReadFile(filepath.Join(kernelTables, filter.family+"_tables_names"))
		if errors.Is(err, os.ErrNotExist) {
			continue // a kernel without this filter
		}
		if err != nil {
			return parts, err
		}
		for _, table := range strings.Fields(string(names)) {
			content, err := filter.read(table)
			if err != nil {
				return parts, fmt.Errorf("table %s of %s: %w", table, filter.family, err)
			}
			parts = append(parts, filterPart{fmt.Sprintf("iptables table %s %s", filter.family, table), content})
		}
	}
	return parts, nil
}

func (f legacyFilter) read(table string) ([]byte, error) {
	socket, err := unix.Socket(f.domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return nil, err
	}
	defer unix.Close(socket)
	information, err := f.ask(socket, f.command, table, 0, tableNameLength+4+8*f.hooks+8)
	if err != nil {
		return nil, err
	}
	size := int(binary.NativeEndian.Uint32(information[len(information)-4:]))
	entries, err := f.ask(socket, f.command+1, table, size, entriesOffset+size) // EAGAIN if it changed in between
	if err != nil {
		return nil, err
	}
	entries = entries[entriesOffset:]
	err = f.forgetCounters(entries)
	return append(information[tableNameLength:], entries...), err
}

// ask calls getsockopt with a table's name and, for entries, their size (ip_tables.h: ipt_getinfo,
// ipt_get_entries).
func (f legacyFilter) ask(socket, command int, table string, size, length int) ([]byte, error) {
	buffer := make([]byte, length)
	copy(buffer[:tableNameLength-1], table)
	if size > 0 {
		binary.NativeEndian.PutUint32(buffer[tableNameLength:], uint32(size))
	}
	capacity := uint32(length)
	_, _, failure := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(socket), uintptr(f.level), uintptr(command),
		uintptr(unsafe.Pointer(&buffer[0])), uintptr(unsafe.Pointer(&capacity)), 0)
	if failure != 0 {
		return nil, failure
	}
	return buffer, nil
}

func (f legacyFilter) forgetCounters(entries []byte) error {
	for len(entries) > 0 {
		if len(entries) < f.size {
			return errors.New("an entry is too short")
		}
		clear(entries[f.size-counters : f.size])
		next := int(binary.NativeEndian.Uint16(entries[f.offsets+2:]))
		if next < f.size || next > len(entries) {
			return errors.New("an entry has an impossible length")
		}
		entries = entries[next:]
	}
	return nil
}
