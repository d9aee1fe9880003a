package refusals

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
	"time"
)

// readingShare is the part of the time that may be spent on reading what listens, as one in so many.
const readingShare = 100

// States of sockets that wait for whoever comes: of TCP, and of UDP (linux/net/tcp_states.h).
const (
	listens     = "0A"
	unconnected = "07"
)

// listening knows at which places programs in this network namespace listen for TCP connections, and at which addresses
// they take datagrams as well (proc(5), net/tcp and net/udp). It is read again when it is asked, but not so often that
// many ports cost much.
type listening struct {
	folder string // with the files tcp, tcp6, udp and udp6
	except uint16 // a port that is not for agents, or 0
	places map[netip.AddrPort]bool
	hosts  map[netip.Addr]bool
	fresh  time.Time // until when it need not be read again
}

// refresh reads the places again, unless that was done just now.
func (l *listening) refresh() error {
	started := time.Now()
	if started.Before(l.fresh) {
		return nil
	}
	l.places, l.hosts = map[netip.AddrPort]bool{}, map[netip.Addr]bool{}
	for name, state := range map[string]string{"tcp": listens, "tcp6": listens, "udp": unconnected, "udp6": unconnected} {
		file, err := os.Open(filepath.Join(l.folder, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return err
		}
		err = l.read(file, state)
		file.Close()
		if err != nil {
			return err
		}
	}
	ended := time.Now()
	l.fresh = ended.Add(readingShare * ended.Sub(started))
	return nil
}

// read adds the places of sockets in a state in one file. Those of TCP that listen come before all others.
func (l *listening) read(file io.Reader, wanted string) error {
	const place, state = 1, 3
	lines := bufio.NewScanner(file)
	lines.Scan() // the names of the columns
	for lines.Scan() {
		columns := strings.Fields(lines.Text())
		if len(columns) <= state || columns[state] != wanted {
			if wanted == listens {
				break
			}
			continue
		}
		if found, is := readPlace(columns[place]); is && (l.except == 0 || found.Port() != l.except) {
			l.hosts[found.Addr()] = true
			if wanted == listens {
				l.places[found] = true
			}
		}
	}
	return lines.Err()
}

// readPlace reads an address and a port as the kernel prints them. An address for every interface is 0.0.0.0, in both
// files. Other addresses of IPv6 are left out.
func readPlace(text string) (netip.AddrPort, bool) {
	address, port, _ := strings.Cut(text, ":")
	number, err := strconv.ParseUint(port, 16, 16)
	octets, other := hex.DecodeString(address)
	if err != nil || other != nil || len(octets) < 4 || (len(octets) > 4 && slices.ContainsFunc(octets, func(each byte) bool { return each != 0 })) {
		return netip.AddrPort{}, false
	}
	var host [4]byte
	binary.NativeEndian.PutUint32(host[:], binary.BigEndian.Uint32(octets))
	return netip.AddrPortFrom(netip.AddrFrom4(host), uint16(number)), true
}

// anything reports whether anything listens for connections at all.
func (l *listening) anything() bool { return len(l.places) > 0 }

// at reports whether something listens for connections at a place.
func (l *listening) at(place netip.AddrPort) bool {
	return l.places[place] || l.places[netip.AddrPortFrom(netip.IPv4Unspecified(), place.Port())]
}

// on reports whether something listens at an address, on any port, or takes datagrams there.
func (l *listening) on(address netip.Addr) bool { return l.hosts[address] }
