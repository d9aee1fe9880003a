package refusals

import (
	"net/netip"
	"time"

	"clawker-fw/internal/sockets"
)

// readingShare is the part of the time that may be spent on reading what listens, as one in so many.
const readingShare = 100

// listening knows at which places programs in this network namespace listen for TCP connections, and at which addresses
// they take datagrams as well. It is read again when it is asked, but not so often that many ports cost much.
type listening struct {
	folder string // with the kernel's lists of sockets
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
	connections, err := sockets.Listening(l.folder, "tcp")
	if err != nil {
		return err
	}
	datagrams, err := sockets.Listening(l.folder, "udp")
	if err != nil {
		return err
	}
	l.places, l.hosts = map[netip.AddrPort]bool{}, map[netip.Addr]bool{}
	for _, place := range append(datagrams, connections...) {
		if l.except == 0 || place.Port() != l.except {
			l.hosts[place.Addr()] = true
		}
	}
	for _, place := range connections {
		if l.except == 0 || place.Port() != l.except {
			l.places[place] = true
		}
	}
	ended := time.Now()
	l.fresh = ended.Add(readingShare * ended.Sub(started))
	return nil
}

// anything reports whether anything listens for connections at all.
func (l *listening) anything() bool { return len(l.places) > 0 }

// at reports whether something listens for connections at a place.
func (l *listening) at(place netip.AddrPort) bool {
	return l.places[place] || l.places[netip.AddrPortFrom(netip.IPv4Unspecified(), place.Port())]
}

// on reports whether something listens at an address, on any port, or takes datagrams there.
func (l *listening) on(address netip.Addr) bool { return l.hosts[address] }
