// Package listening ends a CoreDNS that no longer listens, so that the engine starts it again.
//
// CoreDNS goes on without a listener whose accept or read has failed: it writes a line, and nobody is answered at that
// transport any more. It tells no plugin, and whether the kernel knows of a listening socket can't be mistaken, however busy
// the machine is. So the kernel is asked.
package listening

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/coredns/caddy"

	"clawker-fw/internal/sockets"
)

// lookEvery is how often the kernel is asked, and missedAtMost how often in a row a socket may be missing: the kernel's
// lists can change while they are read.
const (
	lookEvery    = time.Second
	missedAtMost = 2
)

// EndWithout ends the process with exit code 1 once a server has started and does not listen any more, but for a shutdown.
func EndWithout() {
	var shutdown atomic.Bool
	caddy.RegisterEventHook("listening", func(event caddy.EventName, about any) error {
		switch event {
		case caddy.ShutdownEvent:
			shutdown.Store(true)
		case caddy.InstanceStartupEvent:
			for _, server := range about.(*caddy.Instance).Servers() {
				for _, place := range []net.Addr{server.Addr(), server.LocalAddr()} {
					go func() {
						awaitEnd(sockets.Here, place)
						if !shutdown.Load() {
							fmt.Fprintf(os.Stderr, "coredns: it does not listen at %s (%s) any more\n", place, place.Network())
							os.Exit(1)
						}
					}()
				}
			}
		}
		return nil
	})
}

// awaitEnd returns when nobody listens at a place any more.
func awaitEnd(folder string, place net.Addr) {
	for missed := 0; missed < missedAtMost; time.Sleep(lookEvery) {
		if there, err := listensAt(folder, place); there || err != nil { // without a free file, nobody can tell
			missed = 0
		} else {
			missed++
		}
	}
}

func listensAt(folder string, place net.Addr) (bool, error) {
	wanted, err := netip.ParseAddrPort(place.String())
	if err != nil {
		return false, err
	}
	places, err := sockets.Listening(folder, place.Network())
	return slices.ContainsFunc(places, func(found netip.AddrPort) bool { return found.Port() == wanted.Port() }), err
}
