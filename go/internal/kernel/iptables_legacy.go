package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
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
	hooks   int // how many chains the kernel calls
	offsets int // offset of the entry's lengths
	size    int // length of an entry without matches and target; its last octets are the counters
}

var legacyFilters = []legacyFilter{
	{"ip", unix.AF_INET, unix.IPPROTO_IP, 64, 5, 88, 112},
	{"ip6", unix.AF_INET6, unix.IPPROTO_IPV6, 64, 5, 140, 168},
	{"arp", unix.AF_INET, unix.IPPROTO_IP, 96, 3, 164, 192},
}

const (
	tableNameLength = 32
	entriesOffset   = 40 // of the first entry in an answer
	counters        = 16 // of packets and octets
)

// legacyParts lists the tables of the older packet filters. What their rules have counted is left out.
func legacyParts() ([]filterPart, error) {
	var found []filterPart
	for _, filter := range legacyFilters {
		names, err := os.ReadFile(filepath.Join(kernelTables, filter.family+"_tables_names"))
		if errors.Is(err, os.ErrNotExist) {
			continue // a kernel without this filter
		}
		if err != nil {
			return found, err
		}
		for _, table := range strings.Fields(string(names)) {
			content, err := filter.read(table)
			if err != nil {
				return found, fmt.Errorf("table %s of %s: %w", table, filter.family, err)
			}
			found = append(found, filterPart{fmt.Sprintf("iptables table %s %s", filter.family, table), content})
		}
	}
	return found, nil
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
	entries, err := f.ask(socket, f.command+1, table, size, entriesOffset+size) // EAGAIN if it was changed in between
	if err != nil {
		return nil, err
	}
	entries = entries[entriesOffset:]
	return append(information[tableNameLength:], entries...), f.forgetCounters(entries)
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
