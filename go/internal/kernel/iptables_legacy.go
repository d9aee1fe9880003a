package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernelTables is the folder in which the kernel lists the tables of the older packet filters in this namespace.
// Reading a table that is not listed would create it.
const kernelTables = "/proc/net"

// legacyFilter describes how to read the tables of a packet filter from before nftables (linux/netfilter_ipv4/
// ip_tables.h and its siblings). An entry consists of a head with conditions, counters, matches and a target.
type legacyFilter struct {
	family  string
	domain  int
	level   int
	command int // getsockopt's option for the table's information; the next number is for its entries
	chains  []string
	head    int // length of the conditions, all 0 in an entry for every packet
	offsets int // offset of the entry's lengths
	size    int // length of an entry without matches and target
}

var legacyFilters = []legacyFilter{
	{
		"ip", unix.AF_INET, unix.IPPROTO_IP, 64,
		[]string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}, 84, 88, 112,
	},
	{
		"ip6", unix.AF_INET6, unix.IPPROTO_IPV6, 64,
		[]string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}, 136, 140, 168,
	},
	{
		"arp", unix.AF_INET, unix.IPPROTO_IP, 96,
		[]string{"INPUT", "OUTPUT", "FORWARD"}, 162, 164, 192,
	},
}

const (
	tableNameLength  = 32
	entriesOffset    = 40 // of the first entry in an answer
	targetHead       = 32 // size, name, revision
	targetNameLength = 29
)

// legacyRules lists the rules of the older packet filters, except those that accept every packet.
func legacyRules() ([]filterRule, error) {
	var found []filterRule
	for _, filter := range legacyFilters {
		names, err := os.ReadFile(filepath.Join(kernelTables, filter.family+"_tables_names"))
		if errors.Is(err, os.ErrNotExist) {
			continue // a kernel without this filter
		}
		if err != nil {
			return found, err
		}
		for _, table := range strings.Fields(string(names)) {
			rules, err := filter.rules(table)
			if err != nil {
				return found, fmt.Errorf("table %s of %s: %w", table, filter.family, err)
			}
			found = append(found, rules...)
		}
	}
	return found, nil
}

func (f legacyFilter) rules(table string) ([]filterRule, error) {
	socket, err := unix.Socket(f.domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return nil, err
	}
	defer unix.Close(socket)
	for range 5 {
		var information, entries []byte
		if information, err = f.ask(socket, f.command, table, 0, tableNameLength+4+8*len(f.chains)+8); err != nil {
			return nil, err
		}
		size := int(binary.NativeEndian.Uint32(information[len(information)-4:]))
		entries, err = f.ask(socket, f.command+1, table, size, entriesOffset+size)
		if errors.Is(err, unix.EAGAIN) {
			continue // changed in between
		}
		if err != nil {
			return nil, err
		}
		return f.read(table, information, entries[entriesOffset:])
	}
	return nil, err
}

// ask calls getsockopt with a table's name and, for entries, their size in the buffer (ip_tables.h: ipt_getinfo,
// ipt_get_entries).
func (f legacyFilter) ask(socket, command int, table string, size, length int) ([]byte, error) {
	buffer := make([]byte, length)
	copy(buffer[:tableNameLength-1], table)
	if size > 0 {
		binary.NativeEndian.PutUint32(buffer[tableNameLength:], uint32(size))
	}
	given := uint32(length)
	_, _, failure := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(socket), uintptr(f.level), uintptr(command),
		uintptr(unsafe.Pointer(&buffer[0])), uintptr(unsafe.Pointer(&given)), 0)
	if failure != 0 {
		return nil, failure
	}
	return buffer, nil
}

func (f legacyFilter) read(table string, information, entries []byte) ([]filterRule, error) {
	chains, names := map[int]string{}, map[int]string{}
	valid := binary.NativeEndian.Uint32(information[tableNameLength:])
	for hook, name := range f.chains {
		if valid&(1<<hook) != 0 {
			chains[int(binary.NativeEndian.Uint32(information[tableNameLength+4+4*hook:]))] = name
		}
	}
	// Chains first: a jump's target is the offset after the entry with the chain's name.
	err := f.each(entries, func(place int, entry []byte, target []byte) {
		if nameOf(target) == "ERROR" {
			name := cString(target[targetHead:])
			names[place+len(entry)], chains[place] = name, name
		}
	})
	if err != nil {
		return nil, err
	}
	var found []filterRule
	chain := ""
	err = f.each(entries, func(place int, entry []byte, target []byte) {
		if name, begins := chains[place]; begins {
			chain = name
		}
		if nameOf(target) == "ERROR" {
			return // the beginning of a chain, or the end of the table
		}
		rule := filterRule{filter: "iptables", place: fmt.Sprintf("%s %s %s", f.family, table, chain)}
		offset := int(binary.NativeEndian.Uint16(entry[f.offsets:]))
		if f.family == "ip" {
			rule.sayHead(entry)
		} else if !isZero(entry[:f.head]) {
			rule.say("some packets")
		}
		if f.sayMatches(&rule, entry[f.size:offset]); len(rule.words) == 0 && acceptsOrReturns(target) {
			return
		}
		rule.sayLegacyTarget(target, names)
		found = append(found, rule)
	})
	return found, err
}

// each calls visit for every entry of a table.
func (f legacyFilter) each(entries []byte, visit func(place int, entry, target []byte)) error {
	for place := 0; place < len(entries); {
		if len(entries)-place < f.size {
			return errors.New("an entry is too short")
		}
		target := int(binary.NativeEndian.Uint16(entries[place+f.offsets:]))
		next := int(binary.NativeEndian.Uint16(entries[place+f.offsets+2:]))
		if target < f.size || next < target+targetHead || next > len(entries)-place {
			return errors.New("an entry has impossible lengths")
		}
		visit(place, entries[place:place+next], entries[place+target:place+next])
		place += next
	}
	return nil
}

// sayHead translates the conditions of an entry's head into words (ip_tables.h: ipt_ip).
func (r *filterRule) sayHead(entry []byte) {
	everywhere, one := [4]byte{}, [4]byte{255, 255, 255, 255}
	for index, word := range []string{"from", "to"} {
		address, mask := [4]byte(entry[4*index:]), [4]byte(entry[8+4*index:])
		switch mask {
		case everywhere:
		case one:
			r.say("%s %s", word, netip.AddrFrom4(address))
		default:
			r.say("%s %s mask %s", word, netip.AddrFrom4(address), netip.AddrFrom4(mask))
		}
	}
	if !isZero(entry[16:80]) {
		r.say("by %s%s", cString(entry[16:32]), cString(entry[32:48]))
	}
	if protocol := binary.NativeEndian.Uint16(entry[80:]); protocol != 0 {
		r.sayProtocol(byte(protocol))
	}
	if flags, inverted := entry[82], entry[83]; flags != 0 || inverted != 0 {
		r.say("flags %d inverted %d", flags, inverted)
	}
}

func (f legacyFilter) sayMatches(rule *filterRule, matches []byte) {
	for len(matches) >= targetHead {
		size := int(binary.NativeEndian.Uint16(matches))
		if size < targetHead || size > len(matches) {
			rule.say("unreadable match")
			return
		}
		rule.sayMatch(nameOf(matches), matches[targetHead:size])
		matches = matches[size:]
	}
}

func (r *filterRule) sayLegacyTarget(target []byte, chains map[int]string) {
	name, revision := nameOf(target), int(target[targetHead-1])
	if name != "" {
		r.sayTarget(name, revision, target[targetHead:])
		return
	}
	switch verdict := verdictOf(target); {
	case verdict >= 0 && chains[verdict] != "":
		r.say("jump %s", chains[verdict])
	case verdict == -1:
		r.say("drop")
	case verdict == -2:
		r.say("accept")
	default:
		r.say("verdict %d", verdict)
	}
}

func acceptsOrReturns(target []byte) bool {
	const accept, back = -2, -5
	return nameOf(target) == "" && (verdictOf(target) == accept || verdictOf(target) == back)
}

func verdictOf(target []byte) int {
	if len(target) < targetHead+4 {
		return 0
	}
	return int(int32(binary.NativeEndian.Uint32(target[targetHead:])))
}

func nameOf(extension []byte) string { return cString(extension[2 : 2+targetNameLength]) }

func cString(data []byte) string {
	until, _, _ := bytes.Cut(data, []byte{0})
	return string(until)
}

func isZero(data []byte) bool { return len(bytes.Trim(data, "\x00")) == 0 }
