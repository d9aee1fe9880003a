// Package sockets reads the kernel's lists of the sockets in a network namespace (proc(5), net/tcp and net/udp).
package sockets

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Here is the folder with the lists of this process's network.
const Here = "/proc/thread-self/net"

// The states of sockets that wait for anybody (linux/tcp_states.h). One for datagrams has no connection.
var states = map[string]string{"tcp": "0A", "udp": "07"}

// Listening returns the places at which sockets of a transport, `tcp` or `udp`, wait for connections or datagrams. A socket
// for every interface is at 0.0.0.0, of both families. Other addresses of IPv6 are left out.
func Listening(folder, transport string) ([]netip.AddrPort, error) {
	var found []netip.AddrPort
	for _, family := range []string{"", "6"} {
		file, err := os.Open(filepath.Join(folder, transport+family))
		if errors.Is(err, fs.ErrNotExist) && family == "6" {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
		places, err := read(file, states[transport])
		file.Close()
		if err != nil {
			return nil, err
		}
		found = append(found, places...)
	}
	return found, nil
}

// read returns the places of sockets in a state. Those of TCP that listen come before all others.
func read(list io.Reader, wanted string) ([]netip.AddrPort, error) {
	const place, state = 1, 3
	var found []netip.AddrPort
	lines := bufio.NewScanner(list)
	lines.Scan() // the names of the columns
	for lines.Scan() {
		columns := strings.Fields(lines.Text())
		if len(columns) <= state || columns[state] != wanted {
			if wanted == states["tcp"] {
				break
			}
			continue
		}
		if at, ok := readPlace(columns[place]); ok {
			found = append(found, at)
		}
	}
	return found, lines.Err()
}

func readPlace(text string) (netip.AddrPort, bool) {
	address, port, _ := strings.Cut(text, ":")
	number, err := strconv.ParseUint(port, 16, 16)
	octets, malformed := hex.DecodeString(address)
	if err != nil || malformed != nil || len(octets) < 4 {
		return netip.AddrPort{}, false
	}
	if len(octets) > 4 && slices.ContainsFunc(octets, func(octet byte) bool { return octet != 0 }) {
		return netip.AddrPort{}, false
	}
	var host [4]byte
	binary.NativeEndian.PutUint32(host[:], binary.BigEndian.Uint32(octets))
	return netip.AddrPortFrom(netip.AddrFrom4(host), uint16(number)), true
}
